// The fleet as the server tells it: one object a device, changed in place.

import { now } from "./format.js";

export class Fleet {
  devices = new Map();
  list = [];
  #columns = [];
  silent = 300;

  begin(hello) {
    this.#columns = hello.device;
    this.silent = hello.silent_s;
    this.devices.clear();
    this.list = [];
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
      d.text = `${d.imei} ${d.name} ${d.model} ${d.alarm} ${d.problems}`.toLowerCase();
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

export const problems = (d) => (d.quiet ? ["silent", ...d.told] : d.told);
export const title = (d) => d.name || d.imei;

export const filters = {
  all: () => true,
  online: (d) => d.online === 1,
  silent: (d) => d.quiet,
  moving: (d) => !d.quiet && d.speed !== null && d.speed >= 5,
  problems: (d) => d.trouble > 0,
};
