// Asking while somebody types: one round at a time, and what is overtaken is hung up on, which ends its work.
"use strict";

const PAUSE = 120; // milliseconds after the last key
let round = null;
let timer = null;

async function ask(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = "Bearer " + $("key").value;
  const asked = body === undefined ? { headers, signal } :
    { method: "POST", headers, signal, body: JSON.stringify(body) };
  const answer = await fetch(path, asked);
  const document_ = await answer.json();
  if (answer.ok) return document_;
  if (answer.status === 401) $("key-field").hidden = false;
  throw new Error(document_.error ? document_.error.message : "the server says " + answer.status);
}

function say(text, wrong) {
  $("state").textContent = text;
  $("state").className = wrong ? "wrong" : "";
}

async function look() {
  if (round) round.abort();
  const mine = round = new AbortController();
  const signal = mine.signal;
  const field = $("text");
  const prompt = field.value.slice(0, field.selectionStart);
  const model = $("model").value;
  const unit = document.querySelector("input[name=unit]:checked").value;
  say("\u2026");
  const complete = (token_healing) => ask("v1/completions",
    { model, prompt, temperature: 0, max_tokens: 12, token_healing }, signal);
  const parts = [
    ask("v1/next", { model, prompt, unit, top: 10, min_prob: 1e-7, candidates: 8 }, signal)
      .then((found) => { showNext(found.next); showBeam(found.candidates); }),
    complete(true).then((found) => showCompletion("healed", found.choices[0].text)),
    complete(false).then((found) => showCompletion("unhealed", found.choices[0].text)),
    ask("v1/score", { model, text: prompt, unit: "char" }, signal)
      .then((found) => showSurprisal(found.results[0])),
  ];
  const ended = await Promise.allSettled(parts);
  if (round !== mine) return;
  const failed = ended.find((end) => end.status === "rejected");
  say(failed ? failed.reason.message : "", Boolean(failed));
  document.body.dataset.shown = failed ? "" : prompt;
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(look, PAUSE);
}

async function begin() {
  try {
    const found = await ask("v1/models");
    const chosen = $("model").value;
    $("model").replaceChildren(...found.data.map((model) => element("option", model.id)));
    if (chosen) $("model").value = chosen;
    const health = await (await fetch("health")).json();
    if (health.status === "loading") {
      say("loading " + health.loading.join(", ") + " \u2026");
      setTimeout(begin, 1000);
      return;
    }
    look();
  } catch (error) {
    say(error.message, true);
  }
}

$("text").addEventListener("input", soon);
document.addEventListener("selectionchange", () => {
  if (document.activeElement === $("text")) soon();
});
for (const choice of document.querySelectorAll("input[name=unit]")) choice.addEventListener("change", look);
$("model").addEventListener("change", look);
$("key").addEventListener("change", begin);
$("surprisal").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  point(step === Infinity ? scored.length - 1 : step === -Infinity ? 0 : at + step);
});
const field = $("text");
field.setSelectionRange(field.value.length, field.value.length);
begin();
