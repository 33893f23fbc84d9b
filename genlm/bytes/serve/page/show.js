// Drawing what was answered. Everything is put in as text, never as markup: it is somebody's.
"use strict";

const $ = (id) => document.getElementById(id);

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// A visible spelling: spaces, line ends and what is no text.
function shown(text) {
  return text
    .replace(/ /g, "\u2423").replace(/\n/g, "\u21b5").replace(/\t/g, "\u21e5")
    .replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
      (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

function share(p) {
  return p >= 0.0005 || p === 0 ? (100 * p).toFixed(1) + "\u2009%" : (100 * p).toExponential(0) + "\u2009%";
}

function showNext(rows) {
  const most = Math.max(...rows.map((row) => row.probability), 1e-9);
  $("next").tBodies[0].replaceChildren(...rows.map((row) => {
    const line = element("tr");
    line.append(element("td", row.end ? "end" : shown(row.text.replace(/^bytes:\\x/, "0x"))));
    const bar = element("span", undefined, "bar");
    bar.style.width = (100 * row.probability / most).toFixed(1) + "%";
    const cell = element("td");
    cell.append(bar);
    line.append(cell, element("td", share(row.probability)));
    return line;
  }));
}

function showBeam(found) {
  const rows = found ? found.rows : [];
  $("beam").tBodies[0].replaceChildren(...rows.map((row) => {
    const cuts = element("td");
    const tokens = [...(found.shared.length > 6 ? ["\u2026"] : []), ...found.shared.slice(-6), ...row.tokens];
    for (const token of tokens) cuts.append(element("span", shown(token), "token"));
    if (row.partial) cuts.append(element("span", shown(row.partial), "partial"));
    if (row.canonical) cuts.append(element("span", " (the tokenizer's own)", "quiet"));
    const line = element("tr");
    line.append(cuts, element("td", share(row.share)));
    return line;
  }));
  const waiting = found && found.deferred ? found.deferred + " more wait; " : "";
  $("others").textContent = !found ? "Several models as one have no cuts of their own." :
    waiting + "expected to be missing: " + share(found.missing || 0) +
    ". A line ends a token; what is dotted is the beginning of the next.";
}

let scored = [];
let at = -1;

function showSurprisal(found) {
  scored = found.pieces.map((piece, i) => [piece, found.logprobs[i]]);
  at = -1;
  $("figure").textContent = "";
  $("surprisal").replaceChildren(...scored.map(([piece, logp], i) => {
    const made = element("span", piece);
    const bits = logp === null ? Infinity : -logp / Math.LN2;
    const heat = Math.min(1, Math.max(0, bits) / 12);
    made.style.backgroundColor = "rgba(var(--hot), " + (0.85 * heat).toFixed(2) + ")";
    made.title = figure(i);
    made.addEventListener("mouseenter", () => point(i));
    return made;
  }));
  $("total").textContent = found.pieces.length === 0 ? "" : found.bits === null ? "impossible" :
    found.bits.toFixed(1) + " bits, " + found.bits_per_byte.toFixed(2) + " bits per byte";
}

function figure(i) {
  const [piece, logp] = scored[i];
  if (logp === null) return shown(piece) + ": impossible, or unknown";
  return shown(piece) + ": " + (-logp / Math.LN2).toFixed(2) + " bits, probability " + share(Math.exp(logp));
}

function point(i) {
  const spans = $("surprisal").children;
  if (at >= 0 && spans[at]) spans[at].classList.remove("at");
  at = Math.min(Math.max(i, 0), spans.length - 1);
  if (at < 0) return;
  spans[at].classList.add("at");
  $("figure").textContent = figure(at);
}

function showCompletion(id, text) {
  $(id).replaceChildren(element("mark", text));
}
