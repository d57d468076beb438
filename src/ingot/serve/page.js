"use strict";
// Texts of people and models are text nodes, never HTML. What was said stays in this browser (localStorage); a key, in
// this tab (sessionStorage).

const KEPT = "ingot.talk.1", KEY = "ingot.key", ALTERNATIVES = 5;
const FIELDS = ["top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"];
const $ = (id) => document.getElementById(id);

const state = {
  turns: [], // {ask, answers: one for each lane}
  lanes: [{ model: "", temperature: 0.7 }, { model: "", temperature: 1 }],
  comparing: false,
  tinted: false,
  single: true,
  settings: { mode: "", system: "", top_p: 0.95, top_k: 0, min_p: 0, repetition_penalty: 1, max_tokens: 256, seed: "" },
};
const writing = new Map(); // answer → what aborts it
const views = new WeakMap(); // answer → its elements
let models = [], editing = null;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function button(label, act, properties = {}) {
  return make("button", { type: "button", textContent: label, onclick: act, className: "slight", ...properties });
}

function say(text) { $("status").textContent = text; }

// --- what is kept ----------------------------------------------------------------------------------------------------

function keep() {
  const plain = (name, value) => (name === "pieces" ? undefined : value);
  try { localStorage.setItem(KEPT, JSON.stringify(state, plain)); } catch { say("This browser has no room to keep the conversation."); }
}

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT)) ?? {};
    for (const name of Object.keys(state)) if (typeof kept[name] === typeof state[name]) state[name] = kept[name];
  } catch { localStorage.removeItem(KEPT); }
  for (const turn of state.turns) for (const answer of turn.answers) if (answer?.state === "writing") answer.state = "stopped";
}

// --- the server ------------------------------------------------------------------------------------------------------

async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...(options.body && { "Content-Type": "application/json" }) };
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) {
    await askForKey(key ? "The server does not know that key." : "This server asks for a key. It is kept in this tab only.");
    return call(path, options);
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: { message: `the server answered ${response.status}` } }));
  const pause = response.headers.get("Retry-After");
  throw new Error(pause ? `${error.message} (in ${pause} s)` : error.message);
}

let opening = null; // one dialog, however many calls wait for it
function askForKey(said) {
  opening ??= new Promise((resolve) => {
    $("door-said").textContent = said;
    $("door").addEventListener("close", () => {
      sessionStorage.setItem(KEY, $("key").value.trim());
      $("key").value = "";
      opening = null;
      resolve();
    }, { once: true });
    $("door").showModal();
  });
  return opening;
}

async function* events(body) {
  let held = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let read; !(read = await reader.read()).done;) {
    const parts = (held + read.value).split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
  throw new Error("the connection broke off");
}

// --- asking ----------------------------------------------------------------------------------------------------------

function lanes() { return state.comparing ? [0, 1] : [0]; }

function mode() { return state.settings.mode || (models.find((one) => one.id === state.lanes[0].model)?.tuned === false ? "text" : "chat"); }

function body(turn, place) {
  const { system, mode: _, ...settings } = state.settings, lane = state.lanes[place];
  const asked = { model: lane.model, temperature: lane.temperature, stream: true, stream_options: { include_usage: true } };
  for (const [name, value] of Object.entries(settings)) if (value !== "" && value !== null) asked[name] = value;
  const most = models.find((one) => one.id === lane.model)?.max_tokens;
  if (most) asked.max_tokens = Math.min(asked.max_tokens ?? most, most);
  if (mode() === "text") return ["v1/completions", { ...asked, prompt: turn.ask, logprobs: ALTERNATIVES }];
  const messages = system.trim() ? [{ role: "system", content: system }] : [];
  for (const earlier of state.turns.slice(0, state.turns.indexOf(turn))) {
    const answer = earlier.answers[place]?.text ? earlier.answers[place] : earlier.answers.find((one) => one?.text);
    if (answer) messages.push({ role: "user", content: earlier.ask }, { role: "assistant", content: answer.text });
  }
  messages.push({ role: "user", content: turn.ask });
  return ["v1/chat/completions", { ...asked, messages, truncation: "auto", logprobs: true, top_logprobs: ALTERNATIVES }];
}

function pieceOf(choice) {
  if (choice.delta) {
    const tokens = (choice.logprobs?.content ?? []).map((token) => ({ ...token, top: token.top_logprobs.map((one) => [one.token, one.logprob]) }));
    return { text: choice.delta.content ?? "", tokens };
  }
  const told = choice.logprobs;
  const tokens = (told?.tokens ?? []).map((token, at) => ({ token, logprob: told.token_logprobs[at], top: Object.entries(told.top_logprobs[at]) }));
  return { text: choice.text, tokens };
}

async function write(turn, place) {
  const abort = new AbortController(), { model, temperature } = state.lanes[place];
  const answer = (turn.answers[place] = { model, temperature, text: "", pieces: [], state: "writing", note: "", mode: mode() });
  writing.set(answer, abort);
  draw();
  const begun = performance.now();
  let finish = "";
  try {
    const [path, asked] = body(turn, place);
    const response = await call(path, { method: "POST", body: JSON.stringify(asked), signal: abort.signal });
    const dropped = Number(response.headers.get("X-Ingot-Dropped"));
    if (dropped) answer.note = `${dropped} of the oldest messages have no room in the context and were left out.`;
    for await (const event of events(response.body)) {
      if (event.usage) answer.tokens = event.usage.completion_tokens;
      for (const choice of event.choices) {
        append(answer, pieceOf(choice));
        finish = choice.finish_reason ?? finish;
      }
    }
    answer.state = finish === "length" ? "cut" : "done";
    answer.seconds = (performance.now() - begun) / 1000;
  } catch (error) {
    answer.state = abort.signal.aborted ? "stopped" : "failed";
    if (!abort.signal.aborted) answer.note = error.message;
  }
  writing.delete(answer);
  followEnd(() => finishView(answer));
  if (!writing.size) {
    $("send").textContent = "Send";
    say(answer.state === "failed" ? "" : "The answer is complete.");
  }
  keep();
}

function ask(text) {
  const turn = { ask: text, answers: [] };
  state.turns.push(turn);
  begin(turn, lanes());
  window.scrollTo(0, document.body.scrollHeight);
}

function begin(turn, places) {
  $("send").textContent = "Stop";
  say("The model writes.");
  for (const place of places) write(turn, place);
}

function retry(turn, places) {
  if (writing.size) return;
  state.turns.length = state.turns.indexOf(turn) + 1;
  begin(turn, places);
}

function stop() { for (const abort of writing.values()) abort.abort(); }

// --- the conversation as one sees it ---------------------------------------------------------------------------------

function draw() {
  hideToken();
  document.body.classList.toggle("comparing", state.comparing);
  document.body.classList.toggle("tinted", state.tinted);
  $("compare").setAttribute("aria-pressed", state.comparing);
  $("tint").setAttribute("aria-pressed", state.tinted);
  $("empty").hidden = state.turns.length > 0;
  $("turns").replaceChildren(...state.turns.map(drawTurn));
}

function drawTurn(turn) {
  const shown = [0, 1].filter((place) => turn.answers[place] && (state.comparing || place === 0 || !turn.answers[0]));
  const answers = make("div", { className: `answers${shown.length > 1 ? " two" : ""}` });
  answers.append(...shown.map((place) => drawAnswer(turn, place)));
  return make("li", { className: "turn" }, turn === editing ? drawEditor(turn) : drawAsk(turn), answers);
}

function drawAsk(turn) {
  const edit = () => { if (!writing.size) { editing = turn; draw(); } };
  return make("div", { className: "said" },
    make("h2", { className: "unseen", textContent: "You" }),
    make("p", { className: "text", textContent: turn.ask }),
    make("div", { className: "acts" }, button("Edit", edit)));
}

function drawEditor(turn) {
  const field = make("textarea", { value: turn.ask, rows: 3, ariaLabel: "Edit your message" });
  const leave = () => { editing = null; draw(); };
  const send = () => {
    if (!field.value.trim()) return;
    turn.ask = field.value;
    editing = null;
    turn.answers = [];
    retry(turn, lanes());
  };
  field.onkeydown = (event) => {
    if (event.key === "Escape") { event.stopPropagation(); leave(); }
    if (isSend(event)) { event.preventDefault(); send(); }
  };
  queueMicrotask(() => field.focus());
  const form = make("form", { onsubmit: (event) => { event.preventDefault(); send(); } }, field,
    make("div", {}, button("Cancel", leave, { className: "" }), make("button", { className: "main", textContent: "Send" })));
  return make("div", { className: "said" }, form);
}

function drawAnswer(turn, place) {
  const answer = turn.answers[place];
  const text = make("div", { className: "text", tabIndex: 0, role: "group" });
  const acts = make("div", { className: "acts" }), note = make("p", { className: "note", hidden: true });
  const name = `${answer.model}, temperature ${answer.temperature}`;
  text.setAttribute("aria-label", `Answer of ${name}; arrow keys tell of each token`);
  const element = make("article", { className: "answer", ariaLabel: `Answer of ${name}` },
    make("h3", { textContent: name, hidden: !state.comparing }), text, note, acts);
  views.set(answer, { element, text, acts, note, turn, place });
  if (answer.pieces?.length) for (const piece of answer.pieces) text.append(drawPiece(piece));
  else text.textContent = answer.text;
  finishView(answer);
  return element;
}

function drawPiece(piece) {
  if (!piece.tokens.length) return document.createTextNode(piece.text);
  const span = make("span", { className: "told", textContent: piece.text });
  span.piece = piece;
  span.style.setProperty("--doubt", 1 - Math.exp(Math.min(...piece.tokens.map((token) => token.logprob))));
  return span;
}

function append(answer, piece) {
  if (!piece.text && !piece.tokens.length) return;
  answer.text += piece.text;
  answer.pieces.push(piece);
  followEnd(() => views.get(answer).text.append(drawPiece(piece)));
}

function followEnd(change) { // who looks at the end goes on to, who has scrolled back stays there
  const atEnd = window.innerHeight + window.scrollY > document.body.scrollHeight - 80;
  change();
  if (atEnd) window.scrollTo(0, document.body.scrollHeight);
}

function finishView(answer) {
  const { element, acts, note, turn, place } = views.get(answer);
  const busy = answer.state === "writing";
  element.classList.toggle("writing", busy);
  const why = { cut: "It came to the token limit.", stopped: "Stopped.", failed: "" }[answer.state] ?? "";
  note.textContent = [answer.note, why].filter(Boolean).join(" ");
  note.hidden = !note.textContent;
  note.classList.toggle("bad", answer.state === "failed");
  note.setAttribute("role", answer.state === "failed" ? "alert" : "note");
  if (busy) return acts.replaceChildren();
  const pace = answer.seconds ? `${answer.tokens} tokens, ${Math.round(answer.tokens / answer.seconds)} a second` : "";
  const copy = () => navigator.clipboard?.writeText(answer.text).then(() => say("Copied."));
  acts.replaceChildren(button("Retry", () => retry(turn, [place])), button("Copy", copy), make("span", { textContent: pace }));
}

// --- tokens ----------------------------------------------------------------------------------------------------------

function showToken(span) {
  const lists = span.piece.tokens.map((token) => {
    const others = token.top.filter(([name]) => name !== token.token);
    return make("ol", {}, drawChance(token.token, token.logprob, "chosen"), ...others.map(([name, logprob]) => drawChance(name, logprob, "")));
  });
  const tip = $("token"), box = span.getClientRects()[0] ?? span.parentElement.getBoundingClientRect();
  tip.replaceChildren(...lists);
  tip.hidden = false;
  tip.style.left = `${Math.max(8, Math.min(box.left, window.innerWidth - tip.offsetWidth - 8))}px`;
  const above = box.top - tip.offsetHeight - 6;
  tip.style.top = `${above > 8 ? above : box.bottom + 6}px`;
}

function drawChance(name, logprob, kind) {
  const share = Math.exp(logprob), bar = make("i");
  bar.style.width = `${share * 100}%`;
  const percent = share >= 0.0995 ? Math.round(share * 100) : share >= 0.001 ? (share * 100).toFixed(1) : "< 0.1";
  const seen = name.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣");
  return make("li", { className: kind }, bar, make("code", { textContent: seen || "∅" }), make("span", { textContent: `${percent} %` }));
}

function hideToken() {
  $("token").hidden = true;
  document.querySelector(".told.current")?.classList.remove("current");
}

function walk(text, step) {
  const spans = [...text.querySelectorAll(".told")], now = spans.findIndex((span) => span.classList.contains("current"));
  const next = spans[now < 0 ? (step > 0 ? 0 : spans.length - 1) : Math.max(0, Math.min(now + step, spans.length - 1))];
  if (!next) return;
  hideToken();
  next.classList.add("current");
  next.scrollIntoView({ block: "nearest" });
  showToken(next);
  say($("token").innerText.replaceAll("\n", " "));
}

$("turns").addEventListener("pointerover", (event) => { if (event.target.piece) { hideToken(); showToken(event.target); } });
$("turns").addEventListener("pointerout", (event) => { if (event.target.piece && event.pointerType === "mouse") hideToken(); });
$("turns").addEventListener("focusout", hideToken);
$("turns").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step && event.target.matches(".answer .text")) { event.preventDefault(); walk(event.target, step); }
});
window.addEventListener("scroll", () => { if (!document.querySelector(".told.current")) hideToken(); }, { passive: true });

// --- controls --------------------------------------------------------------------------------------------------------

function drawLanes() {
  $("lanes").replaceChildren(...lanes().map((place) => {
    const lane = state.lanes[place], name = state.comparing ? `${"AB"[place]}: ` : "";
    const choose = make("select", { ariaLabel: `${name}model`, onchange: () => { lane.model = choose.value; drawMode(); keep(); } });
    choose.append(...models.map((one) => make("option", { value: one.id, textContent: one.id, selected: one.id === lane.model })));
    const heat = make("input", { type: "number", min: 0, max: 2, step: 0.1, value: lane.temperature, ariaLabel: `${name}temperature`, inputMode: "decimal" });
    heat.onchange = () => { lane.temperature = heat.value = Math.max(0, Math.min(2, Number(heat.value) || 0)); keep(); };
    return make("div", { className: "lane" }, ...(state.comparing ? [make("b", { textContent: "AB"[place] })] : []), choose,
      make("label", {}, "temp", heat));
  }));
}

function drawMode() { $("mode").value = mode(); }

function readSettings(event) {
  const { id, value, validity } = event.target;
  if (id === "mode" || id === "system") state.settings[id] = value;
  else if (validity.valid) state.settings[id] = value === "" ? "" : Number(value);
  event.target.setAttribute("aria-invalid", !validity.valid);
  keep();
}

function toggle(name) { state[name] = !state[name]; drawLanes(); draw(); keep(); }

function startNew() { stop(); state.turns = []; editing = null; draw(); keep(); $("ask").focus(); }

function toggleSettings() {
  $("settings").hidden = !$("settings").hidden;
  $("tune").setAttribute("aria-expanded", !$("settings").hidden);
}

function isSend(event) { return event.key === "Enter" && !event.shiftKey && !event.isComposing; }

const last = () => state.turns.at(-1);
const LETTERS = {
  "/": () => $("ask").focus(),
  "?": () => $("keys").showModal(),
  r: () => last() && retry(last(), lanes()),
  e: () => { if (last() && !writing.size) { editing = last(); draw(); } },
  c: () => toggle("comparing"),
  t: () => toggle("tinted"),
  s: toggleSettings,
  n: startNew,
};

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (writing.size) stop();
    else document.activeElement?.blur();
    hideToken();
  }
  const typing = event.target.matches("input, select, textarea");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(state.single || event.key === "?")) return;
  const act = LETTERS[event.key.toLowerCase()];
  if (act) { event.preventDefault(); act(); }
});

$("ask").addEventListener("keydown", (event) => { if (isSend(event)) { event.preventDefault(); if (!writing.size) $("composer").requestSubmit(); } });
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (writing.size) return stop();
  const text = $("ask").value;
  if (!text.trim() || !models.length) return;
  $("ask").value = "";
  ask(text);
});
$("settings").addEventListener("change", readSettings);
$("compare").onclick = () => toggle("comparing");
$("tint").onclick = () => toggle("tinted");
$("new").onclick = startNew;
$("help").onclick = () => $("keys").showModal();
$("tune").onclick = toggleSettings;
$("single").onchange = () => { state.single = $("single").checked; keep(); };
$("door").addEventListener("cancel", (event) => event.preventDefault());

async function start() {
  recall();
  for (const name of [...FIELDS, "system"]) $(name).value = state.settings[name];
  $("single").checked = state.single;
  draw();
  try {
    models = (await (await call("v1/models")).json()).data;
  } catch (error) {
    return say(error.message), ($("empty").textContent = `The server can't be reached: ${error.message}`);
  }
  state.lanes.forEach((lane, place) => {
    if (!models.some((one) => one.id === lane.model)) lane.model = (models[place] ?? models[0]).id;
  });
  drawLanes();
  drawMode();
  $("ask").focus();
}
start();
