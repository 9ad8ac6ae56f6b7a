"use strict";
// The small figures: waterfall and stage loads.

DRAW.waterfall = function (data) {
  const names = data.bars.map((bar) => bar.name + " ");
  document.getElementById("waterfall-plot").style.height = `${data.bars.length * 36 + 64}px`;
  const links = data.bars.slice(0, -1).map((bar, i) => ({
    type: "line", x0: bar.base + bar.length, x1: bar.base + bar.length, y0: i + 0.36, y1: i + 0.64, line: { color: "#94a3b3", width: 1 },
  }));
  const total = data.bars[data.bars.length - 1].length;
  const reach = Math.max(...data.bars.map((bar) => Math.max(bar.base, bar.base + bar.length)));
  const node = document.getElementById("waterfall-plot"), label = 76; // pixels of a time written beside its bar
  const words = 10 + 7 * Math.max(...names.map((name) => name.length));
  const range = () => { // as far as bars and the time beside the longest need
    const room = Math.max(2 * label, node.clientWidth - words - 16);
    return [0, (reach * room) / (room - label)];
  };
  REFIT["waterfall-plot"] = () => ({ "xaxis.range": range() });
  return Plotly.newPlot(node, [hoverBars({
    base: data.bars.map((bar) => bar.base), x: data.bars.map((bar) => bar.length), y: [...names.keys()], width: 0.72,
    marker: { color: data.bars.map((bar) => bar.colour) },
    text: data.bars.map((bar) => ` ${bar.length < 0 ? "−" : ""}${time(Math.abs(bar.length))} `), textposition: "outside", cliponaxis: false,
    customdata: data.bars.map((bar) => `<b>${escaped(bar.name)}</b>: ${time(bar.length)}, ${percent(bar.length / total)} of the step<br>${wrapped(bar.meaning)}`),
  })], layout({
    xaxis: { range: range(), tickformat: "~s", ticksuffix: "s", fixedrange: true, nticks: 6, tickangle: 0 },
    yaxis: { range: [names.length - 0.5, -0.5], tickvals: [...names.keys()], ticktext: names.map(escaped), fixedrange: true, showgrid: false, ticks: "" },
    shapes: links,
  }), CONFIG);
};

DRAW.stages = function (data) {
  const sums = data.stages.map((stage) => stage.times.reduce((a, b) => a + b, 0));
  const traces = data.parts.map(([name, colour], part) => ({
    type: "bar", x: data.stages.map((stage) => stage.stage), y: data.stages.map((stage) => stage.times[part]),
    marker: { color: colour }, hovertemplate: "%{customdata}<extra></extra>",
    customdata: data.stages.map((stage, i) => `<b>stage ${stage.stage}</b> at position ${stage.position}: ${wrapped(stage.contents)}<br>` +
      `${stage.parameters} parameters<br>${name}: <b>${time(stage.times[part])}</b> of ${time(sums[i])}`),
  }));
  return Plotly.newPlot("stages-plot", traces, layout({
    barmode: "stack", bargap: 0.28,
    xaxis: { tickvals: data.stages.map((stage) => stage.stage), showgrid: false, fixedrange: true, ticks: "", title: { text: "stage", font: { size: 12, color: DATA.page.muted } } },
    yaxis: { tickformat: "~s", ticksuffix: "s", fixedrange: true, nticks: 7, range: [0, Math.max(...sums) * 1.1] },
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: data.mean, y1: data.mean, line: { color: DATA.page.ink, width: 1.2, dash: "dash" } }],
    annotations: [{ xref: "paper", x: 1, xanchor: "left", xshift: 8, y: data.mean, text: `mean<br>${time(data.mean)}`, align: "left", showarrow: false, font: { size: 11.5, color: DATA.page.muted } }],
    margin: { l: 10, r: 84, t: 8, b: 46 },
  }), CONFIG);
};
