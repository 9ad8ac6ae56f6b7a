"use strict";
// Expert rows of the ranks of an expert group, by layer: darker is further from what experts liked alike would have.

DRAW.loads = async function (data) {
  document.getElementById("loads-plot").style.height = `${data.height}px`;
  const rows = await columns(data.table), width = data.members;
  const grid = (column) => data.layers.map((_, i) => Array.from(column.subarray(i * width, (i + 1) * width)));
  const received = grid(rows.received), least = grid(rows.least), most = grid(rows.most);
  const first = [], where = [], ticks = [];
  for (const block of data.blocks) {
    const from = where.length, to = from + block.layers - 1;
    first.push(from);
    const places = `position${block.positions.length > 1 ? "s" : ""} ${block.positions.join(", ")}`;
    for (let i = 0; i < block.layers; i++) where.push(places);
    const names = to > from ? `layers ${data.layers[from]}–${data.layers[to]}` : `layer ${data.layers[from]}`;
    const tick = [(from + to) / 2, `${names}, ${places} `];
    if (!ticks.length || tick[0] - ticks[ticks.length - 1][0] > 1.8) ticks.push(tick); // closer ones would overlap
  }
  const count = (number) => Math.round(number).toLocaleString("en-US");
  const text = grid(rows.mean).map((row, i) => row.map((mean, member) =>
    `<b>layer ${data.layers[i]}</b>, ${where[i]}<br>rank ${member} of the group, node ${Math.floor(member / data.node)}<br>` +
    `rows: <b>${count(mean)}</b> (${count(least[i][member])} to ${count(most[i][member])})<br>tokens received: ${count(received[i][member])}`));
  const z = grid(rows.mean).map((row) => row.map((mean) => mean / data.expected - 1));
  const far = Math.max(0.01, ...z.map((row) => Math.max(...row.map(Math.abs))));
  const [less, alike, more] = data.colours;
  const part = { type: "line", line: { color: "#ffffff", width: 1.2 } };
  const nodes = Array.from({ length: Math.ceil(width / data.node) - 1 }, (_, i) => (i + 1) * data.node - 0.5);
  return Plotly.newPlot("loads-plot", [{
    type: "heatmap", z, text, hovertemplate: "%{text}<extra></extra>", zmin: -far, zmax: far,
    colorscale: [[0, less], [0.5, alike], [1, more]],
    colorbar: { tickformat: "+.0%", thickness: 12, outlinewidth: 0, title: { text: "rows beside expected", side: "right", font: { size: 12, color: DATA.page.muted } } },
  }], layout({
    xaxis: { range: [-0.5, width - 0.5], fixedrange: true, showgrid: false, tick0: 0, dtick: Math.ceil(width / 16), title: { text: "rank in its expert group", font: { size: 12, color: DATA.page.muted } } },
    yaxis: { range: [data.layers.length - 0.5, -0.5], fixedrange: true, showgrid: false, tickvals: ticks.map((tick) => tick[0]), ticktext: ticks.map((tick) => tick[1]) },
    shapes: [
      ...first.slice(1).map((i) => ({ ...part, xref: "paper", x0: 0, x1: 1, y0: i - 0.5, y1: i - 0.5 })),
      ...nodes.map((x) => ({ ...part, yref: "paper", y0: 0, y1: 1, x0: x, x1: x })),
    ],
    margin: { l: 10, r: 10, t: 8, b: 46 },
  }), CONFIG);
};
