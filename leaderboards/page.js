// Filters and sorts tables, opens cells, searches samples, draws other axes and saves files. The page can be read without it.
// What a reader has chosen is kept in the address: q (filter), show, off (hidden columns), sort0 …, cell, x0 and y0 (axes).
"use strict";
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const keep = (key, value) => {
    if (value) state.set(key, value);
    else state.delete(key);
    history.replaceState(null, "", "#" + state);
  };
  const made = (parent, tag, text, kind) => {
    const node = parent.appendChild(document.createElement(tag));
    node.textContent = text;
    if (kind) node.className = kind;
    return node;
  };
  const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

  const reveal = (node) => {
    for (let at = node; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    node.scrollIntoView();
  };
  for (const link of all(".bar a"))
    link.addEventListener("click", (event) => {
      event.preventDefault();
      reveal(document.getElementById(link.hash.slice(1)));
    });
  for (const tools of all(".tools")) tools.hidden = false;

  // The quality table
  const quality = one("#quality"), table = one("table", quality);
  const variants = (from) => all("tbody tr:not(.g)", from);
  const scores = all("td a", table);
  const rowOf = (link) => document.getElementById(link.hash.slice(1));
  const column = { difference: 3, rank: 6 };
  for (const link of scores)
    if (!one(".rk", link)) { // a large page has each number once: these are in the table of every score
      const row = rowOf(link);
      made(link, "span", row.cells[column.difference].textContent, "dif");
      made(link, "span", row.cells[column.rank].textContent, "rk");
    }

  const modes = all("[data-m]", quality);
  const show = (mode) => {
    quality.dataset.show = mode;
    for (const button of modes) button.setAttribute("aria-pressed", button.dataset.m === mode);
  };
  const asked = state.get("show");
  show(modes.some((button) => button.dataset.m === asked) ? asked : quality.dataset.show);
  for (const button of modes)
    button.addEventListener("click", () => {
      show(button.dataset.m);
      keep("show", button.dataset.m);
    });

  const find = one("input[type=search]", quality), count = one(".count", quality);
  const filter = () => {
    const wanted = words(find.value);
    let shown = 0;
    for (const each of all("table.sortable"))
      for (const row of variants(each)) {
        const name = (row.cells[0].textContent + " " + row.cells[0].title).toLowerCase();
        row.hidden = !wanted.every((word) => name.includes(word));
        if (each === table) shown += !row.hidden;
      }
    count.textContent = wanted.length ? `${shown} of ${variants(table).length}` : "";
  };
  find.value = state.get("q") || "";
  find.addEventListener("input", () => {
    filter();
    keep("q", find.value);
  });
  filter();

  const boxes = all(".pop input", quality), most = 12;
  const columns = () => {
    for (const row of table.rows)
      if (row.cells.length > boxes.length) boxes.forEach((box, index) => (row.cells[index + 1].hidden = !box.checked));
  };
  const off = state.has("off") ? state.get("off").split(".") : boxes.slice(most).map((box) => box.value);
  for (const box of boxes) {
    box.checked = !off.includes(box.value);
    box.addEventListener("change", () => {
      columns();
      keep("off", boxes.filter((each) => !each.checked).map((each) => each.value).join(".") || "none");
    });
  }
  columns();
  document.addEventListener("click", (event) => {
    for (const pop of all(".pop[open]")) if (!pop.contains(event.target)) pop.open = false;
  });

  // The first click puts the best variant of each run first, the second the worst; rows without a number stay last.
  all("table.sortable").forEach((sorted, number) => {
    const heads = all("th[aria-sort]", sorted);
    const sort = (head, order) => {
      const sign = order === "ascending" ? 1 : -1;
      const read = (row) => {
        const cell = row.cells[head.cellIndex];
        const text = cell && (sorted === table && quality.dataset.show === "diff" && cell.dataset.d ? cell.dataset.d : cell.dataset.v);
        if (!text && sorted === table && cell && one(".v", cell)) return parseFloat(one(".v", cell).textContent);
        return text ? Number(text) : NaN;
      };
      for (const each of heads) each.setAttribute("aria-sort", each === head ? order : "none");
      for (const body of sorted.tBodies) {
        const rows = all("tr:not(.g)", body).map((row) => [read(row), row]);
        rows.sort(([a], [b]) => (isNaN(a) ? (isNaN(b) ? 0 : 1) : isNaN(b) ? -1 : sign * (a - b)));
        body.append(...rows.map(([, row]) => row));
      }
    };
    for (const head of heads) {
      const best = head.dataset.up === "1" ? "descending" : "ascending";
      const other = best === "descending" ? "ascending" : "descending";
      one("button", head).addEventListener("click", () => {
        const order = head.getAttribute("aria-sort") === best ? other : best;
        sort(head, order);
        keep("sort" + number, `${head.cellIndex}.${order}`);
      });
      const [index, order] = (state.get("sort" + number) || "").split(".");
      if (Number(index) === head.cellIndex && (order === best || order === other)) sort(head, order);
    }
  });

  // A cell opens as a dialog with everything about it
  const dialog = one("#cell");
  const open = (link) => {
    const row = rowOf(link), into = dialog.firstElementChild, task = row.parentElement.rows[0];
    const texts = [...row.cells].map((cell) => cell.textContent.trim());
    const names = all("thead th", row.closest("table")).map((head) => head.textContent);
    const title = one("bdi", task).textContent, kind = link.closest("td").className;
    into.replaceChildren();
    made(into, "h3", `${texts[0]} on ${title}`).id = "cell-title";
    made(into, "div", texts[1], "big");
    made(into, "div", texts[3] === "-" ? "the baseline" : texts[3], kind);
    const list = made(into, "dl", "");
    const entries = names.map((name, index) => [name, texts[index]]).slice(2);
    entries.splice(1, 1);
    entries.push(["ties", one(".tie", link).textContent], ["task", one(".lite", task).textContent]);
    for (const [name, text] of entries)
      if (text && text !== "-") {
        made(list, "dt", name);
        made(list, "dd", text);
      }
    const browser = one(".smp", row.closest(".run"));
    if (browser) {
      const samples = made(into, "button", "samples", "b");
      samples.addEventListener("click", () => {
        dialog.close();
        const [variant, which] = all("select", browser);
        const choose = (select, value) => (select.value = [...select.options].some((option) => option.value === value) ? value : "");
        choose(variant, texts[0]);
        choose(which, link.hash.split("-").pop());
        one("input", browser).value = "";
        variant.dispatchEvent(new Event("change"));
        reveal(browser);
      });
    }
    const close = made(into, "button", "close", "b");
    close.autofocus = true;
    close.addEventListener("click", () => dialog.close());
    dialog.onclose = () => {
      keep("cell", "");
      link.focus();
    };
    dialog.showModal();
    keep("cell", link.hash.slice(1));
  };
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  for (const link of scores)
    link.addEventListener("click", (event) => {
      event.preventDefault();
      open(link);
    });

  // Samples
  for (const browser of all(".smp")) {
    const search = one("input", browser), selects = all("select", browser), kinds = all("button[data-k]", browser);
    const samples = all(".s", browser), shown = one(".count", browser);
    let most = 12;
    const apply = () => {
      const wanted = words(search.value), kind = kinds.find((button) => button.getAttribute("aria-pressed") === "true").dataset.k;
      const [variant, task] = selects.map((select) => select.value);
      let left = 0;
      for (const sample of samples) {
        const outputs = all(".o", sample);
        for (const each of outputs)
          each.hidden = !((kind === "all" || each.dataset.k === kind) && (!variant || each.dataset.v === variant));
        const text = sample.textContent.toLowerCase();
        sample.hidden = outputs.every((each) => each.hidden) || (task && sample.dataset.task !== task) || !wanted.every((word) => text.includes(word));
        left += !sample.hidden;
        if (left > most) sample.hidden = true;
      }
      shown.textContent = left < samples.length ? `${left} of ${samples.length}` : "";
      rest.hidden = left <= most;
      rest.textContent = `show all ${left}`;
    };
    const rest = made(browser, "button", "", "b");
    rest.addEventListener("click", () => {
      most = Infinity;
      apply();
    });
    apply();
    search.addEventListener("input", apply);
    for (const select of selects) select.addEventListener("change", apply);
    for (const button of kinds)
      button.addEventListener("click", () => {
        for (const each of kinds) each.setAttribute("aria-pressed", each === button);
        apply();
      });
  }

  // Quality against cost with other axes: Vega is unpacked when it is first needed
  const light = Object.entries(JSON.parse(one("#light").textContent));
  let ready;
  const vega = () =>
    (ready ??= (async () => {
      const bytes = Uint8Array.from(atob(one("#packed").textContent), (letter) => letter.charCodeAt(0));
      const script = document.createElement("script");
      script.textContent = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
      document.head.append(script);
    })());
  const range = (values, log) => {
    const [low, high] = [Math.min(...values), Math.max(...values)].map((value) => (log ? Math.log(value) : value));
    const margin = (high - low || Math.abs(high) || 1) * 0.09;
    return [low - margin, high + margin].map((value) => (log ? Math.exp(value) : value));
  };
  for (const run of all(".run")) {
    const source = one(".axes-data", run);
    if (!source) continue;
    const data = JSON.parse(source.textContent), key = run.dataset.key, [y, x] = all(".axes select", run), target = one(".draw", run);
    data.tasks.forEach((task) => y.add(new Option(task.label, task.key)));
    data.costs.forEach((cost, index) => x.add(new Option(cost.label, index)));
    const draw = async () => {
      const task = data.tasks.find((each) => String(each.key) === y.value), cost = data.costs[x.value];
      const points = data.names.flatMap((name, index) => {
        const score = task.points[index], value = cost.values[index];
        return score && value !== null ? [{ index, label: name, name, cost: value, value: score[0], low: score[1], high: score[2] }] : [];
      });
      if (!points.length) {
        target.textContent = "No variant has both numbers.";
        return;
      }
      const better = (a, b) => task.better[a.index][b.index] === "1";
      for (const point of points) {
        const rivals = points.filter((other) => other !== point && other.cost <= point.cost);
        point.standing = rivals.every((other) => better(point, other)) ? "on" : rivals.some((other) => better(other, point)) ? "off" : "maybe";
      }
      await vega();
      const spec = structuredClone(data.vega), costs = points.map((point) => point.cost);
      const log = Math.min(...costs) > 0 && Math.max(...costs) > 12 * Math.min(...costs);
      spec.data.find((each) => each.name === "points").values = points;
      spec.width = Math.max(230, Math.min(540, target.clientWidth - 60));
      const scale = (name) => spec.scales.find((each) => each.name === name);
      scale("x").type = log ? "log" : "linear";
      scale("x").domain = range(costs, log);
      scale("y").domain = range(points.flatMap((point) => [point.value, point.low, point.high]).filter((value) => value !== null), false);
      spec.title.text = task.label;
      for (const axis of spec.axes) if (axis.title) axis.title = `${cost.label}${log ? " (log)" : ""} → more expensive`;
      const box = document.createElement("div");
      await vegaEmbed(box, spec, { mode: "vega", renderer: "svg", actions: false, tooltip: false });
      let svg = box.querySelector("svg").outerHTML;
      for (const [name, color] of light) svg = svg.replaceAll(new RegExp(`"${color}"`, "gi"), `"var(--${name})"`);
      target.innerHTML = svg;
      const drawn = one("svg", target);
      drawn.classList.add("plot");
      drawn.setAttribute("role", "img");
      drawn.setAttribute("aria-label", `${task.label} against ${cost.label}`);
    };
    const choose = () => {
      keep("y" + key, y.value);
      keep("x" + key, x.value);
      draw();
    };
    const chosen = [state.get("y" + key), state.get("x" + key)];
    y.value = data.tasks.some((each) => String(each.key) === chosen[0]) ? chosen[0] : data.task;
    x.value = data.costs[chosen[1]] ? chosen[1] : data.cost;
    y.addEventListener("change", choose);
    x.addEventListener("change", choose);
    if (chosen[0] && (y.value !== String(data.task) || x.value !== String(data.cost))) draw();
  }

  // Files and copies
  const save = (name, text, type) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const grid = (run) =>
    all("table.every tbody", run).reduce((rows, body) => {
      const task = one("bdi", body.rows[0]).textContent;
      let variant = "";
      for (const row of [...body.rows].slice(1)) {
        const texts = [...row.cells].map((cell) => cell.textContent.trim());
        if (row.id) variant = texts[0];
        rows.push([task, variant, row.id ? "" : texts[0], ...texts.slice(1)]);
      }
      return rows;
    }, [["task", "variant", "other metric", ...all("table.every thead th", run).slice(1).map((head) => head.textContent)]]);
  const formula = /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]/; // a spreadsheet would run it
  const quoted = (text) => `"${formula.test(text) && text !== "-" && isNaN(text) ? "'" : ""}${text.replaceAll('"', '""')}"`;
  const escaped = (text) => text.replace(/[\\`*_\[\]|~<]/g, "\\$&");
  const files = {
    csv: (run) => save("scores.csv", grid(run).map((row) => row.map(quoted).join(",")).join("\n") + "\n", "text/csv"),
    md: (run) => {
      const [head, ...rows] = grid(run).map((row) => `| ${row.map(escaped).join(" | ")} |`);
      save("scores.md", [head, head.replace(/[^|]+/g, " --- "), ...rows].join("\n") + "\n", "text/markdown");
    },
    svg: (run) =>
      all("svg.plot:not(.narrow)", run).forEach((plot, number) => {
        const text = light.reduce((svg, [name, color]) => svg.replaceAll(`var(--${name})`, color), plot.outerHTML);
        save(`plot-${number + 1}.svg`, text, "image/svg+xml");
      }),
    print: () => window.print(),
  };
  for (const button of all("[data-get]")) button.addEventListener("click", () => files[button.dataset.get](button.closest(".run")));
  if (navigator.clipboard)
    for (const box of all(".copied")) {
      const button = made(box, "button", "copy", "b");
      button.type = "button";
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(one("code", box).textContent);
        button.textContent = "copied";
      });
    }

  const asked_cell = state.get("cell"), link = asked_cell && scores.find((each) => each.hash === "#" + asked_cell);
  if (link) open(link);
})();
