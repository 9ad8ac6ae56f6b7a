"use strict";
// Channels of exchanges: a lane for each role, and below it the rows in flight towards buffers.

async function drawChannel(data) {
  const node = document.getElementById(`${data.key}-plot`);
  node.style.height = `${data.roles.length * 44 + 240}px`;
  const kinds = [...new Set(data.bars.map((bar) => bar[3]))];
  const traces = kinds.map((kind) => {
    const bars = data.bars.filter((bar) => bar[3] === kind);
    return hoverBars({
      name: kind, base: bars.map((bar) => bar[1]), x: bars.map((bar) => bar[2]), y: bars.map((bar) => bar[0]), width: 0.7,
      marker: { color: bars[0][4], line: { width: 0 } },
      customdata: bars.map((bar) => `<b>${escaped(data.roles[bar[0]])}</b> ${escaped(kind)}: ${time(bar[2])}<br>from ${time(bar[1])}`),
    });
  });
  data.flying.forEach((curve) => traces.push({
    type: "scatter", mode: "lines", name: curve.name, x: curve.x, y: curve.y, yaxis: "y2",
    line: { shape: "hv", width: 1.2, color: curve.colour }, hovertemplate: `${escaped(curve.name)}: %{y} rows<extra></extra>`,
  }));
  const title = (text) => ({ text, font: { size: 12, color: DATA.page.muted } });
  await Plotly.newPlot(node, traces, layout({
    barmode: "overlay",
    xaxis: { ...secondsAxis([0, data.end]), nticks: Math.max(3, Math.min(12, Math.floor(node.clientWidth / 90))), anchor: "y2", title: title("time from the end of the barrier") },
    yaxis: { domain: [0.5, 1], range: [data.roles.length - 0.5, -0.5], tickvals: [...data.roles.keys()], ticktext: data.roles.map((role) => escaped(role) + " "), fixedrange: true, showgrid: false, ticks: "" },
    yaxis2: { domain: [0, 0.42], rangemode: "tozero", fixedrange: true, title: title("rows in flight") },
    dragmode: "zoom", margin: { l: 10, r: 16, t: 8, b: 46 },
  }), { ...CONFIG, doubleClick: "reset" });
  new ResizeObserver(() => Plotly.Plots.resize(node)).observe(node); // also where the window keeps its size
}

for (const key of Object.keys(DATA)) if (key.startsWith("channel")) DRAW[key] = drawChannel;
