"use strict";
// What every figure of the page shares: its data, units, looks, and moving the view by mouse, button and key.

const DATA = JSON.parse(document.getElementById("data").textContent);
const DRAW = {};
const TYPES = { f8: Float64Array, i4: Int32Array };
const CONFIG = { displayModeBar: false, doubleClick: false };
const REFIT = {}; // id of a figure -> what of its layout hangs on the width of its box

async function start() {
  for (const key of Object.keys(DRAW)) {
    if (!DATA[key]) continue;
    await DRAW[key](DATA[key]);
    await new Promise((next) => setTimeout(next, 0)); // let the browser paint what is ready
  }
  followBoxes();
  document.body.dataset.ready = "yes";
}

// Figures follow their boxes, whatever makes those wider or narrower.
function followBoxes() {
  const follow = ({ target }) => {
    if (!target._fullLayout || Math.abs(target._fullLayout.width - target.clientWidth) < 1) return;
    Plotly.relayout(target, { autosize: true, ...(REFIT[target.id] ? REFIT[target.id]() : {}) });
  };
  const observer = new ResizeObserver((entries) => entries.forEach(follow));
  document.querySelectorAll(".plot").forEach((node) => observer.observe(node));
}

// --- data ---

async function columns(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const found = { rows: packed.rows };
  for (const [name, type, offset] of packed.columns) found[name] = new TYPES[type](buffer, offset, packed.rows);
  return found;
}

// --- text ---

function quantity(value, dimension) {
  const scales = DATA.page.scales[dimension];
  const [unit, scale] = scales.find(([, size]) => Math.abs(value) >= size * 0.9995) || scales[scales.length - 1];
  const number = value / scale;
  const digits = unit === "ns" || unit === "B" ? 0 : Math.max(0, 3 - Math.floor(Math.log10(Math.max(1, Math.abs(number)))));
  const text = number.toFixed(digits);
  return (dimension === "data" ? String(Number(text)) : text) + " " + unit;
}

// Less than half a nanosecond is rounding.
const time = (seconds) => (Math.abs(seconds) < 0.5 * DATA.page.scales.time.at(-1)[1] ? "0 s" : quantity(seconds, "time"));

// A moment of the step: digits down to the nanosecond only matter when looking closely.
const moment = (seconds) => (seconds ? seconds.toFixed(6) + " s" : "0 s");

const percent = (share) => (100 * share).toFixed(1) + " %";

function escaped(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function wrapped(text, width = 64) {
  const lines = [""];
  for (const word of String(text).split(/\s+/)) {
    if (lines[lines.length - 1].length + word.length > width) lines.push("");
    lines[lines.length - 1] += (lines[lines.length - 1] ? " " : "") + word;
  }
  return lines.map(escaped).join("<br>");
}

// The price of something and its source; a source that says all that the price does stands for both.
function priceText([price, source], what = "price") {
  const [kind, ...rest] = price.split(": ");
  const said = source && source.includes(rest.join(": ")) ? `${kind}: ${source}` : price + (source ? ". " + source : "");
  return `<br><span style="color:${DATA.page.muted}">${what}: ${wrapped(said)}</span>`;
}

// --- looks ---

function layout(more) {
  const axis = { gridcolor: "#e9edf1", zeroline: false, linecolor: "#cbd3db", tickcolor: "#cbd3db", automargin: true };
  const plain = {
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: DATA.page.ink },
    margin: { l: 10, r: 16, t: 8, b: 40 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false, bargap: 0, hovermode: "closest", dragmode: false,
    hoverlabel: { bgcolor: "#ffffff", bordercolor: "#94a3b3", align: "left", font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: DATA.page.ink } },
  };
  for (const name of Object.keys(more)) {
    plain[name] = /^[xy]axis/.test(name) ? { ...axis, ...more[name] } : more[name];
  }
  return plain;
}

const secondsAxis = (range) => ({
  range: [...range], tickformat: "~s", ticksuffix: "s", hoverformat: ".6f", tickangle: 0,
  nticks: Math.max(3, Math.min(12, Math.round(document.body.clientWidth / 105))),
});

function hoverBars(more) {
  return { type: "bar", orientation: "h", hovertemplate: "%{customdata}<extra></extra>", marker: { line: { width: 0 } }, ...more };
}

// --- moving ---

// A view over [first, last] seconds. `draw(view)` redraws; the returned function sets the view by hand.
function movable(key, whole, draw) {
  const node = document.getElementById(key + "-plot");
  let view = [...whole];
  const set = (wanted) => {
    const length = Math.min(whole[1] - whole[0], Math.max(wanted[1] - wanted[0], (whole[1] - whole[0]) * 1e-7));
    const from = Math.min(Math.max(wanted[0], whole[0]), whole[1] - length);
    view = [from, from + length];
    return draw(view);
  };
  const shift = (part) => set(view.map((t) => t + part * (view[1] - view[0])));
  const zoom = (factor) => {
    const middle = (view[0] + view[1]) / 2, half = ((view[1] - view[0]) * factor) / 2;
    return set([middle - half, middle + half]);
  };
  const moves = { all: () => set(whole), in: () => zoom(0.5), out: () => zoom(2), left: () => shift(-0.25), right: () => shift(0.25) };
  const keys = { ArrowLeft: "left", ArrowRight: "right", "+": "in", "=": "in", "-": "out", Home: "all", 0: "all" };
  document.querySelectorAll(`#${key}-controls button`).forEach((button) => {
    button.addEventListener("click", moves[button.dataset.move]);
  });
  node.addEventListener("keydown", (event) => {
    const move = keys[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[move]();
  });
  node.addEventListener("dblclick", moves.all);
  return {
    set,
    view: () => view,
    // plotly tells of a drag after it has redrawn the axis; the bars for the new view follow
    follow: () => node.on("plotly_relayout", (change) => {
      const range = change["xaxis.range"] || [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      if (Number.isFinite(range[0]) && Number.isFinite(range[1])) set([...range].sort((a, b) => a - b));
    }),
  };
}
