"use strict";
// Points of a search or a sweep: a chart over two figures, heat maps over two axes, and command lines to copy.

const BEST = { min: (a, b) => a < b, max: (a, b) => a > b };
const HUES = ["#3d4a8a", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#d55e00", "#9aa5b1", "#b58a5a"];
const POINTS = DATA.chart;
const figureAt = (name) => POINTS.figures.findIndex((figure) => figure.name === name);
const axisAt = (name) => POINTS.axes.findIndex((axis) => axis.name === name);
const chosen = (id) => document.getElementById(id).value;

function figureText(figure, value) {
  if (figure.unit === "s") return time(value);
  if (figure.unit === "B") return quantity(value, "data");
  return `${scaled(value, 5)} ${figure.unit || ""}`;
}

// Such as 65.3G.
function scaled(value, digits) {
  const [letter, size] = [["T", 1e12], ["G", 1e9], ["M", 1e6], ["", 1]].find(([, size]) => Math.abs(value) >= size) || ["", 1];
  return Number((value / size).toPrecision(digits)) + letter;
}

function pointText([labels, figures]) {
  const words = labels.map((label, i) => `${escaped(POINTS.axes[i].name)}=<b>${wrapped(label)}</b>`);
  const told = POINTS.figures.map((figure, i) => (figures[i] === null ? "" : `${escaped(figure.name)}: <b>${figureText(figure, figures[i])}</b>`));
  return [...words, ...told.filter(Boolean)].join("<br>");
}

// How an axis prints numbers: with letters where they are large, or seconds and bytes.
const tickFormat = (figure, values) => (figure.unit === "s" || figure.unit === "B" || Math.max(...values.map(Math.abs)) >= 1e4 ? "~s" : "");

function axisTitle(figure, values) {
  const names = { B: "", s: "" };
  const unit = figure.unit in names ? names[figure.unit] : figure.unit;
  return { title: { text: escaped(figure.name) + (unit ? ` (${escaped(unit)})` : ""), font: { size: 12.5, color: DATA.page.muted }, standoff: 10 }, ticksuffix: figure.unit === "s" || figure.unit === "B" ? figure.unit : "", tickformat: tickFormat(figure, values) };
}

// Points that no other beats in both figures, along the first of them.
function frontOf(points, x, y) {
  const better = [x, y].map((at) => BEST[POINTS.figures[at].best]);
  const sorted = [...points].sort((a, b) => (a[1][x] === b[1][x] ? (better[1](a[1][y], b[1][y]) ? -1 : 1) : better[0](a[1][x], b[1][x]) ? -1 : 1));
  const kept = [];
  for (const point of sorted) if (!kept.length || better[1](point[1][y], kept[kept.length - 1][1][y])) kept.push(point);
  return kept;
}

function showCommand(id, point) {
  const box = document.getElementById(id);
  box.innerHTML = `<code>${escaped(point[3])}</code><button type="button">Copy</button>`;
  const button = box.querySelector("button");
  button.dataset.copy = point[3];
}

function drawChart() {
  const x = figureAt(chosen("chart-x")), y = figureAt(chosen("chart-y")), by = axisAt(chosen("chart-colour"));
  const points = POINTS.points.filter((point) => point[1][x] !== null && point[1][y] !== null);
  const labels = by < 0 ? [""] : POINTS.axes[by].labels.map(String);
  if (by >= 0 && points.some((point) => point[0][by] === "")) labels.push(""); // points beside the product
  const traces = labels.map((label, i) => {
    const own = points.filter((point) => by < 0 || point[0][by] === label);
    return {
      type: "scatter", mode: "markers", name: escaped(label) || "others", x: own.map((point) => point[1][x]), y: own.map((point) => point[1][y]),
      marker: { size: own.map((point) => (point[2] ? 11 : 7)), color: HUES[i % HUES.length], opacity: 0.85, line: { width: own.map((point) => (point[2] ? 1.6 : 0)), color: DATA.page.ink } },
      customdata: own, text: own.map(pointText), hovertemplate: "%{text}<extra></extra>",
    };
  }).filter((trace) => trace.x.length);
  const line = frontOf(points, x, y);
  traces.unshift({
    type: "scatter", mode: "lines", name: "front", x: line.map((point) => point[1][x]), y: line.map((point) => point[1][y]),
    line: { color: DATA.page.muted, width: 1.2, dash: "dot", shape: "linear" }, hoverinfo: "skip", showlegend: false,
  });
  const node = document.getElementById("chart-plot");
  return Plotly.react(node, traces, layout({
    xaxis: axisTitle(POINTS.figures[x], points.map((point) => point[1][x])), yaxis: axisTitle(POINTS.figures[y], points.map((point) => point[1][y])), showlegend: by >= 0,
    legend: { orientation: "h", y: -0.18, title: { text: by >= 0 ? escaped(POINTS.axes[by].name) : "", font: { size: 12.5 } } }, dragmode: "zoom", margin: { l: 10, r: 16, t: 8, b: 46 },
  }), { ...CONFIG, doubleClick: "reset" });
}

DRAW.chart = async function () {
  await drawChart();
  document.getElementById("chart-plot").on("plotly_click", (event) => {
    const point = event.points[0].customdata;
    if (point) showCommand("chart-command", point);
  });
  for (const id of ["chart-x", "chart-y", "chart-colour"]) document.getElementById(id).addEventListener("change", drawChart);
};

// The best point of each cell.
function cells(across, down, figure) {
  const better = BEST[POINTS.figures[figure].best], rows = POINTS.axes[down].labels, columns = POINTS.axes[across].labels;
  return rows.map((row) => columns.map((column) => {
    let best = null;
    for (const point of POINTS.points) {
      if (point[0][down] !== String(row) || point[0][across] !== String(column) || point[1][figure] === null) continue;
      if (!best || better(point[1][figure], best[1][figure])) best = point;
    }
    return best;
  }));
}

function drawHeat() {
  const across = axisAt(chosen("heat-x")), down = axisAt(chosen("heat-y")), figure = figureAt(chosen("heat-figure"));
  const grid = cells(across, down, figure), of = POINTS.figures[figure], node = document.getElementById("heat-plot");
  node.style.height = `${Math.min(760, 150 + 46 * grid.length)}px`;
  const value = (point) => (point ? point[1][figure] : null);
  const short = (point) => (point ? (of.unit === "s" || of.unit === "B" ? figureText(of, value(point)) : scaled(value(point), 4)) : "");
  const ticks = (axis) => ({ type: "category", tickvals: POINTS.axes[axis].labels.map(String), ticktext: POINTS.axes[axis].labels.map((label) => escaped(String(label)).slice(0, 26)), title: { text: escaped(POINTS.axes[axis].name), font: { size: 12.5, color: DATA.page.muted } }, showgrid: false, fixedrange: true });
  const fits = node.clientWidth / POINTS.axes[across].labels.length > 64;
  return Plotly.react(node, [{
    type: "heatmap", x: POINTS.axes[across].labels.map(String), y: POINTS.axes[down].labels.map(String), z: grid.map((row) => row.map(value)),
    customdata: grid, text: grid.map((row) => row.map(short)), texttemplate: fits ? "%{text}" : "", hovertext: grid.map((row) => row.map((point) => (point ? pointText(point) : ""))),
    hovertemplate: "%{hovertext}<extra></extra>", hoverongaps: false, xgap: 2, ygap: 2, reversescale: of.best === "max",
    textfont: { color: DATA.page.ink }, colorscale: DATA.heat.which === "best" ? [[0, "#54b893"], [0.5, "#f4f6f8"], [1, "#ef9a5b"]] : [[0, "#f4f6f8"], [1, "#78b7e3"]], showscale: node.clientWidth > 700, colorbar: { thickness: 12, tickformat: tickFormat(of, grid.flat().filter(Boolean).map(value)), outlinewidth: 0 },
  }], layout({ xaxis: ticks(across), yaxis: { ...ticks(down), autorange: "reversed" }, margin: { l: 10, r: 10, t: 8, b: 46 } }), CONFIG);
}

DRAW.heat = async function () {
  await drawHeat();
  document.getElementById("heat-plot").on("plotly_click", (event) => {
    const point = event.points[0].customdata;
    if (point) showCommand("heat-command", point);
  });
  for (const id of ["heat-x", "heat-y", "heat-figure"]) document.getElementById(id).addEventListener("change", drawHeat);
};

// Copying works from a file too, where browsers have no clipboard for scripts.
function copied(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  return Promise.resolve();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const said = button.textContent;
  copied(button.dataset.copy).then(() => {
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = said), 1200);
  });
});
