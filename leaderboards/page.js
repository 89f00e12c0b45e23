// Table sorting, the score/difference switch, copy buttons and the Pareto plot. The page can be read without JavaScript.
"use strict";

for (const table of document.querySelectorAll(".sortable")) {
  const heads = [...table.querySelectorAll("thead th")];
  for (const head of heads.filter((head) => head.dataset.best))
    head.querySelector("button").addEventListener("click", () => sort(table, heads, head));
}

// The first click puts the best variant first, the second click the worst; rows without a number stay last.
function sort(table, heads, head) {
  const best = head.dataset.best === "high" ? "descending" : "ascending";
  const other = best === "descending" ? "ascending" : "descending";
  const order = head.getAttribute("aria-sort") === best ? other : best;
  for (const each of heads) if (each.hasAttribute("aria-sort")) each.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", order);
  const shows = table.closest("main").dataset.shows;
  const read = (row) => {
    const cell = row.cells[head.cellIndex];
    const text = cell && (shows === "difference" && cell.dataset.difference ? cell.dataset.difference : cell.dataset.score);
    return text ? Number(text) : NaN;
  };
  const sign = order === "ascending" ? 1 : -1;
  const compare = (a, b) => (isNaN(a) ? (isNaN(b) ? 0 : 1) : isNaN(b) ? -1 : sign * (a - b));
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((a, b) => compare(read(a), read(b))));
}

for (const group of document.querySelectorAll(".switch")) {
  group.hidden = false;
  group.addEventListener("click", (event) => {
    const shows = event.target.dataset.shows;
    if (!shows) return;
    group.closest("main").dataset.shows = shows;
    for (const button of group.children) button.setAttribute("aria-pressed", button.dataset.shows === shows);
  });
}

if (navigator.clipboard)
  for (const box of document.querySelectorAll(".copied")) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "copy" });
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(box.querySelector("code").textContent);
      button.textContent = "copied";
    });
    box.append(button);
  }

const plots = JSON.parse(document.getElementById("plots").textContent);
for (const section of document.querySelectorAll(".pareto")) {
  const plot = plots[section.dataset.plot];
  const [quality, cost] = section.querySelectorAll("select");
  plot.qualities.forEach((axis, index) => quality.add(new Option(axis.label, index)));
  plot.costs.forEach((axis, index) => cost.add(new Option(axis.label, index)));
  // Select the cost that is known for most variants: the base has no training cost, but it has an inference cost.
  const known = plot.costs.map((axis) => axis.points.filter(Boolean).length);
  quality.selectedIndex = plot.first;
  cost.selectedIndex = known.lastIndexOf(Math.max(...known));
  const draw = () => drawPlot(section.querySelector("figure"), plot, quality.selectedIndex, cost.selectedIndex);
  quality.addEventListener("change", draw);
  cost.addEventListener("change", draw);
  section.querySelector(".selectors").hidden = false;
  draw();
  new ResizeObserver(draw).observe(section);
}

function element(parent, name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  return parent.appendChild(made);
}

// About `wanted` round numbers that span the values with a margin.
function ticks(values, wanted, most = Infinity) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = (high - low || Math.abs(high) || 1) * 0.08;
  const floor = low >= 0 ? 0 : -Infinity;
  [low, high] = [Math.max(floor, low - margin), Math.min(most, high + margin)];
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let i = Math.floor(low / step); i <= Math.ceil(high / step); i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function drawPlot(figure, plot, qualityIndex, costIndex) {
  const [quality, cost] = [plot.qualities[qualityIndex], plot.costs[costIndex]];
  const [front, maybe] = [plot.fronts[qualityIndex][costIndex], plot.maybe[qualityIndex][costIndex]];
  const points = plot.variants
    .map((name, i) => ({ name, q: quality.points[i], c: cost.points[i], onFront: front.includes(name), maybe: maybe.includes(name) }))
    .filter((point) => point.q && point.c);
  const absent = plot.variants.filter((name) => !points.some((point) => point.name === name));
  figure.replaceChildren();
  const caption = [
    front.length ? `Pareto front (shown to be better than every variant that is not more expensive): ${front.join(", ")}.` : "",
    maybe.length ? `Maybe on it (no variant that is not more expensive was shown to be better): ${maybe.join(", ")}.` : "",
    absent.length ? `Not shown, because a number is missing: ${absent.join(", ")}.` : "",
  ].join(" ").trim();
  const [width, height, left, right, top, bottom] = [Math.max(300, figure.clientWidth), 380, 56, 24, 26, 46];
  if (points.length) {
    const svg = element(figure, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${quality.label} against ${cost.label}. ${caption}` });
    const xs = ticks(points.map((point) => point.c[0]), Math.max(3, width / 130));
    const ys = ticks(points.flatMap((point) => point.q.filter((number) => number !== null)), 6, quality.most ?? Infinity);
    const scale = (marks, from, to) => (value) => from + ((value - marks[0]) / (marks.at(-1) - marks[0])) * (to - from);
    const [x, y] = [scale(xs, left, width - right), scale(ys, height - bottom, top)];
    for (const value of xs) {
      const tick = element(svg, "g", { class: "tick" });
      element(tick, "line", { x1: x(value), x2: x(value), y1: top, y2: height - bottom });
      element(tick, "text", { x: x(value), y: height - bottom + 17, "text-anchor": "middle" }, value);
    }
    for (const value of ys) {
      const tick = element(svg, "g", { class: "tick" });
      element(tick, "line", { x1: left, x2: width - right, y1: y(value), y2: y(value) });
      element(tick, "text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, value);
    }
    element(svg, "text", { class: "axis", x: width - right, y: height - 8, "text-anchor": "end" }, `${cost.label} →`);
    element(svg, "text", { class: "axis", x: 4, y: 14 }, quality.label);
    const steps = points.filter((point) => point.onFront).sort((a, b) => a.c[0] - b.c[0]);
    if (steps.length) {
      const path = steps.map((point, i) => (i ? `H${x(point.c[0])}V${y(point.q[0])}` : `M${x(point.c[0])} ${y(point.q[0])}`));
      element(svg, "path", { class: "front", d: path.join("") + `H${width - right}` });
    }
    const taken = [];
    for (const point of points) {
      const [px, py] = [x(point.c[0]), y(point.q[0])];
      const group = element(svg, "g", { class: point.onFront ? "point on-front" : point.maybe ? "point maybe-front" : "point", tabindex: 0 });
      const [value, low, high] = point.q.map((number) => (number === null ? "?" : Number(number.toPrecision(4))));
      element(group, "title", {}, `${point.name}: ${value} (95 % ${low} to ${high}) at ${point.c[1]}`);
      if (point.q[1] !== null && point.q[2] !== null)
        element(group, "line", { class: "bar", x1: px, x2: px, y1: y(point.q[1]), y2: y(point.q[2]) });
      element(group, "circle", { cx: px, cy: py, r: 5.5 });
      const flip = px > width - right - 9 - point.name.length * 7;
      let ly = py - 8;
      while (taken.some(([tx, ty]) => Math.abs(tx - px) < 90 && Math.abs(ty - ly) < 14)) ly += 14;
      taken.push([px, ly]);
      element(group, "text", { x: px + (flip ? -9 : 9), y: ly, "text-anchor": flip ? "end" : "start" }, point.name);
    }
  }
  const text = figure.appendChild(document.createElement("figcaption"));
  text.textContent = points.length ? caption : "No variant has both a quality and a cost.";
}
