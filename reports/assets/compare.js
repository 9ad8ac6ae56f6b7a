"use strict";
// Two runs: what makes their difference, and their memory; how far each key moves a step.

DRAW.causes = function (data) {
  const node = document.getElementById("causes-plot"), small = node.clientWidth < 480;
  const lines = (name) => { // two of them where there is little room, cut at the space nearest to the middle
    const spaces = [...name.matchAll(/ /g)].map((each) => each.index), far = (at) => Math.abs(at - name.length / 2);
    if (!small || name.length < 20 || !spaces.length) return [name];
    const cut = spaces.reduce((a, b) => (far(b) < far(a) ? b : a));
    return [name.slice(0, cut), name.slice(cut + 1)];
  };
  const names = data.bars.map((bar) => lines(bar.name).map((line) => escaped(line) + " ").join("<br>"));
  node.style.height = `${data.bars.length * 34 + 60}px`;
  const ends = data.bars.flatMap((bar) => [bar.base, bar.base + bar.length]);
  const low = Math.min(0, ...ends), high = Math.max(0, ...ends), edge = (high - low) * 0.03;
  const links = data.bars.slice(0, -1).map((bar, i) => ({
    type: "line", x0: bar.base + bar.length, x1: bar.base + bar.length, y0: i + 0.36, y1: i + 0.64, line: { color: "#94a3b3", width: 1 },
  }));
  return Plotly.newPlot(node, [hoverBars({
    base: data.bars.map((bar) => bar.base), x: data.bars.map((bar) => bar.length), y: [...names.keys()], width: 0.72,
    marker: { color: data.bars.map((bar) => bar.colour) },
    customdata: data.bars.map((bar) => `<b>${escaped(bar.name)}</b>: ${bar.text}<br>${wrapped(bar.meaning)}`),
  })], layout({
    xaxis: { range: [low - edge, high + edge], tickformat: data.unit ? "~f" : "~s", ticksuffix: data.unit ? ` ${data.unit}` : "s", fixedrange: true, nticks: small ? 3 : 5, tickangle: 0, zeroline: true, zerolinecolor: "#94a3b3" },
    yaxis: { range: [names.length - 0.5, -0.5], tickvals: [...names.keys()], ticktext: names, fixedrange: true, showgrid: false, ticks: "" },
    shapes: links, margin: { l: 10, r: 84, t: 8, b: 40 },
    annotations: data.bars.map((bar, y) => ({
      xref: "paper", x: 1, xanchor: "right", xshift: 80, y, text: bar.text, showarrow: false, font: { size: 12, color: DATA.page.ink },
    })),
  }), CONFIG);
};

DRAW.memories = function (data) {
  const node = document.getElementById("memories-plot"), [, gigabyte] = DATA.page.scales.data[0];
  node.style.height = "190px";
  const sums = [0, 1].map((run) => data.parts.reduce((sum, part) => sum + part[2 + run], 0));
  const traces = data.parts.map(([name, colour, ...bytes]) => hoverBars({
    name, y: ["A ", "B "], x: bytes.map((each) => each / gigabyte), marker: { color: colour, opacity: 0.85 },
    customdata: bytes.map((each, run) => `<b>${escaped(name)}</b>: ${quantity(each, "data")} of ${quantity(sums[run], "data")}`),
  }));
  const most = Math.max(...data.capacities, ...sums) / gigabyte;
  return Plotly.newPlot(node, traces, layout({
    barmode: "stack", bargap: 0.3, xaxis: { ticksuffix: " GB", fixedrange: true, nticks: 6, range: [0, most * 1.04] },
    yaxis: { autorange: "reversed", fixedrange: true, showgrid: false, ticks: "" },
    shapes: data.capacities.map((bytes, run) => ({
      type: "line", x0: bytes / gigabyte, x1: bytes / gigabyte, y0: run - 0.45, y1: run + 0.45, line: { color: DATA.page.ink, width: 1.2, dash: "dash" },
    })),
  }), CONFIG);
};

DRAW.tornado = function (data) {
  const node = document.getElementById("tornado-plot"), small = node.clientWidth < 480;
  const short = (name) => (!small || name.length < 25 ? name : name.includes(" ") ? name.slice(0, 23) + "…" : "…" + name.slice(-23)) + " ";
  node.style.height = `${data.bars.length * 24 + 60}px`;
  const most = Math.max(...data.bars.flatMap((bar) => bar.ends.map((end) => Math.abs(end.share)))) * 108;
  const traces = [0, 1].map((side) => hoverBars({
    x: data.bars.map((bar) => 100 * bar.ends[side].share), y: [...data.bars.keys()], width: 0.7,
    marker: { color: data.colours[side], opacity: 0.9 }, customdata: data.bars.map((bar) => wrapped(bar.ends[side].text)),
  }));
  return Plotly.newPlot(node, traces, layout({
    barmode: "overlay",
    xaxis: { range: [-most, most], ticksuffix: " %", fixedrange: true, nticks: small ? 3 : 7, tickangle: 0, zeroline: true, zerolinecolor: "#94a3b3", title: { text: data.title, font: { size: 12, color: DATA.page.muted } } },
    yaxis: { range: [data.bars.length - 0.5, -0.5], tickvals: [...data.bars.keys()], ticktext: data.bars.map((bar) => escaped(short(bar.name))), fixedrange: true, showgrid: false, ticks: "" },
  }), CONFIG);
};
