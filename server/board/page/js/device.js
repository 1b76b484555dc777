// One device: what is known, its last day on the map, and its frames with
// every byte named.

import { $, ago, element, moment, put, seconds, clock } from "./format.js";
import { problems, title } from "./fleet.js";

export class Device {
  #fleet; #map; #table; #imei = ""; #points = []; #before = 0;

  constructor(fleet, map, table) {
    [this.#fleet, this.#map, this.#table] = [fleet, map, table];
    $("close").addEventListener("click", () => this.close());
    addEventListener("keydown", (e) => { if (e.key === "Escape" && this.#imei) this.close(); });
    $("track-slider").addEventListener("input", (e) => this.#at(Number(e.target.value)));
    $("frames-new").addEventListener("click", () => this.#frames(0));
    $("frames-back").addEventListener("click", () => this.#frames(this.#before));
  }

  open(imei) {
    const d = this.#fleet.devices.get(imei);
    if (!d) return;
    if (!this.#imei) this.#table.hide();
    this.#imei = this.#table.chosen = imei;
    $("device").hidden = false;
    this.update();
    $("device").scrollTop = 0;
    $("device-title").focus();
    $("frames").replaceChildren();
    this.#track(d);
    this.#frames(0);
  }

  close() {
    const was = this.#imei;
    this.#imei = "";
    $("device").hidden = true;
    this.#map.choose(null);
    this.#table.show(was);
  }

  update() {
    const d = this.#fleet.devices.get(this.#imei);
    if (!d) return;
    put($("device-title"), title(d));
    const facts = {
      IMEI: d.imei,
      model: d.model,
      connected: d.online ? "yes" : "no",
      seen: d.seen === null ? "never" : `${ago(d.seen)} ago`,
      fix: d.fix === null ? "none" : `${moment(d.fix)}, ${ago(d.fix)} ago`,
      place: d.latitude === null ? "" : `${d.latitude.toFixed(5)}, ${d.longitude.toFixed(5)}`,
      speed: d.speed === null ? "" : `${Math.round(d.speed)} km/h, course ${Math.round(d.course)}°`,
      ignition: d.ignition === null ? "" : d.ignition ? "on" : "off",
      battery: d.battery === null ? "" : `${d.battery} %`,
      "last alarm": d.alarm ? `${d.alarm}, ${moment(seconds(d.alarm_at))}` : "",
      problems: problems(d).join(", ") || "none",
      policy: d.status,
    };
    const lines = Object.entries(facts).filter(([, v]) => v);
    const box = $("facts");
    while (box.children.length > 2 * lines.length) box.lastChild.remove();
    lines.forEach(([name, value], i) => {
      if (box.children.length <= 2 * i) box.append(element("dt"), element("dd"));
      put(box.children[2 * i], name);
      put(box.children[2 * i + 1], value);
    });
  }

  async #ask(path) {
    const answer = await fetch(path);
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  }

  async #track(d) {
    const slider = $("track-slider");
    put($("track-text"), "reading …");
    put($("track-point"), "");
    slider.disabled = true;
    this.#points = [];
    try {
      const points = await this.#ask(`/api/devices/${d.imei}/track`);
      if (this.#imei !== d.imei) return;
      for (const p of points) p.at = seconds(p.time);
      this.#points = points;
      this.#map.choose(d, points);
      put($("track-text"), points.length ? `${points.length} fixes from ${moment(points[0].at)} to ${moment(points.at(-1).at)}, ${distance(points).toFixed(1)} km` : "No fix.");
      if (points.length) {
        slider.disabled = false;
        slider.max = points.length - 1;
        slider.value = slider.max;
        this.#at(points.length - 1);
      }
    } catch (e) {
      put($("track-text"), `The track cannot be read: ${e.message}`);
    }
  }

  #at(i) {
    const p = this.#points[i];
    if (!p) return;
    const text = `${moment(p.at)}: ${Math.round(p.speed_kmh)} km/h, ${p.latitude.toFixed(5)}, ${p.longitude.toFixed(5)}${p.alarm ? `, ${p.alarm}` : ""}`;
    put($("track-point"), text);
    $("track-slider").setAttribute("aria-valuetext", text);
    this.#map.show(p);
  }

  async #frames(before) {
    const imei = this.#imei;
    const buttons = [$("frames-new"), $("frames-back")];
    buttons.forEach((b) => { b.disabled = true; });
    put($("frames-text"), "reading the log …");
    try {
      const found = await this.#ask(`/api/devices/${imei}/frames${before ? `?before=${before}` : ""}`);
      if (this.#imei !== imei) return;
      if (!before) $("frames").replaceChildren();
      $("frames").append(...found.frames.map(frame));
      this.#before = found.before;
      put($("frames-text"), `${found.frames.length} frames, ${found.since ? `read back to ${moment(seconds(found.since))}` : "to the beginning of the log"}`);
    } catch (e) {
      put($("frames-text"), `The log cannot be read: ${e.message}`);
    }
    $("frames-new").disabled = false;
    $("frames-back").disabled = !this.#before;
  }
}

// frame shows one, and explains it when it is opened.
function frame(f) {
  const at = seconds(f.time);
  const summary = element("summary", {}, `${clock(at)}.${f.time.slice(20, 23).replace("Z", "").padEnd(3, "0")} ${f.kind} `, element("code", {}, `${f.hex.length / 2} bytes`));
  if (f.error) summary.append(" ", element("span", { className: "wrong" }, f.error));
  const box = element("details", {}, summary);
  box.addEventListener("toggle", () => {
    if (box.children.length > 1) return;
    const table = element("table", { className: "dump" });
    for (const r of f.ranges ?? []) {
      const bytes = f.hex.slice(2 * r.offset, 2 * (r.offset + r.len));
      table.append(element("tr", {}, element("td", {}, `${r.offset}..${r.offset + r.len - 1}`), element("td", { className: "bytes" }, bytes.length > 24 ? `${bytes.slice(0, 22)}…` : bytes),
        element("td", {}, r.name), element("td", {}, r.unit ? `${r.value} ${r.unit}` : r.value)));
    }
    for (const a of f.answers) table.append(element("tr", {}, element("td", {}, "answer"), element("td", { colSpan: 3, className: "bytes" }, a)));
    box.append(table, element("code", {}, f.hex));
  });
  return box;
}

// distance along a track in kilometres.
function distance(points) {
  const rad = Math.PI / 180;
  let sum = 0;
  for (let i = 1; i < points.length; i++) {
    const a = points[i - 1], b = points[i];
    const x = (b.longitude - a.longitude) * rad * Math.cos((a.latitude + b.latitude) * rad / 2), y = (b.latitude - a.latitude) * rad;
    sum += Math.hypot(x, y) * 6371;
  }
  return sum;
}
