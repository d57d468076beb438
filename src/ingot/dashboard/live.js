// What only the live page does: which runs are compared, what is new, and the check of a checkpoint.

// ---- which runs are compared: what is ticked in their table stands in the page's address ----

const runs = $("runs");
const boxes = () => [...runs.querySelectorAll("input[name=run]")];

function compareTicked() {
  const ticked = boxes().filter((box) => box.checked);
  const all = ticked.length === boxes().length;
  const chosen = all ? [["all", "1"]] : ticked.length ? ticked.map((box) => ["run", box.value]) : [["run", ""]];
  history.replaceState(null, "", `?${new URLSearchParams(chosen)}`);
  ask();
}

function tick(checked) {
  for (const box of boxes()) if (!box.closest("tr").hidden) box.checked = checked;
  compareTicked();
}

function find() {
  const wanted = $("find").value.toLowerCase();
  for (const row of runs.querySelectorAll("tbody tr")) row.hidden = !row.textContent.toLowerCase().includes(wanted);
}

if (runs) {
  runs.addEventListener("change", ({ target }) => target.name === "run" && compareTicked());
  runs.addEventListener("submit", (event) => event.preventDefault());
  $("find").addEventListener("input", find);
  $("all-runs").addEventListener("click", () => tick(true));
  $("no-runs").addEventListener("click", () => tick(false));
  document.querySelector("#runs [aria-labelledby]").addEventListener("pointerover", ({ target }) => pointOut(target.closest("tr")));
}

function pointOut(row) {
  const name = row?.querySelector("input")?.value;
  for (const panel of panels) for (const curve of panel.curves) curve.drawn?.classList.toggle("near", curve.label === name);
}

// ---- live: the page asks now and then what is new, and puts it where the old stood ----

const POLL = 2000; // milliseconds
const live = $("live");
let asking = 0, shown = {};

function say(text) {
  if (live && live.textContent !== text) live.textContent = text;
}

function put(parts) {
  for (const [name, html] of Object.entries(parts)) {
    const place = document.querySelector(`[data-part="${name}"]`);
    if (!place || shown[name] === html) continue;
    shown[name] = html;
    const focused = place.contains(document.activeElement) ? document.activeElement.value ?? document.activeElement.dataset.verify : null;
    place.innerHTML = html; // text in it was escaped by the server, and the page's policy runs no script but its own
    if (focused) [...place.querySelectorAll("input, button")].find((one) => one.value === focused || one.dataset.verify === focused)?.focus();
  }
  if (runs && parts.runs) find();
  if (slider && parts.samples) showSamples();
}

function take({ parts, data: fresh }) {
  put(parts);
  const before = new Map(data.runs.map((run) => [run.version, run]));
  const drawn = panels.map(({ chart }) => chart.title).join();
  data.runs = fresh.runs.map((run) => (run.series ? run : { ...run, series: before.get(run.version)?.series ?? [] }));
  const wanted = fresh.panels.filter((chart) => data.runs.some(({ series }) => series.some(({ line }) => chart.lines.includes(line))));
  data.panels = fresh.panels;
  if (wanted.map(({ title }) => title).join() === drawn) showAxes();
  else build();
  drawAll();
  tellHow();
}

function tellHow() {
  const sampled = data.runs.filter((run) => run.sampled).length;
  say(sampled ? `Reading: ${sampled} of ${data.runs.length} runs are drawn from samples of their records as yet.` : "Follows the runs as they go on.");
}

async function ask() {
  const mine = ++asking;
  const known = data.runs.map((run) => ["known", run.version]);
  const address = new URL(data.live, location.href);
  for (const [key, value] of [...new URLSearchParams(location.search), ...known]) address.searchParams.append(key, value);
  if (shown.token) address.searchParams.set("token", shown.token);
  try {
    const answer = await fetch(address);
    if (mine !== asking) return;
    if (answer.status === 200) {
      const fresh = await answer.json();
      take(fresh);
      shown.token = fresh.token;
    } else if (!answer.ok && answer.status !== 204) say(`The dashboard answered ${answer.status}.`);
  } catch {
    if (mine === asking) say("The dashboard does not answer; the page shows what it knew last.");
  }
}

async function follow() {
  if (!document.hidden) await ask();
  setTimeout(follow, POLL);
}

async function verify(button) {
  const told = button.previousElementSibling;
  told.textContent = "reading every byte…";
  button.disabled = true;
  const answer = await fetch(`${location.pathname}/verify/${encodeURIComponent(button.dataset.verify)}`, { method: "POST" });
  const { state } = await answer.json();
  told.textContent = state;
  told.className = state === "verified" ? "good" : "bad";
  button.disabled = false;
}

if (data.live) {
  tellHow();
  document.addEventListener("click", ({ target }) => target.dataset?.verify && verify(target));
  document.addEventListener("visibilitychange", () => document.hidden || ask());
  setTimeout(follow, data.runs.some((run) => run.sampled) ? 500 : POLL);
}
