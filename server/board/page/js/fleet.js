// The fleet as the server tells it: one object a device, changed in place.

import { now } from "./format.js";

export class Fleet {
  devices = new Map();
  list = [];
  #columns = [];
  #anew = false; // the next rows are all there are
  silent = 300;

  begin(hello) {
    this.#columns = hello.device;
    this.silent = hello.silent_s;
    this.#anew = true;
  }

  take(rows) {
    for (const row of rows) {
      let d = this.devices.get(row[0]);
      if (!d) {
        d = {};
        this.devices.set(row[0], d);
        this.list.push(d);
      }
      this.#columns.forEach((name, i) => { d[name] = row[i]; });
      d.told = d.problems ? d.problems.split(",").filter((p) => p !== "silent") : [];
      d.text = null;
      if (d.latitude !== null) {
        // Where it is on a world that is one wide: the map multiplies.
        d.x = (d.longitude + 180) / 360;
        d.y = 0.5 - Math.log(Math.tan(Math.PI / 4 + Math.max(-85, Math.min(85, d.latitude)) * Math.PI / 360)) / (2 * Math.PI);
      }
    }
    if (this.#anew) {
      this.#anew = false;
      const there = new Set(rows.map((row) => row[0]));
      for (const imei of this.devices.keys()) if (!there.has(imei)) this.devices.delete(imei);
      this.list = [...this.devices.values()];
    }
    this.age();
  }

  // age says who is silent by now: time alone makes a device so.
  age() {
    const limit = now() - this.silent;
    for (const d of this.list) {
      d.quiet = d.seen === null || d.seen < limit;
      d.trouble = d.quiet ? d.told.length + 1 : d.told.length;
    }
  }
}

// matches searches a device; most updates come while nobody does.
export function matches(d, text) {
  d.text ??= `${d.imei} ${d.name} ${d.model} ${d.alarm} ${problems(d).join()}`.toLowerCase();
  return d.text.includes(text);
}

export const problems = (d) => (d.quiet ? ["silent", ...d.told] : d.told);
export const title = (d) => d.name || d.imei;

export const filters = {
  all: () => true,
  online: (d) => d.online === 1,
  silent: (d) => d.quiet,
  moving: (d) => !d.quiet && d.speed !== null && d.speed >= 5,
  problems: (d) => d.trouble > 0,
};
