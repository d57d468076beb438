// The page: its charts, joined by one cursor; their controls; and the samples.

const data = JSON.parse(document.getElementById("data").textContent);
const view = { axis: "step", logX: false, logY: false, smoothing: 30, cursor: null, y: null };
const COLOURS = 8; // of runs; then they come again, dashed

const $ = (id) => document.getElementById(id);

function make(name, className = "", text = "") {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  return node;
}

// ---- charts ----

const charts = $("charts");
let drawnWidth = 0;
let panels = [];

// A run keeps its colour: that of its row in the table of all runs.
function lookOf(run) {
  const row = document.querySelector(`#runs input[value="${CSS.escape(run.name)}"]`);
  const place = row ? Number(row.dataset.place) : data.runs.indexOf(run);
  return `run c${place % COLOURS} d${Math.floor(place / COLOURS) % 4}`;
}

// What a panel is drawn against: an axis of its own, or the chosen one.
const axisOf = ({ chart }) => chart.axis ?? view.axis;

function curvesOf(panel) {
  return data.runs.flatMap((run) =>
    run.series.filter(({ line }) => panel.lines.includes(line)).map((series) => {
      const reach = series.noisy ? Math.round((series.value.length * view.smoothing ** 2) / 90000) : 0;
      const value = smooth(series.value, reach);
      const [label, look] = data.together ? [run.name, lookOf(run)] : [series.label, series.look];
      return { series, value, raw: reach > 0, label, look, short: label.length > 14 ? `${label.slice(0, 5)}…${label.slice(-8)}` : label };
    }));
}

function build() {
  charts.replaceChildren();
  panels = data.panels.filter((chart) => data.runs.some(({ series }) => series.some(({ line }) => chart.lines.includes(line)))).map((chart) => {
    const frame = make("figure", `chart ${chart.width}`);
    const title = make("h3", "", chart.title);
    const readout = make("p", "readout");
    const plot = make("div", "plot");
    const svg = element("svg", { "aria-hidden": "true" });
    if (chart.unit) title.append(make("span", "", chart.unit));
    plot.append(svg);
    frame.append(title, readout, plot);
    charts.append(frame);
    const panel = { chart, plot, svg, readout, drawn: null, curves: [], guide: null };
    listen(panel);
    return panel;
  });
  $("controls").hidden = !panels.some(({ chart }) => !chart.axis);
  if (!panels.length) charts.append(make("p", "quiet", data.together ? "Choose some runs above." : "No step was recorded yet."));
  showAxes();
}

function drawAll() {
  for (const panel of panels) {
    const width = Math.max(240, Math.round(panel.plot.clientWidth));
    const { chart } = panel;
    panel.curves = curvesOf(chart);
    // The curve with the most points: the cursor moves along it.
    panel.guide = panel.curves.reduce((a, b) => (b.value.length > a.value.length ? b : a)).series;
    panel.drawn = draw(panel.svg, chart, panel.curves, { ...view, ...chart.fixed, axis: axisOf(panel), width, faint: data.runs.length <= COLOURS });
    panel.overlay = element("g");
    panel.svg.append(panel.overlay);
    panel.plot.setAttribute("aria-valuemax", panel.guide.value.length - 1);
  }
  showCursor();
}

// Every chart shows the points nearest to the cursor; of many curves, those nearest to the pointer.
function showCursor() {
  for (const panel of panels) {
    const { chart, guide, plot, readout, drawn, overlay } = panel;
    const axis = axisOf(panel);
    const along = guide[axis];
    const cursor = view.cursor ?? Math.max(...(drawn?.curves ?? []).map((curve) => curve.series[axis].at(-1)));
    const at = nearest(along, cursor);
    let shown = (drawn?.curves ?? []).map((curve) => ({ curve, index: nearest(curve.series[axis], cursor) })).filter(({ index }) => index >= 0);
    if (shown.length > NAMED) {
      const level = view.y?.panel === panel ? view.y.down : null;
      const away = ({ curve, index }) => (level === null ? 0 : Math.abs((drawn.y.at(curve.value[index]) ?? 1e9) - level));
      shown = shown.sort((a, b) => away(a) - away(b)).slice(0, level === null ? 3 : 1);
    }
    const parts = shown.map(({ curve, index }) => [drawn.curves.length > 1 ? curve.label : "", figure(curve.value[index], chart.figures)]);
    const place = at < 0 || !shown.length ? "" : position(view.cursor === null ? cursor : along[at], axis);
    const more = (drawn?.curves.length ?? 0) - shown.length;
    readout.replaceChildren(place, ...parts.flatMap(([label, value]) => [label ? ` · ${label} ` : " · ", make("b", "", value)]), more > 0 ? ` · and ${more} more` : "");
    plot.setAttribute("aria-valuenow", Math.max(at, 0));
    plot.setAttribute("aria-valuetext", [place, ...parts.map((part) => part.join(" "))].join(", "));
    overlay?.replaceChildren();
    for (const curve of drawn?.curves ?? []) curve.drawn.classList.toggle("near", view.y?.panel === panel && shown.length === 1 && curve === shown[0].curve);
    if (view.cursor === null || !drawn || at < 0) continue;
    const across = drawn.x.at(along[at]);
    if (across === null) continue;
    overlay.append(element("line", { x1: across, x2: across, y1: MARGIN.top, y2: drawn.box.bottom, class: "cursor" }));
    for (const { curve, index } of shown) overlay.append(...dots(curve, axis, drawn.x, drawn.y, 4, [index]));
  }
}

function moveCursor(at, y = null) {
  view.cursor = at;
  view.y = y;
  showCursor();
}

function point(panel, event) {
  if (!panel.drawn) return;
  const along = panel.guide[axisOf(panel)];
  const box = panel.plot.getBoundingClientRect();
  const index = nearest(along, panel.drawn.x.invert(event.clientX - box.left));
  if (index >= 0) moveCursor(along[index], { panel, down: event.clientY - box.top });
}

const KEYS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -20, PageUp: 20, Home: -Infinity, End: Infinity };

function press(panel, event) {
  if (event.key === "Escape") return moveCursor(null);
  const by = KEYS[event.key] * (event.shiftKey ? 10 : 1);
  const along = panel.guide[axisOf(panel)];
  if (Number.isNaN(by) || !along) return;
  event.preventDefault();
  const last = along.length - 1;
  const from = view.cursor === null ? last : nearest(along, view.cursor);
  moveCursor(along[Math.min(last, Math.max(0, from + by))]);
}

function listen(panel) {
  const { plot, chart } = panel;
  const about = { role: "slider", tabindex: 0, "aria-label": `${chart.title}: cursor along training`, "aria-valuemin": 0 };
  for (const [name, value] of Object.entries(about)) plot.setAttribute(name, value);
  plot.addEventListener("pointermove", (event) => point(panel, event));
  plot.addEventListener("pointerdown", (event) => point(panel, event));
  plot.addEventListener("pointerleave", () => moveCursor(null));
  plot.addEventListener("keydown", (event) => press(panel, event));
  plot.addEventListener("blur", () => moveCursor(null));
}

// ---- controls ----

function showAxes() {
  const known = data.axes.filter(({ key }) => data.runs.some(({ series }) => series.some((one) => one[key])));
  if (!known.some(({ key }) => key === view.axis)) view.axis = known[0]?.key ?? "step";
  const inputs = known.map(({ key, name }) => {
    const label = make("label");
    const input = make("input");
    Object.assign(input, { type: "radio", name: "axis", value: key, checked: key === view.axis });
    label.append(input, ` ${name}`);
    return label;
  });
  const axes = $("axes");
  if (axes.querySelectorAll("label").length !== inputs.length) axes.replaceChildren(axes.querySelector("legend"), ...inputs);
}

function choose({ target: { name, value, checked } }) {
  if (name === "axis") [view.axis, view.cursor] = [value, null];
  if (name === "log-x") view.logX = checked;
  if (name === "log-y") view.logY = checked;
  if (name === "smoothing") view.smoothing = Number(value);
  drawAll();
}

if (charts) {
  $("controls").addEventListener("input", choose);
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  build();
  drawAll();
  drawnWidth = charts.clientWidth; // with the scroll bar that the charts may have brought
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === drawnWidth) return;
    drawnWidth = contentRect.width;
    requestAnimationFrame(drawAll); // not at once: drawing changes the height that is observed
  }).observe(charts);
}

// ---- samples: all of them are in the page; the slider shows those of one step ----

const slider = $("moment"), play = $("play");
const PAUSE = 1400; // milliseconds for one moment
let moments = [], timer = null;

function showMoment(index, withCursor) {
  slider.value = index;
  moments.forEach((moment, place) => (moment.hidden = place !== index));
  const name = moments[index].querySelector("h3").textContent;
  $("moment-name").textContent = name;
  slider.setAttribute("aria-valuetext", name);
  if (withCursor && view.axis === "step") moveCursor(Number(moments[index].dataset.step));
}

function halt() {
  clearInterval(timer);
  timer = null;
  play.textContent = "Play";
}

function advance() {
  const next = Number(slider.value) + 1;
  showMoment(next, true);
  if (next === moments.length - 1) halt();
}

function showSamples() {
  const atEnd = !moments.length || Number(slider.value) === moments.length - 1;
  moments = [...document.querySelectorAll(".sample")];
  if (moments.length < 2) return;
  slider.max = moments.length - 1;
  $("player").hidden = false;
  $("samples").classList.add("playing");
  showMoment(atEnd ? moments.length - 1 : Number(slider.value), false);
}

if (slider) {
  slider.addEventListener("input", () => (halt(), showMoment(Number(slider.value), true)));
  slider.addEventListener("blur", () => moveCursor(null));
  play.addEventListener("click", () => {
    if (timer) return halt();
    if (Number(slider.value) === moments.length - 1) showMoment(0, true);
    play.textContent = "Pause";
    timer = setInterval(advance, PAUSE);
  });
  showSamples();
}
