"use strict";
// The pipeline: a heat map from far, bars from near.

DRAW.timeline = async function (data) {
  const rows = await columns(data.table);
  const node = document.getElementById("timeline-plot");
  const index = positionIndex(rows);
  rows.odd = oddSteps(rows, data.idle);
  const whole = [0, index.end];
  const say = cachedText(rows, data);
  const count = index.first.length - 1;
  node.style.setProperty("--ranks", Math.max(5, count));
  node.style.setProperty("--row", `${Math.max(13, Math.min(27, Math.round(760 / count)))}px`);

  const shape = (view) => layout({
    xaxis: { ...secondsAxis(view), title: { text: "time from the start of the step", font: { size: 12, color: DATA.page.muted } } },
    yaxis: {
      range: [index.first.length - 1.5, -0.5], fixedrange: true, showgrid: false, ticks: "",
      tickvals: [...data.margin.keys()], ticktext: data.margin.map((_, position) => rowName(data, position) + " "),
    },
    margin: { l: 10, r: 84, t: 4, b: 46 }, dragmode: "zoom", barmode: "overlay",
    annotations: data.margin.map((text, position) => ({
      xref: "paper", x: 1, xanchor: "left", xshift: 8, y: position, text, showarrow: false, font: { size: 11.5, color: DATA.page.muted },
    })),
  });

  const draw = (view) => {
    const seen = inView(rows, index, view);
    node.dataset.mode = seen.count > data.bars ? "heat" : "bars";
    const traces = seen.count > data.bars ? heat(rows, index, seen, view, data, node, say) : bars(rows, seen, view, data, node, say);
    return Plotly.react(node, traces, shape(view), CONFIG);
  };
  const moving = movable("timeline", whole, draw);
  await moving.set(whole);
  moving.follow();
};

// Where each position's rows begin; rows are sorted by position and start and tile the step.
function positionIndex(rows) {
  const first = [];
  let end = 0;
  for (let i = 0; i < rows.rows; i++) {
    while (first.length <= rows.position[i]) first.push(i);
    end = Math.max(end, rows.end[i]);
  }
  first.push(rows.rows);
  return { first, end };
}

// 1 for every second step of a position; idle time does not count.
function oddSteps(rows, idle) {
  const odd = new Uint8Array(rows.rows);
  let steps = 0;
  for (let i = 0; i < rows.rows; i++) {
    if (i && rows.position[i] !== rows.position[i - 1]) steps = 0;
    odd[i] = steps & 1;
    if (rows.kind[i] !== idle) steps++;
  }
  return odd;
}

// The span of rows of each position that touch the view.
function inView(rows, index, view) {
  const spans = [];
  let count = 0;
  for (let position = 0; position + 1 < index.first.length; position++) {
    const from = bisect(rows.end, index.first[position], index.first[position + 1], view[0]);
    const to = bisect(rows.start, from, index.first[position + 1], view[1]);
    spans.push([from, to]);
    count += to - from;
  }
  return { spans, count };
}

// The first index in [low, high) whose value exceeds `value`.
function bisect(values, low, high, value) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

function cachedText(rows, data) {
  const texts = new Map();
  return (i) => {
    if (!texts.has(i)) texts.set(i, stepText(rows, i, data));
    return texts.get(i);
  };
}

function half(stage, microBatch) {
  const words = [];
  if (stage >= 0) words.push(`stage ${stage}`);
  if (microBatch >= 0) words.push(`micro-batch ${microBatch}`);
  return words.join(", ");
}

// A position of the pipeline; of which run, where there are two.
const rowName = (data, position) => (data.names ? data.names[position] : `position ${position}`);

function stepText(rows, i, data) {
  const kind = rows.kind[i];
  const lines = [`<b>${data.kinds[kind].name}</b>, ${rowName(data, rows.position[i])}${data.ranks.length ? `, rank ${data.ranks[rows.position[i]]}` : ""}`];
  if (data.labels && kind !== data.idle) lines.push(wrapped(data.labels[rows.label[i]]));
  if (rows.stage_b[i] >= 0 || rows.micro_batch_b[i] >= 0) {
    lines.push(`forward of ${half(rows.stage[i], rows.micro_batch[i])}`, `backward of ${half(rows.stage_b[i], rows.micro_batch_b[i])}`);
  } else if (half(rows.stage[i], rows.micro_batch[i])) lines.push(half(rows.stage[i], rows.micro_batch[i]));
  if (kind === data.idle && i + 1 < rows.rows && rows.position[i + 1] === rows.position[i]) {
    const next = rows.kind[i + 1];
    lines.push(`until ${data.kinds[next].name}, ${half(rows.stage[i + 1], rows.micro_batch[i + 1])}`.replace(/, $/, ""));
  }
  lines.push(`${moment(rows.start[i])} + <b>${time(rows.end[i] - rows.start[i])}</b>`);
  if (rows.price[i] >= 0) return lines.join("<br>") + priceText(data.prices[rows.price[i]]);
  return lines.join("<br>") + (rows.mix[i] >= 0 ? priceText([data.mixes[rows.mix[i]], ""], "prices of its tasks") : "");
}

// One cell a pixel and position: the kind that fills most of it.
function heat(rows, index, seen, view, data, node, say) {
  const cells = Math.max(400, Math.round(node.clientWidth - 150));
  const width = (view[1] - view[0]) / cells, kinds = data.kinds.length;
  const z = [], text = [];
  seen.spans.forEach(([from, to]) => {
    const filled = new Float64Array(cells * kinds), most = new Float64Array(cells), which = new Int32Array(cells).fill(-1);
    for (let i = from; i < to; i++) {
      const a = Math.max(0, (rows.start[i] - view[0]) / width), b = Math.min(cells, (rows.end[i] - view[0]) / width);
      for (let cell = Math.floor(a); cell < b; cell++) {
        const part = Math.min(b, cell + 1) - Math.max(a, cell);
        filled[cell * kinds + rows.kind[i]] += part;
        if (part > most[cell]) [most[cell], which[cell]] = [part, i];
      }
    }
    z.push(Array.from(which, (i, cell) => {
      if (i < 0) return null; // after a run that ends before the other
      let best = data.idle;
      for (let kind = 0; kind < kinds; kind++) if (filled[cell * kinds + kind] > filled[cell * kinds + best]) best = kind;
      return 2 * best + (best === data.idle ? 0 : rows.odd[i]);
    }));
    text.push(Array.from(which, (i) => (i < 0 ? "" : say(i))));
  });
  // neighbours of one kind differ a little, so that they can be counted from afar
  const shades = data.kinds.flatMap((kind) => [kind.colour, lighter(kind.colour)]);
  const scale = shades.flatMap((shade, i) => [[i / shades.length, shade], [(i + 1) / shades.length, shade]]);
  return [{
    type: "heatmap", z, text, x0: view[0] + width / 2, dx: width, y: [...z.keys()], zmin: -0.5, zmax: shades.length - 0.5,
    colorscale: scale, showscale: false, ygap: 4, hovertemplate: "%{text}<extra></extra>",
  }];
}

function lighter(colour) {
  const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return "rgb(" + parts.map((part) => Math.round(part + (255 - part) * 0.13)).join(",") + ")";
}

// Real bars; their names are written on them when there is room.
function bars(rows, seen, view, data, node, say) {
  const pixel = (view[1] - view[0]) / Math.max(400, node.clientWidth - 150);
  const traces = data.kinds.map((kind) => hoverBars({
    base: [], x: [], y: [], customdata: [], text: [], width: 0.86, textposition: "inside", insidetextanchor: "middle",
    textangle: 0, textfont: { size: 10.5 }, marker: { color: kind.colour, line: { width: 0.6, color: "#ffffff" } }, cliponaxis: true,
  }));
  seen.spans.forEach(([from, to], position) => {
    for (let i = from; i < to; i++) {
      const trace = traces[rows.kind[i]], start = Math.max(rows.start[i], view[0]), end = Math.min(rows.end[i], view[1]);
      trace.base.push(start);
      trace.x.push(end - start);
      trace.y.push(position);
      trace.customdata.push(say(i));
      trace.text.push(barText(rows, i, data, (end - start) / pixel));
    }
  });
  // without this plotly measures every empty text too
  traces.forEach((trace) => { if (!trace.text.some(Boolean)) { delete trace.text; trace.textposition = "none"; } });
  return traces.filter((trace) => trace.x.length);
}

function barText(rows, i, data, pixels) {
  if (rows.kind[i] === data.idle || rows.micro_batch[i] < 0) return "";
  if (rows.micro_batch_b[i] < 0) return pixels > 21 ? String(rows.micro_batch[i]) : "";
  return pixels > 52 ? `${rows.micro_batch[i]} + ${rows.micro_batch_b[i]}` : "";
}
