// The page: builds the charts, and joins them, their controls and the samples by one cursor, a step of training.

const data = JSON.parse(document.getElementById("data").textContent);
const view = { axis: data.axes[0]?.key ?? "step", logX: false, logY: false, cursor: null };

function make(name, className = "", text = "") {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  return node;
}

// ---- charts ----

const charts = document.getElementById("charts");
let drawnWidth = charts.clientWidth;
const panels = data.charts.map((chart) => {
  const frame = make("figure", `chart ${chart.width}`);
  const title = make("h3", "", chart.title);
  const readout = make("p", "readout");
  const plot = make("div", "plot");
  const svg = element("svg", { "aria-hidden": "true" });
  if (chart.unit) title.append(make("span", "", chart.unit));
  plot.append(svg);
  frame.append(title, readout, plot);
  charts.append(frame);
  // The series with the most points: the cursor moves along it.
  const guide = chart.series.reduce((a, b) => (b.value.length > a.value.length ? b : a));
  return { chart, guide, plot, svg, readout, drawn: null };
});

function drawAll() {
  for (const panel of panels) {
    const width = Math.max(240, Math.round(panel.plot.clientWidth));
    panel.drawn = draw(panel.svg, panel.chart, { ...view, width });
    panel.overlay = element("g");
    panel.svg.append(panel.overlay);
  }
  showCursor();
}

// Every chart shows the points nearest to the cursor's step; without a cursor, the last ones.
function showCursor() {
  for (const panel of panels) {
    const { chart, guide, plot, readout, drawn, overlay } = panel;
    const step = view.cursor ?? guide.step.at(-1);
    const at = nearest(guide.step, step);
    const shown = chart.series.map((series) => ({ series, index: nearest(series.step, step) })).filter(({ index }) => index >= 0);
    const parts = shown.map(({ series, index }) => [shown.length > 1 ? series.label : "", figure(series.value[index], chart.figures)]);
    const place = at < 0 ? "" : position(guide[view.axis][at], view.axis);
    readout.replaceChildren(place, ...parts.flatMap(([label, value]) => [label ? ` · ${label} ` : " · ", make("b", "", value)]));
    plot.setAttribute("aria-valuenow", Math.max(at, 0));
    plot.setAttribute("aria-valuetext", [place, ...parts.map((part) => part.join(" "))].join(", "));
    overlay?.replaceChildren();
    if (view.cursor === null || !drawn || at < 0) continue;
    const across = drawn.x.at(guide[view.axis][at]);
    if (across === null) continue;
    overlay.append(element("line", { x1: across, x2: across, y1: MARGIN.top, y2: drawn.box.bottom, class: "cursor" }));
    for (const { series, index } of shown) overlay.append(...dots(series, view.axis, drawn.x, drawn.y, 4, [index]));
  }
}

function moveCursor(step) {
  view.cursor = step;
  showCursor();
}

function point(panel, event) {
  if (!panel.drawn) return;
  const along = panel.guide[view.axis];
  const index = nearest(along, panel.drawn.x.invert(event.clientX - panel.plot.getBoundingClientRect().left));
  if (index >= 0) moveCursor(panel.guide.step[index]);
}

const KEYS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -20, PageUp: 20, Home: -Infinity, End: Infinity };

function press(panel, event) {
  if (event.key === "Escape") return moveCursor(null);
  const by = KEYS[event.key] * (event.shiftKey ? 10 : 1);
  if (Number.isNaN(by)) return;
  event.preventDefault();
  const last = panel.guide.step.length - 1;
  const from = view.cursor === null ? last : nearest(panel.guide.step, view.cursor);
  moveCursor(panel.guide.step[Math.min(last, Math.max(0, from + by))]);
}

for (const panel of panels) {
  const { plot, chart, guide } = panel;
  const about = { role: "slider", tabindex: 0, "aria-label": `${chart.title}: cursor along training`, "aria-valuemin": 0 };
  for (const [name, value] of Object.entries({ ...about, "aria-valuemax": guide.step.length - 1 })) plot.setAttribute(name, value);
  plot.addEventListener("pointermove", (event) => point(panel, event));
  plot.addEventListener("pointerdown", (event) => point(panel, event));
  plot.addEventListener("pointerleave", () => moveCursor(null));
  plot.addEventListener("keydown", (event) => press(panel, event));
  plot.addEventListener("blur", () => moveCursor(null));
}

// ---- controls ----

function choose(event) {
  const { name, value, checked } = event.target;
  if (name === "axis") view.axis = value;
  if (name === "log-x") view.logX = checked;
  if (name === "log-y") view.logY = checked;
  drawAll();
}

const controls = document.getElementById("controls");
for (const { key, name } of data.axes) {
  const label = make("label");
  const input = make("input");
  Object.assign(input, { type: "radio", name: "axis", value: key, checked: key === view.axis });
  label.append(input, ` ${name}`);
  document.getElementById("axes").append(label);
}
controls.hidden = !panels.length;
controls.addEventListener("change", choose);
if (!panels.length) charts.append(make("p", "quiet", "No step was recorded yet."));
drawAll();
new ResizeObserver(([{ contentRect }]) => {
  if (contentRect.width === drawnWidth) return;
  drawnWidth = contentRect.width;
  requestAnimationFrame(drawAll); // not at once: drawing changes the height that is observed
}).observe(charts);

// ---- samples: all of them are in the page; the slider shows those of one step ----

const moments = [...document.querySelectorAll(".sample")];
const slider = document.getElementById("moment");
const play = document.getElementById("play");
const PAUSE = 1400; // milliseconds for one moment
let timer = null;

function showMoment(index, withCursor) {
  slider.value = index;
  moments.forEach((moment, place) => (moment.hidden = place !== index));
  const name = moments[index].querySelector("h3").textContent;
  document.getElementById("moment-name").textContent = name;
  slider.setAttribute("aria-valuetext", name);
  if (withCursor) moveCursor(Number(moments[index].dataset.step));
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

if (moments.length > 1) {
  slider.max = moments.length - 1;
  document.getElementById("player").hidden = false;
  document.getElementById("samples").classList.add("playing");
  slider.addEventListener("input", () => (halt(), showMoment(Number(slider.value), true)));
  slider.addEventListener("blur", () => moveCursor(null));
  play.addEventListener("click", () => {
    if (timer) return halt();
    if (Number(slider.value) === moments.length - 1) showMoment(0, true);
    play.textContent = "Pause";
    timer = setInterval(advance, PAUSE);
  });
  showMoment(moments.length - 1, false);
}
