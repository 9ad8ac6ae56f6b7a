"use strict";
// Memory at one position over the step, and the peaks of all.

DRAW.memory = async function (data) {
  const chosen = document.getElementById("memory-rank");
  const [, gigabyte] = DATA.page.scales.data[0];
  const unpacked = new Map();
  const show = async () => {
    const curve = data.curves[chosen.value];
    if (!unpacked.has(chosen.value)) unpacked.set(chosen.value, await columns(curve.table));
    drawCurve(data, curve, unpacked.get(chosen.value), gigabyte);
  };
  chosen.addEventListener("change", show);
  await show();
  await drawPeaks(data, gigabyte);
  document.getElementById("peaks-plot").on("plotly_click", (event) => {
    chosen.value = String(event.points[0].customdata[0]);
    show();
  });
};

function capacityLine(y, orientation) {
  const line = { type: "line", line: { color: DATA.page.ink, width: 1.2, dash: "dash" } };
  return orientation === "h" ? { ...line, xref: "paper", x0: 0, x1: 1, y0: y, y1: y } : { ...line, yref: "paper", y0: 0, y1: 1, x0: y, x1: y };
}

function drawCurve(data, curve, rows, gigabyte) {
  const times = Array.from(rows.time);
  const traces = data.parts.flatMap(([name, colour], i) => rows[i] ? [{
    type: "scatter", mode: "lines", name, x: times, y: Array.from(rows[i], (bytes) => bytes / gigabyte), stackgroup: "memory",
    line: { shape: "hv", width: 0.6, color: colour }, fillcolor: colour + "b0", hovertemplate: `${escaped(name)}: %{y:.2f} GB<extra></extra>`,
  }] : []);
  const capacity = curve.capacity / gigabyte;
  const peak = curve.peak.reduce((a, b) => a + b, 0) / gigabyte;
  Plotly.react("memory-plot", traces, layout({
    xaxis: { ...secondsAxis([times[0], times[times.length - 1]]), fixedrange: true, title: { text: "time from the start of the step", font: { size: 12, color: DATA.page.muted } } },
    yaxis: { range: [0, Math.max(capacity, peak) * 1.08], ticksuffix: " GB", fixedrange: true, nticks: 8 },
    hovermode: "x unified", margin: { l: 10, r: 16, t: 8, b: 46 }, shapes: [capacityLine(capacity, "h")],
    annotations: [{ xref: "paper", x: 1, xanchor: "right", y: capacity, yanchor: "bottom", text: `capacity ${quantity(curve.capacity, "data")}`, showarrow: false, font: { size: 12, color: DATA.page.muted } }],
  }), CONFIG);
}

function drawPeaks(data, gigabyte) {
  const positions = data.curves.map((curve) => `position ${curve.position} `);
  const sums = data.curves.map((curve) => curve.peak.reduce((a, b) => a + b, 0));
  const traces = data.parts.map(([name, colour], i) => hoverBars({
    name, y: positions, x: data.curves.map((curve) => curve.peak[i] / gigabyte), marker: { color: colour, opacity: 0.85 },
    customdata: data.curves.map((curve, at) => [at, `<b>position ${curve.position}</b> at its peak, ${quantity(sums[at], "data")}<br>${escaped(name)}: ${quantity(curve.peak[i], "data")}`]),
    hovertemplate: "%{customdata[1]}<extra></extra>",
  }));
  const capacity = data.curves[0].capacity / gigabyte;
  return Plotly.newPlot("peaks-plot", traces, layout({
    barmode: "stack", bargap: 0.25, xaxis: { ticksuffix: " GB", fixedrange: true, nticks: 6, range: [0, Math.max(capacity, ...sums.map((s) => s / gigabyte)) * 1.06] },
    yaxis: { autorange: "reversed", fixedrange: true, showgrid: false, ticks: "", dtick: Math.ceil(positions.length / 32) },
    shapes: [capacityLine(capacity, "v")], margin: { l: 10, r: 16, t: 8, b: 46 },
  }), CONFIG);
}
