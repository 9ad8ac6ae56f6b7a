"use strict";
// One pair: what each stream runs, and the SMs it holds.

DRAW.pair = async function (data) {
  const rows = await columns(data.table);
  const held = [];
  for (const track of data.sms) held.push({ name: track.name, ...(await columns(track.table)) });
  const node = document.getElementById("pair-plot");
  const colour = document.getElementById("pair-colour");
  const end = rows.end.reduce((a, b) => Math.max(a, b), 0);
  const blocks = phaseBlocks(rows, data);
  const texts = Array.from({ length: rows.rows }, (_, i) => opText(rows, i, data));
  const place = new Map(data.lanes.map(([lane], at) => [lane, at]));
  const hasTrack = held.some((track) => track.rows);

  const shape = (view) => {
    const lanes = data.lanes.map(([, name]) => name);
    const top = hasTrack ? 0.36 : 0;
    const room = data.device_sms;
    return layout({
      xaxis: { ...secondsAxis(view), anchor: hasTrack ? "y2" : "y", title: { text: `time from the start of the ${data.what}`, font: { size: 12, color: DATA.page.muted } } },
      yaxis: {
        domain: [top, 1], range: [lanes.length - 0.45, -1.55], fixedrange: true, showgrid: false, ticks: "",
        tickvals: [-1, ...lanes.keys()], ticktext: ["direction ", ...lanes.map((name) => name + " ")],
      },
      yaxis2: {
        domain: [0, 0.27], fixedrange: true, rangemode: "tozero", title: { text: "SMs held", font: { size: 12, color: DATA.page.muted } },
        nticks: 5, range: [0, (room || Math.max(...held.flatMap((track) => [...track.held]), 1)) * 1.12],
      },
      margin: { l: 10, r: 16, t: 4, b: 46 }, dragmode: "zoom", barmode: "overlay",
      shapes: room ? [{ type: "line", xref: "paper", x0: 0, x1: 1, yref: "y2", y0: room, y1: room, line: { color: DATA.page.ink, width: 1.2, dash: "dash" } }] : [],
      annotations: room ? [{ xref: "paper", x: 1, xanchor: "right", yref: "y2", y: room, yanchor: "bottom", text: `${room} SMs on the device`, showarrow: false, font: { size: 11.5, color: DATA.page.muted } }] : [],
    });
  };
  const draw = (view) => {
    const kinds = colour.value === "phase" ? data.phases : data.kinds;
    const pick = colour.value === "phase" ? rows.phase : rows.kind;
    const pixel = (view[1] - view[0]) / Math.max(400, node.clientWidth - 150);
    const traces = [blockBars(blocks, data, view, pixel), ...opBars(rows, texts, kinds, pick, place, view, pixel, data)];
    return Plotly.react(node, hasTrack ? [...traces, ...smTracks(held, view)] : traces, shape(view), CONFIG);
  };
  const legends = document.querySelectorAll("#pair .legend");
  const choose = () => legends.forEach((legend, i) => { legend.hidden = (i === 0) === (colour.value === "phase"); });
  const moving = movable("pair", [0, end], draw);
  colour.addEventListener("change", () => { choose(); draw(moving.view()); });
  choose();
  await moving.set([0, end]);
  moving.follow();
};

function opText(rows, i, data) {
  const where = [rows.layer[i] >= 0 ? `layer ${rows.layer[i]}` : "", half(rows.stage[i], rows.micro_batch[i])].filter(Boolean).join(", ");
  const sms = rows.sms[i] > 0 ? `, ${rows.sms[i]} SMs` : "";
  return `<b>${escaped(data.labels[rows.label[i]])}</b>, ${data.phases[rows.phase[i]].name}` + (where ? `<br>${where}` : "") +
    `<br>${moment(rows.start[i])} + <b>${time(rows.end[i] - rows.start[i])}</b>${sms}` +
    (rows.price[i] >= 0 ? priceText(data.prices[rows.price[i]]) : "");
}

// Runs of the same direction on the compute stream: the order in which the two halves interleave.
function phaseBlocks(rows, data) {
  const order = Array.from(rows.lane.keys()).filter((i) => rows.lane[i] === data.lanes[0][0]).sort((a, b) => rows.start[a] - rows.start[b]);
  const blocks = [];
  for (const i of order) {
    const last = blocks[blocks.length - 1];
    if (last && last.phase === rows.phase[i]) [last.end, last.count] = [Math.max(last.end, rows.end[i]), last.count + 1];
    else blocks.push({ phase: rows.phase[i], start: rows.start[i], end: rows.end[i], count: 1 });
  }
  return blocks;
}

function blockBars(blocks, data, view, pixel) {
  const seen = blocks.filter((block) => block.end > view[0] && block.start < view[1]);
  const cut = seen.map((block) => [Math.max(block.start, view[0]), Math.min(block.end, view[1])]);
  return hoverBars({
    base: cut.map(([start]) => start), x: cut.map(([start, end]) => end - start), y: seen.map(() => -1), width: 0.62,
    marker: { color: seen.map((block) => data.phases[block.phase].colour), line: { width: 1, color: "#ffffff" } },
    text: seen.map((block, i) => ((cut[i][1] - cut[i][0]) / pixel > 16 ? data.phases[block.phase].short : "")),
    textposition: "inside", insidetextanchor: "middle", textangle: 0, textfont: { size: 11 },
    customdata: seen.map((block) => `<b>${data.phases[block.phase].name}</b><br>${moment(block.start)} + <b>${time(block.end - block.start)}</b>, ${block.count} kernels`),
  });
}

function opBars(rows, texts, kinds, pick, place, view, pixel, data) {
  const traces = kinds.map((kind) => hoverBars({
    base: [], x: [], y: [], customdata: [], text: [], width: 0.8, textposition: "inside", insidetextanchor: "middle", textangle: 0,
    textfont: { size: 10.5 }, marker: { color: kind.colour, line: { width: [], color: "#ffffff" } },
  }));
  for (let i = 0; i < rows.rows; i++) {
    if (rows.end[i] <= view[0] || rows.start[i] >= view[1] || rows.end[i] === rows.start[i]) continue;
    const trace = traces[pick[i]], start = Math.max(rows.start[i], view[0]), end = Math.min(rows.end[i], view[1]);
    const name = data.labels[rows.label[i]];
    trace.base.push(start);
    trace.x.push(end - start);
    trace.y.push(place.get(rows.lane[i]));
    trace.customdata.push(texts[i]);
    trace.marker.line.width.push((end - start) / pixel > 5 ? 0.8 : 0); // an outline would bury a thin bar
    trace.text.push((end - start) / pixel > 7 * name.length + 6 ? escaped(name) : "");
  }
  return traces.filter((trace) => trace.x.length);
}

// SMs held, as the mean over each of many short stretches of the view: kernels are far shorter than a pixel.
function smTracks(held, view) {
  const colours = { compute: "#4a90c8", communication: "#d55e00" };
  const cells = 700, width = (view[1] - view[0]) / cells;
  const x = Array.from({ length: cells + 1 }, (_, cell) => view[0] + cell * width);
  return held.filter((track) => track.rows).map((track) => ({
    type: "scatter", mode: "lines", x, y: means(track, view[0], width, cells), yaxis: "y2", name: track.name,
    stackgroup: "sms", line: { shape: "hv", width: 0.8, color: colours[track.name] }, fillcolor: colours[track.name] + "66",
    hovertemplate: `${track.name}: %{y:.0f} SMs<extra></extra>`,
  }));
}

function means(track, origin, width, cells) {
  const sums = new Float64Array(cells + 1);
  for (let i = 0; i + 1 < track.rows; i++) {
    if (!track.held[i]) continue;
    const a = Math.max(0, (track.time[i] - origin) / width), b = Math.min(cells, (track.time[i + 1] - origin) / width);
    for (let cell = Math.floor(a); cell < b; cell++) sums[cell] += track.held[i] * (Math.min(b, cell + 1) - Math.max(a, cell));
  }
  return Array.from(sums);
}
