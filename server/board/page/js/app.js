// The page: what comes from the stream goes to the part that shows it.

import { $, count, element, put, seconds, setServerTime, span, clock } from "./format.js";
import { listen } from "./stream.js";
import { Fleet, title } from "./fleet.js";
import { noChecks, showChecks } from "./checks.js";
import { Table } from "./table.js";
import { FleetMap } from "./map.js";
import { Device } from "./device.js";
import { Charts } from "./charts.js";

const grave = new Set(["sos", "powerCut", "tampering", "removing", "accident", "jamming"]);
const quiet = 10_000; // between two alarms that are spoken

const fleet = new Fleet();
const open = (imei) => device.open(imei);
const table = new Table(fleet, open);
const map = new FleetMap(fleet, open);
const device = new Device(fleet, map, table);
const charts = new Charts();

// What changes is shown once a frame, however it comes, and the map a frame
// later: neither must hold up a hand that scrolls.
let due = false;
function show() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    timed("table", () => {
      fleet.age();
      table.update();
      device.update();
    });
    requestAnimationFrame(() => {
      due = false;
      timed("map", () => map.update());
    });
  });
}

// timed notes what an update takes: seen in the browser's tools and by the
// tests.
function timed(name, work) {
  const start = performance.now();
  work();
  performance.measure(name, { start });
  if (performance.getEntriesByName(name).length > 200) performance.clearMeasures(name);
}

let spoken = 0, known = null;
function alarms(list) {
  const first = !known;
  known ??= new Set();
  for (const a of list) {
    const key = `${a.imei} ${a.time} ${a.alarm}`;
    if (known.has(key)) continue; // it came while this page did
    known.add(key);
    const name = a.name || a.imei;
    const line = element("li", {}, element("time", { dateTime: a.time }, clock(seconds(a.time))), element("span", { className: grave.has(a.alarm) ? "grave" : "" }, a.alarm),
      element("button", { type: "button", onclick: () => open(a.imei) }, name));
    $("alarms").prepend(line);
  }
  while ($("alarms").children.length > 50) $("alarms").lastChild.remove();
  const last = list.at(-1);
  if (!first && last && Date.now() - spoken > quiet) {
    spoken = Date.now();
    put($("spoken"), `Alarm ${last.alarm}, ${last.name || last.imei}`);
  }
}

function status(st) {
  put($("state"), st.state);
  $("state").dataset.state = st.state;
  const store = st.store.state === "ok" && st.store.lag === 0 ? "" : `, store ${st.store.state}, ${count(st.store.lag)} behind`;
  put($("server"), `${st.version}, generation ${st.generation}, pid ${st.pid}, up ${span(st.uptime_s)}, ${count(st.devices_online)} devices online, ${count(st.connections)} connections${store}`);
  const now = JSON.stringify(st.sinks.map((s) => [s.name, s.state, s.lag, s.missed, s.last_error]));
  if (now !== ways) sinks(st.sinks);
  ways = now;
  const reasons = st.reasons ?? [];
  $("reasons").hidden = !reasons.length;
  if ($("reasons").textContent !== reasons.join("")) $("reasons").replaceChildren(...reasons.map((r) => element("li", {}, r)));
}

let ways = "";
function sinks(list) {
  $("ways").hidden = !list.length;
  $("sinks").replaceChildren(...list.map((s) => element("li", {}, element("b", {}, s.name), s.kind,
    element("span", { className: s.state === "ok" || s.state === "opening" ? "" : "bad" }, s.state), `${count(s.lag)} behind`,
    ...(s.missed ? [element("span", { className: "bad" }, `${count(s.missed)} missed`)] : []), s.last_error)));
}

listen({
  hello(h) {
    setServerTime(h.now_ms);
    fleet.begin(h);
    charts.begin(h);
    map.ground(h);
    $("alarms").replaceChildren(); // all of them come anew
    known = null;
  },
  status,
  checks: showChecks,
  upgrades: (list) => charts.upgrades(list),
  devices(rows) { timed("rows", () => fleet.take(rows)); show(); },
  rates: (samples) => charts.take(samples),
  alarm: alarms,
}, (good, heard) => {
  $("lost").hidden = good;
  if (good) return;
  noChecks();
  $("state").dataset.state = "unknown";
  put($("state"), "no contact");
  put($("lost"), heard ? `No word from the server since ${clock(heard / 1000)}. What is shown is as it was then.` : "The server does not answer.");
});

// Time alone changes ages and makes devices silent.
setInterval(() => { if (!document.hidden) show(); }, 5000);
