"use strict";
// Use of links over the step: a row for each class, areas by kind of traffic, a line for the busiest link.

DRAW.links = async function (data) {
  const count = data.classes.length, gap = 0.34 / count; // room above a row for its name
  const narrow = document.getElementById("links-plot").clientWidth < 480; // what is said of a class then takes lines of its own
  document.getElementById("links-plot").style.height = `${count * (narrow ? 150 : 118) + 60}px`;
  const rows = await Promise.all(data.classes.map((each) => columns(each.table)));
  const shares = (column) => [...column, column[column.length - 1]].map((part) => part / data.steps);
  const bins = rows[0].rows;
  const times = Array.from({ length: bins + 1 }, (_, i) => (data.end * i) / bins);
  const top = Math.max(1.12, 1.08 * Math.max(...rows.map((row) => Math.max(...row.busiest))) / data.steps);
  const axes = {}, traces = [], shapes = [], annotations = [];
  data.classes.forEach((each, i) => {
    const id = i ? i + 1 : "", place = { xaxis: "x", yaxis: "y" + id };
    const high = 1 - i / count - gap, low = 1 - (i + 1) / count;
    axes["yaxis" + id] = { domain: [low, high], range: [0, top], tickformat: ".0%", tickvals: [0, 0.5, 1], fixedrange: true };
    data.kinds.forEach(([name, colour, key]) => traces.push({
      ...place, type: "scatter", mode: "lines", name, x: times, y: shares(rows[i][key]), stackgroup: "kinds" + i,
      line: { shape: "hv", width: 0, color: colour }, fillcolor: colour + "c8", hovertemplate: `${escaped(name)}: %{y:.1%}<extra></extra>`,
    }));
    traces.push({
      ...place, type: "scatter", mode: "lines", name: "busiest", x: times, y: shares(rows[i].busiest),
      line: { shape: "hv", width: 1, color: DATA.page.ink }, hovertemplate: "busiest link: %{y:.1%}<extra></extra>",
    });
    shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, yref: "y" + id, y0: 1, y1: 1, line: { color: "#94a3b3", width: 1.2, dash: "dash" } });
    annotations.push({
      xref: "paper", x: 0, xanchor: "left", yref: "paper", y: high, yanchor: "bottom", showarrow: false, align: "left",
      text: `<b>${escaped(each.name)}</b>${narrow ? "<br>" : "  "}<span style="color:${DATA.page.muted}">${narrow ? wrapped(each.said, 40) : escaped(each.said)}</span>`,
      font: { size: narrow ? 10.5 : 12.5 },
    });
  });
  return Plotly.newPlot("links-plot", traces, layout({
    ...axes,
    xaxis: { ...secondsAxis([0, data.end]), anchor: "y" + (count > 1 ? count : ""), fixedrange: true, title: { text: "time from the start of the step", font: { size: 12, color: DATA.page.muted } } },
    hovermode: "x unified", shapes, annotations, margin: { l: 10, r: 16, t: 4, b: 46 },
  }), CONFIG);
};
