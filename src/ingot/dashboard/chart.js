"use strict";
// Drawing: scales, ticks, figures and one chart as SVG. Knows nothing of the page around it.

const MARGIN = { top: 10, bottom: 28, left: 44 }; // on the right, as much as the names need
const HEIGHTS = { whole: 340, half: 220, third: 190 };
const NAMED = 6; // curves of a chart that have their names at their ends, at most
const LABEL = 15; // height of a line of text
const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];
const LOG_TIMES = [0.1, 1, 10, 60, 600, 3600, 36000, 360000];
const SUBDIVISIONS = [[1], [1, 2, 5], [1, 1.5, 2, 3, 5, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9]];

// The parser knows the namespace of SVG, so that its address need not stand in the page.
const SVG = new DOMParser().parseFromString("<svg></svg>", "text/html").querySelector("svg").namespaceURI;

function element(name, attributes = {}, text = "") {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

// ---- figures ----

function thousands(value) {
  if (Math.abs(value) >= 1e15) return value.toExponential(2).replace("+", "");
  const [size, letter] = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"], [1, ""]].find(([size]) => Math.abs(value) >= size * 0.9995) ?? [1, ""];
  return Number((value / size).toPrecision(3)) + letter;
}

function figure(value, kind) {
  if (value === null || !Number.isFinite(value)) return "–";
  if (kind === "percent") return (100 * value).toFixed(1) + "%";
  if (kind === "compact" || Math.abs(value) >= 1000) return thousands(value);
  if (value === 0) return "0";
  if (Math.abs(value) < 0.001) return value.toExponential(1);
  return Math.abs(value) >= 100 ? value.toFixed(1) : value.toFixed(3);
}

function whole(value) {
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

function time(seconds) {
  if (seconds < 90) return `${Number(seconds.toFixed(seconds < 10 ? 1 : 0))} s`;
  if (seconds < 5400) return `${Number((seconds / 60).toFixed(1))} min`;
  return seconds < 172800 ? `${Number((seconds / 3600).toFixed(1))} h` : `${Number((seconds / 86400).toFixed(1))} d`;
}

function position(value, axis) {
  if (value === null) return "";
  if (axis === "seconds") return time(value);
  if (axis === "flops") return `${thousands(value)} FLOPs`;
  if (axis === "parameters") return `${thousands(value)} parameters`;
  return axis === "tokens" ? `${thousands(value)} tokens` : `step ${whole(value)}`;
}

// Labels of ticks share their unit and their number of decimals: 0.5M, 1.0M, 1.5M.
function labels(ticks, kind) {
  if (kind === "seconds") return ticks.map((tick) => (tick ? time(tick) : "0"));
  if (kind === "percent") return ticks.map((tick) => `${Number((100 * tick).toFixed(6))}%`);
  const largest = Math.max(...ticks.map(Math.abs));
  if (largest >= 1e15) return ticks.map((tick) => (tick ? tick.toExponential().replace("+", "") : "0"));
  const [size, letter] = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e4, "k"]].find(([size]) => largest >= size) ?? [1, ""];
  const unit = letter === "k" ? 1e3 : size;
  const scaled = ticks.map((tick) => Number((tick / unit).toPrecision(6)));
  if (scaled.every((tick) => Number.isInteger(tick))) return scaled.map((tick) => (tick ? whole(tick) + letter : "0"));
  const decimals = Math.max(...scaled.map((tick) => (String(tick).split(".")[1] ?? "").length));
  return scaled.map((tick) => (decimals > 6 ? tick.toExponential() : tick.toFixed(decimals)) + letter);
}

// ---- scales ----

function linearTicks(low, high, count, kind) {
  const rough = (high - low) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  if (kind === "seconds") step = TIMES.find((candidate) => candidate >= rough) ?? step;
  if (["step", "tokens", "parameters"].includes(kind)) step = Math.max(1, Math.round(step));
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) ticks.push(Number((at * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high, count, kind) {
  if (high / low < 12) return linearTicks(low, high, count, kind).filter((tick) => tick > 0);
  if (kind === "seconds") return LOG_TIMES.filter((tick) => tick >= low && tick <= high);
  for (const factors of SUBDIVISIONS) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      ticks.push(...factors.map((factor) => Number((factor * 10 ** power).toPrecision(6))).filter((tick) => tick >= low && tick <= high));
    if (ticks.length >= 3) {
      const stride = Math.ceil(ticks.length / Math.max(count + 2, 3));
      return ticks.filter((_, index) => index % stride === 0);
    }
  }
  return linearTicks(low, high, count, kind);
}

function scale(values, from, to, { logarithmic = false, zero = false, pad = 0, count = 5, kind = "" } = {}) {
  const usable = values.filter((value) => value !== null && (!logarithmic || value > 0));
  if (!usable.length) return null;
  let low = usable.reduce((a, b) => Math.min(a, b));
  let high = usable.reduce((a, b) => Math.max(a, b));
  if (zero && !logarithmic) low = Math.min(0, low);
  if (low === high) [low, high] = low === 0 ? [0, 1] : logarithmic ? [low / 1.5, high * 1.5] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1];
  const forward = logarithmic ? Math.log10 : (value) => value;
  const room = pad * (forward(high) - forward(low));
  const first = forward(low) - (zero && low === 0 ? 0 : room);
  const last = forward(high) + room;
  const back = (value) => (logarithmic ? 10 ** value : value);
  return {
    at: (value) => (value === null || (logarithmic && value <= 0) ? null : from + ((forward(value) - first) / (last - first)) * (to - from)),
    invert: (pixel) => back(first + ((pixel - from) / (to - from)) * (last - first)),
    ticks: (logarithmic ? logTicks : linearTicks)(back(first), back(last), count, kind),
  };
}

// ---- one chart: its curves are {series, value, label, look}; `series` says where the values lie ----

// The place in an ascending list, gaps skipped, that is nearest to `wanted`.
function nearest(list, wanted) {
  if (!list) return -1;
  let low = 0, high = list.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] !== null && list[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  let best = -1;
  for (let index = Math.max(0, low - 2); index <= Math.min(list.length - 1, low + 1); index++)
    if (list[index] !== null && (best < 0 || Math.abs(list[index] - wanted) < Math.abs(list[best] - wanted))) best = index;
  return best;
}

// The mean of the values within `reach` places on either side; at the beginning, where a loss falls steeply, the window
// stays symmetric by being narrow, so that it does not lag.
function smooth(values, reach) {
  if (!reach) return values;
  const sums = [0], counts = [0];
  for (const value of values) {
    sums.push(sums.at(-1) + (value ?? 0));
    counts.push(counts.at(-1) + (value !== null));
  }
  return values.map((_, place) => {
    const side = Math.min(reach, place);
    const [low, high] = [place - side, Math.min(place + side + 1, values.length)];
    const count = counts[high] - counts[low];
    return count ? (sums[high] - sums[low]) / count : null;
  });
}

function path(along, values, x, y) {
  let drawn = "", pen = "M";
  values.forEach((value, index) => {
    const [across, down] = [x.at(along[index]), y.at(value)];
    if (across === null || down === null) return void (pen = "M");
    // h0 makes a point that stands alone between gaps a dot.
    drawn += `${pen}${across.toFixed(1)} ${down.toFixed(1)}${pen === "M" ? "h0" : ""}`;
    pen = "L";
  });
  return drawn;
}

// Where records were joined: from the least to the most of each place, and on to the next, so that no extreme is lost.
function extremes(along, { low, high }, x, y) {
  return path(along.flatMap((at) => [at, at]), low.flatMap((value, index) => [value, high[index]]), x, y);
}

// What lies between the least and the most, as an area.
function band(along, { low, high }, x, y) {
  return `${path([...along, ...along.toReversed()], [...low, ...high.toReversed()], x, y)}Z`;
}

function lastShown(curve, axis, x, y) {
  for (let index = curve.value.length - 1; index >= 0; index--) {
    const [across, down] = [x.at(curve.series[axis][index]), y.at(curve.value[index])];
    if (across !== null && down !== null) return { curve, value: curve.value[index], across, down };
  }
  return null;
}

// Names stand in the margin, level with the ends of their lines and moved apart where they would touch; a thin line
// leads there from an end that lies elsewhere. A line alone shows its last figure.
function endLabels(chart, curves, axis, x, y, box) {
  const ends = curves.map((curve) => lastShown(curve, axis, x, y)).filter(Boolean);
  ends.sort((a, b) => a.down - b.down);
  ends.forEach((end, index) => (end.level = index ? Math.max(end.down, ends[index - 1].level + LABEL) : end.down));
  ends.toReversed().forEach((end, index, below) => (end.level = Math.min(end.level, index ? below[index - 1].level - LABEL : box.bottom - 4)));
  return ends.flatMap(({ curve, value, across, down, level }) => {
    const label = element("text", { x: box.right + 8, y: level + 4, class: curve.look }, endText(chart, curves, curve, value));
    const far = box.right - across > LABEL || Math.abs(level - down) > LABEL;
    const lead = element("line", { x1: across + 4, y1: down, x2: box.right + 5, y2: level, class: `lead ${curve.look}` });
    return far ? [lead, label] : [label];
  });
}

const endText = (chart, curves, curve, value) => (curves.length > 1 ? curve.short : figure(value, chart.figures));

function endRoom(chart, curves) {
  if (curves.length > NAMED) return 12;
  return 12 + 7.5 * Math.max(5, ...curves.map((curve) => endText(chart, curves, curve, curve.value.at(-1)).length));
}

function axes(chart, curves, axis, x, y, box) {
  const parts = [];
  const upLabels = labels(y.ticks, chart.figures === "percent" ? "percent" : "");
  y.ticks.forEach((tick, index) => {
    parts.push(element("line", { x1: box.left, x2: box.right, y1: y.at(tick), y2: y.at(tick), class: "grid" }));
    parts.push(element("text", { x: box.left - 8, y: y.at(tick) + 4, "text-anchor": "end" }, upLabels[index]));
  });
  parts.push(element("line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "base" }));
  const alongLabels = labels(x.ticks, axis);
  x.ticks.forEach((tick, index) => parts.push(element("text", { x: x.at(tick), y: box.bottom + 18, "text-anchor": "middle" }, alongLabels[index])));
  const name = { step: "steps", tokens: "tokens", seconds: "time", flops: "FLOPs", parameters: "parameters" }[axis];
  const room = endRoom(chart, curves);
  if (chart.width === "whole" && room > 50) parts.push(element("text", { x: box.right + room, y: box.bottom + 18, "text-anchor": "end" }, name));
  return parts;
}

function extent(curves, axis, logX, logY) {
  const xs = [], ys = [];
  for (const { series, value } of curves) {
    const along = series[axis];
    const shown = (index) => along[index] !== null && !(logX && along[index] <= 0);
    for (const values of series.low ? [value, series.low, series.high] : [value, series.value])
      values.forEach((one, index) => one !== null && !(logY && one <= 0) && shown(index) && ys.push(one));
    for (const at of along) if (at !== null) xs.push(at);
  }
  return [xs, ys];
}

// Draws `curves` into `svg`, `width` pixels wide; returns its scales, or null when nothing of it can be shown.
function draw(svg, chart, every, { axis, width, logX, logY, faint }) {
  const curves = every.filter((curve) => curve.series[axis]);
  const height = width < 520 && chart.width === "whole" ? 260 : HEIGHTS[chart.width];
  const box = { left: MARGIN.left, right: width - endRoom(chart, curves), bottom: height - MARGIN.bottom };
  const logarithmic = logY && chart.scale === "logarithmic";
  const [xs, ys] = extent(curves, axis, logX, logarithmic);
  const x = scale(xs, box.left, box.right, { logarithmic: logX, zero: true, count: Math.min(8, Math.floor((box.right - box.left) / 60)), kind: axis });
  const y = scale(ys, box.bottom, MARGIN.top, { logarithmic, zero: chart.scale === "zero", pad: 0.05, count: Math.floor(height / 45) });
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  if (!x || !y) return null;
  svg.append(...axes(chart, curves, axis, x, y, box));
  if (faint)
    for (const { series, look, raw } of curves) {
      if (look === "fit") svg.append(element("path", { d: band(series[axis], series, x, y), class: "band" }));
      else if (series.low) svg.append(element("path", { d: extremes(series[axis], series, x, y), class: `raw ${look}` }));
      else if (raw) svg.append(element("path", { d: path(series[axis], series.value, x, y), class: `raw ${look}` }));
    }
  for (const curve of curves.toReversed()) {
    curve.drawn = element("path", { d: path(curve.series[axis], curve.value, x, y), class: curve.look });
    svg.append(curve.drawn);
    const few = curve.look === "validation" ? 60 : 12;
    const sparse = curve.value.length === 1 || (curves.length <= NAMED && (curve.look === "points" || curve.value.length <= few));
    if (sparse) svg.append(...dots(curve, axis, x, y, 3));
  }
  if (curves.length <= NAMED) svg.append(...endLabels(chart, curves, axis, x, y, box));
  return { x, y, box, curves };
}

function dots(curve, axis, x, y, radius, places = curve.value.keys()) {
  return [...places]
    .map((index) => [x.at(curve.series[axis][index]), y.at(curve.value[index])])
    .filter(([across, down]) => across !== null && down !== null)
    .map(([across, down]) => element("circle", { cx: across, cy: down, r: radius, class: curve.look }));
}
