"use strict";
// Accuracy against tokens or budget: a line for each run and control, with bands of 95 %.

const DASHES = {
  separate: "",
  truncate: "6 4",
  s1: "2 3",
  prompt: "9 3 2 3",
  told: "1 3",
  wrap_up: "12 4",
  carry_over: "5 2",
};
const SHAPES = {
  separate: "circle",
  truncate: "square",
  none: "star",
  s1: "triangle",
  prompt: "diamond",
  zero: "cross",
  wrap_up: "pentagon",
  carry_over: "wedge",
  told: "hexagon",
};
const CONTROL_NAMES = {
  separate: "separate budgets",
  none: "no budget",
  truncate: "truncated",
  s1: "s1 budget forcing",
  prompt: "asked by the prompt",
  zero: "no thinking",
  wrap_up: "wrap-up text",
  carry_over: "carry-over",
  told: "told in the prompt",
};
const hiddenLines = new Set();

function shapePath(shape, x, y, r) {
  const polygon = (turns, start, inner = 1) => {
    const corners = Array.from({ length: turns }, (_, i) => {
      const radius = i % 2 && inner < 1 ? r * inner : r;
      const angle = start + (2 * Math.PI * i) / turns;
      return `${(x + radius * Math.cos(angle)).toFixed(2)} ${(y + radius * Math.sin(angle)).toFixed(2)}`;
    });
    return `M${corners.join("L")}Z`;
  };
  if (shape === "square") return polygon(4, Math.PI / 4);
  if (shape === "diamond") return polygon(4, 0);
  if (shape === "triangle") return polygon(3, -Math.PI / 2);
  if (shape === "hexagon") return polygon(6, 0);
  if (shape === "wedge") return polygon(3, Math.PI / 2);
  if (shape === "pentagon") return polygon(5, -Math.PI / 2);
  if (shape === "star") return polygon(10, -Math.PI / 2, 0.45);
  if (shape === "cross") return polygon(8, 0, 0.35);
  return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
}

// [{run, control, cells, colour, name}] of one benchmark, in the order of the runs; cells from the smallest budget on.
function curveLines(benchmark) {
  const lines = new Map();
  for (const cell of page.cells) {
    if (cell.benchmark !== benchmark || cell.accuracy === null) continue;
    const key = `${cell.run}|${cell.control}`;
    if (!lines.has(key)) lines.set(key, { key, run: cell.run, control: cell.control, cells: [] });
    lines.get(key).cells.push(cell);
  }
  const controls = [...new Set(page.cells.map((cell) => cell.control))];
  for (const line of lines.values()) {
    line.colour = colour(page.runs.length > 1 ? line.run : controls.indexOf(line.control));
    const control = CONTROL_NAMES[line.control] || line.control;
    line.name = page.runs.length > 1 ? `${page.runs[line.run]}: ${control}` : control;
  }
  return [...lines.values()];
}

function thinkingBudgets(lines) {
  const found = new Set(
    lines.filter((line) => hasThinkingBudget(line)).flatMap((line) => line.cells.map((cell) => cell.t)),
  );
  return [...found].sort((a, b) => (a === -1) - (b === -1) || a - b);
}

function hasThinkingBudget(line) {
  return line.control !== "none" && line.control !== "truncate";
}

// {place(cell) -> 0..1, ticks: [[place, text]], title}
function tokenAxis(lines) {
  const tokens = lines.flatMap((line) => line.cells.map((cell) => cell.total_tokens));
  const [low, high] = [Math.min(...tokens), Math.max(...tokens)];
  const title = "mean tokens sampled (thinking + solution)";
  if (low > 0 && high > 8 * low) {
    const [from, to] = [Math.log2(low) - 0.15, Math.log2(high) + 0.15];
    const place = (value) => (Math.log2(value) - from) / (to - from);
    const powers = Array.from({ length: 40 }, (_, i) => 2 ** i).filter(
      (value) => place(value) >= 0 && place(value) <= 1,
    );
    return {
      place: (cell) => place(cell.total_tokens),
      ticks: powers.map((value) => [place(value), count(value)]),
      title: `${title}, log scale`,
    };
  }
  const top = high * 1.06 || 1;
  const marks = ticks(top, 6).map((value) => [value / top, count(value)]);
  return { place: (cell) => cell.total_tokens / top, ticks: marks, title };
}

function budgetAxis(lines) {
  const budgets = thinkingBudgets(lines);
  const slots = budgets.length + 1;
  const place = (slot) => (slot + 0.5) / slots;
  const marks = budgets.map((budget, slot) => [place(slot), budget === -1 ? "no limit" : count(budget)]);
  return {
    place: (cell) => place(cell.control === "none" ? slots - 1 : budgets.indexOf(cell.t)),
    ticks: [...marks, [place(slots - 1), "none"]],
    title: "thinking token budget t (none: no budget at all)",
  };
}

function drawCurve() {
  const all = curveLines(state.benchmark).filter((line) => state.axis === "tokens" || line.control !== "truncate");
  drawLegend(all);
  byId("notes").replaceChildren(
    ...page.notes.filter((note) => note.benchmark === state.benchmark).map((note) => node("p", {}, note.text)),
  );
  const lines = all.filter((line) => !hiddenLines.has(line.key));
  const holder = byId("curve");
  holder.replaceChildren();
  drawCellTable();
  if (!lines.length) return void holder.append(node("p", {}, "No line is shown: choose one above."));
  const width = Math.max(300, holder.clientWidth);
  const height = Math.round(Math.min(470, Math.max(280, width * 0.55)));
  const frame = { left: 52, right: width - 14, top: 12, bottom: height - 50 };
  const axis = state.axis === "tokens" ? tokenAxis(lines) : budgetAxis(lines);
  const top = Math.min(
    1,
    Math.max(0.1, Math.ceil(Math.max(...lines.flatMap((line) => line.cells.map((cell) => cell.ci_high))) * 10) / 10),
  );
  const x = (cell) => frame.left + axis.place(cell) * (frame.right - frame.left);
  const y = (accuracy) => frame.bottom - (accuracy / (top * 1.02)) * (frame.bottom - frame.top);
  const chart = svg("svg", {
    class: "chart",
    viewBox: `0 0 ${width} ${height}`,
    height,
    role: "group",
    "aria-label": "Accuracy curve",
  });
  chart.append(...drawAxes(frame, axis, top, y, width));
  for (const line of lines) chart.append(...drawBand(line, x, y));
  // A control of one cell stands above the lines: it may lie on a point of theirs.
  const upwards = [...lines].sort((a, b) => (a.cells.length === 1) - (b.cells.length === 1));
  for (const line of upwards) chart.append(...drawLine(line, x, y));
  for (const line of upwards) chart.append(...drawHits(line, x, y, holder));
  holder.append(chart, node("div", { id: "tip", hidden: "" }));
}

function drawAxes(frame, axis, top, y, width) {
  const marks = [];
  for (const value of ticks(top, 6)) {
    marks.push(svg("line", { class: "grid", x1: frame.left, x2: frame.right, y1: y(value), y2: y(value) }));
    marks.push(svg("text", { x: frame.left - 8, y: y(value) + 4, "text-anchor": "end" }, `${value}`));
  }
  let free = -Infinity;
  for (const [place, text] of axis.ticks) {
    const x = frame.left + place * (frame.right - frame.left);
    marks.push(svg("line", { class: "grid", x1: x, x2: x, y1: frame.top, y2: frame.bottom }));
    const half = text.length * 3.6 + 4;
    if (x - half < free || x + half > width) continue;
    free = x + half;
    marks.push(svg("text", { x, y: frame.bottom + 17, "text-anchor": "middle" }, text));
  }
  const middle = (frame.top + frame.bottom) / 2;
  marks.push(
    svg(
      "text",
      { class: "axis-title", x: (frame.left + frame.right) / 2, y: frame.bottom + 40, "text-anchor": "middle" },
      axis.title,
    ),
  );
  marks.push(
    svg(
      "text",
      { class: "axis-title", x: 14, y: middle, "text-anchor": "middle", transform: `rotate(-90 14 ${middle})` },
      "accuracy",
    ),
  );
  return marks;
}

function drawBand(line, x, y) {
  if (line.cells.length === 1) {
    const [cell] = line.cells;
    return [
      svg("line", {
        class: "bar",
        colour: line.colour,
        x1: x(cell),
        x2: x(cell),
        y1: y(cell.ci_low),
        y2: y(cell.ci_high),
      }),
    ];
  }
  const corners = [
    ...line.cells.map((cell) => `${x(cell)} ${y(cell.ci_high)}`),
    ...line.cells.map((cell) => `${x(cell)} ${y(cell.ci_low)}`).reverse(),
  ];
  return [svg("path", { class: "band", colour: line.colour, d: `M${corners.join("L")}Z` })];
}

function drawLine(line, x, y) {
  const shape = SHAPES[line.control] || "circle";
  const hollow = line.control === "separate" || line.control === "none" ? "" : " hollow";
  const path = `M${line.cells.map((cell) => `${x(cell)} ${y(cell.accuracy)}`).join("L")}`;
  const drawn = [
    svg("path", { class: "line", colour: line.colour, d: path, "stroke-dasharray": DASHES[line.control] || null }),
  ];
  for (const cell of line.cells) {
    const [cx, cy, r] = [x(cell), y(cell.accuracy), shape === "star" ? 9 : 5];
    drawn.push(svg("path", { class: `point${hollow}`, colour: line.colour, d: shapePath(shape, cx, cy, r) }));
    if (cell.trained) drawn.push(svg("circle", { class: "ring", cx, cy, r: 10 }));
  }
  return drawn;
}

// What is pointed at, tapped or focused: larger than the points, and above all lines.
function drawHits(line, x, y, holder) {
  return line.cells.map((cell) => {
    const [cx, cy] = [x(cell), y(cell.accuracy)];
    const show = () => showTip(cell, cx, cy, holder);
    const choose = () => {
      show();
      chooseCell(cell);
    };
    const keys = (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        choose();
      }
    };
    return svg("circle", {
      class: "hit",
      cx,
      cy,
      r: 13,
      tabindex: 0,
      role: "button",
      "aria-label": cellText(cell).replaceAll("\n", ", "),
      "data-cell": page.cells.indexOf(cell),
      onpointerenter: show,
      onfocus: show,
      onpointerleave: hideTip,
      onblur: hideTip,
      onclick: choose,
      onkeydown: keys,
    });
  });
}

function cellText(cell) {
  const told = [`${page.runs[cell.run]}: ${budgetText(cell)}`, `accuracy ${accuracyText(cell)}`];
  if (cell.mean) return [...told, `${count(cell.total_tokens)} tokens`, cell.benchmark].join("\n");
  return [
    ...told,
    `${count(cell.total_tokens)} tokens: ${count(cell.thinking_tokens)} thinking, ${count(cell.solution_tokens)} solution`,
    `forced ${percent(cell.forced_rate)}`,
    `${count(cell.n_samples)} samples of ${count(cell.n_problems)} problems`,
  ].join("\n");
}

function showTip(cell, cx, cy, holder) {
  const tip = byId("tip");
  tip.textContent = cellText(cell);
  tip.hidden = false;
  const left = Math.min(Math.max(0, cx - tip.offsetWidth / 2), holder.clientWidth - tip.offsetWidth);
  const above = cy - tip.offsetHeight - 14;
  tip.style.left = `${left}px`;
  tip.style.top = `${above >= 0 ? above : cy + 16}px`;
}

function hideTip() {
  const tip = byId("tip");
  if (tip) tip.hidden = true;
}

function chooseCell(cell) {
  const text = node("span", {}, cellText(cell).replaceAll("\n", "; "), ". ");
  const read = cell.mean
    ? null
    : node("button", { type: "button", onclick: () => readCell(cell) }, "Read its generations");
  byId("cell").replaceChildren(...[text, read].filter(Boolean));
}

function drawLegend(lines) {
  const entries = lines.map((line) => {
    const shape = svg("path", {
      class: "point" + (line.control === "separate" || line.control === "none" ? "" : " hollow"),
      colour: line.colour,
      d: shapePath(SHAPES[line.control] || "circle", 17, 7, line.control === "none" ? 7 : 5),
    });
    const stroke = svg("path", {
      class: "line",
      colour: line.colour,
      d: "M0 7L34 7",
      "stroke-dasharray": DASHES[line.control] || null,
    });
    const toggle = () => {
      if (!hiddenLines.delete(line.key)) hiddenLines.add(line.key);
      drawCurve();
      byId("curve-legend").querySelector(`[data-line="${line.key}"]`).focus();
    };
    return node(
      "button",
      { type: "button", "aria-pressed": !hiddenLines.has(line.key), "data-line": line.key, onclick: toggle },
      svg("svg", { width: 34, height: 14, "aria-hidden": "true" }, ...(line.cells.length > 1 ? [stroke] : []), shape),
      line.name,
    );
  });
  if (lines.some((line) => line.cells.some((cell) => cell.trained))) {
    const ring = svg(
      "svg",
      { width: 22, height: 22, "aria-hidden": "true" },
      svg("circle", { class: "ring", cx: 11, cy: 11, r: 9 }),
    );
    entries.push(node("span", { class: "entry" }, ring, "trained budget t*"));
  }
  byId("curve-legend").replaceChildren(...entries);
}

const TABLE = [
  ["Run", (cell) => page.runs[cell.run], true],
  ["Budget (t + s)", budgetText, true],
  ["Accuracy [95 %]", accuracyText],
  ["Tokens", (cell) => count(cell.total_tokens)],
  ["Thinking", (cell) => count(cell.thinking_tokens)],
  ["(p95)", (cell) => count(cell.thinking_tokens_p95)],
  ["Solution", (cell) => count(cell.solution_tokens)],
  ["(p95)", (cell) => count(cell.solution_tokens_p95)],
  ["Forced", (cell) => percent(cell.forced_rate)],
  ["Cut", (cell) => percent(cell.solution_truncated_rate)],
  ["in thinking", (cell) => percent(cell.thinking_cut_rate)],
  ["Reopened", (cell) => percent(cell.reopened_rate)],
  ["Samples", (cell) => count(cell.n_samples)],
  ["Problems", (cell) => count(cell.n_problems)],
  ["Ungraded", (cell) => count(cell.ungraded)],
];

// pass@k, majority@n and rating as far as the cells have them.
function estimateColumns(cells) {
  const ks = [...new Set(cells.flatMap((cell) => Object.keys(cell.pass_at_k)))]
    .filter((k) => k !== "1")
    .sort((a, b) => a - b);
  const shown = (interval) =>
    interval ? `${interval[0].toFixed(3)} [${interval[1].toFixed(3)}, ${interval[2].toFixed(3)}]` : "–";
  const columns = ks.map((k) => [`pass@${k}`, (cell) => shown(cell.pass_at_k[k])]);
  if (cells.some((cell) => cell.majority_at_n)) columns.push(["majority@n", (cell) => shown(cell.majority_at_n)]);
  if (cells.some((cell) => cell.rating)) columns.push(["Rating", (cell) => cell.rating || "–"]);
  return columns;
}

function drawCellTable() {
  const cells = page.cells.filter((cell) => cell.benchmark === state.benchmark);
  const columns = [...TABLE, ...estimateColumns(cells)];
  const head = node(
    "tr",
    {},
    ...columns.map(([title, , text]) => node("th", { scope: "col", class: text ? "text" : null }, title)),
  );
  const rows = cells.map((cell) =>
    node(
      "tr",
      { "data-cell": page.cells.indexOf(cell) },
      ...columns.map(([, value, text]) => node("td", { class: text ? "text" : null }, value(cell))),
    ),
  );
  byId("cells").replaceChildren(node("table", {}, node("thead", {}, head), node("tbody", {}, ...rows)));
}
