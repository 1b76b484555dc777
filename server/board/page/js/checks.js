// The three checks as the server judged them; nothing is judged here. Without
// contact they are neither good nor red: nobody knows.

import { $, put } from "./format.js";

const words = { ok: "ok", warm: "warming up", red: "RED", unknown: "no contact" };
const limits = {
  timestamps: (c) => `red below ${(100 * c.limit).toFixed(0)} %, now ${(100 * c.value).toFixed(0)} %`,
  locations: (c) => (c.limit > 0 ? `red below ${c.limit}` : "nothing has to move"),
  reconnects: (c) => `red above ${c.limit}`,
};

let before = "";

export function showChecks(v) {
  const red = [];
  for (const c of v.checks) {
    const state = !c.ok ? "red" : c.warming_up ? "warm" : "ok";
    if (state === "red") red.push(c.name);
    set(c.name, state, c.text, limits[c.name](c));
  }
  head(red.length ? `RED: ${red.join(", ")}` : "ok", red.length ? "#b3261e" : "#14713f", red.length ? "✕" : "✓");
  const said = red.length ? `Red: ${red.join(", ")}` : "All three checks are ok";
  if (before && said !== before) put($("spoken"), said);
  before = said;
}

export function noChecks() {
  for (const name of Object.keys(limits)) set(name, "unknown", "What is below is old.", "");
  head("no contact", "#76838f", "?");
}

function set(name, state, text, limit) {
  const e = $(`check-${name}`);
  e.dataset.state = state;
  put(e.querySelector(".word"), words[state]);
  put(e.querySelector(".text"), text);
  put(e.querySelector(".limit"), limit);
}

function head(text, fill, sign) {
  document.title = `${text} – gt06`;
  const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="${fill}"/><text x="8" y="12.5" font-size="12" text-anchor="middle" fill="#fff">${sign}</text></svg>`;
  const href = `data:image/svg+xml,${encodeURIComponent(icon)}`;
  if ($("icon").href !== href) $("icon").href = href;
}
