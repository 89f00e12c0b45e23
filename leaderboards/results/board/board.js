// Searches the names of all pages, filters the rows of this one, and sorts its tables. The board can be read without it.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const names = window.boardNames || []; // [kind, name, more words, page], from names.js
  const box = document.querySelector(".board-tools input"), found = document.querySelector(".found");
  const count = document.querySelector(".board-tools .count");
  const rows = all("table.board tbody tr:not(.g)");
  const most = 40;

  const search = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const holds = (text) => words.every((word) => text.toLowerCase().includes(word));
    let shown = 0;
    for (const row of rows) {
      row.hidden = !holds(row.textContent + " " + (row.closest("tbody").dataset.words || ""));
      shown += !row.hidden;
    }
    for (const body of all("table.board tbody")) body.hidden = !all("tr:not(.g)", body).some((row) => !row.hidden);
    const pages = words.length ? names.filter((each) => holds(each.slice(0, 3).join(" "))) : [];
    found.replaceChildren(...pages.slice(0, most).map(([kind, name, , page]) => {
      const item = document.createElement("li"), link = document.createElement("a"), text = document.createElement("bdi");
      text.textContent = name;
      link.href = page;
      link.append(text);
      const small = document.createElement("small");
      small.textContent = kind;
      item.append(link, small);
      return item;
    }));
    count.textContent = words.length ? `${shown} of ${rows.length} rows; ${pages.length} pages${pages.length > most ? `, the first ${most} are listed` : ""}` : "";
    history.replaceState(null, "", box.value ? "#q=" + encodeURIComponent(box.value) : location.pathname.split("/").pop() || "index.html");
  };
  if (box) {
    for (const tools of all(".tools")) tools.hidden = false;
    const given = /#q=([^&]*)/.exec(location.hash);
    try {
      if (given) box.value = decodeURIComponent(given[1]);
    } catch { /* an address that was cut short */ }
    box.addEventListener("input", search);
    if (box.value) search();
  }

  for (const table of all("table.sortable"))
    for (const head of all("th[aria-sort]", table)) {
      const best = head.dataset.up === "1" ? "descending" : "ascending", other = best === "ascending" ? "descending" : "ascending";
      head.querySelector("button").addEventListener("click", () => {
        const order = head.getAttribute("aria-sort") === best ? other : best, sign = order === "ascending" ? 1 : -1;
        for (const each of all("th[aria-sort]", table)) each.setAttribute("aria-sort", each === head ? order : "none");
        for (const body of table.tBodies) {
          const value = (row) => parseFloat((row.cells[head.cellIndex] || { dataset: {} }).dataset.v);
          const sorted = all("tr:not(.g)", body).map((row) => [value(row), row]);
          sorted.sort(([a], [b]) => (isNaN(a) ? (isNaN(b) ? 0 : 1) : isNaN(b) ? -1 : sign * (a - b)));
          body.append(...sorted.map(([, row]) => row));
        }
      });
    }

  const open = () => {
    const target = location.hash.startsWith("#s") && document.getElementById(location.hash.slice(1));
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
})();
