// Half an hour of rates. Each upgrade is a vertical line, so that what it did
// is seen beside it.
/* global uPlot */

import { $, color, element, now, onScheme, put, seconds, clock } from "./format.js";

const palette = ["accent", "bad", "warn", "ok", "idle", "quiet"];

export class Charts {
  #columns = []; #step = 5; #span = 1800; #samples = []; #upgrades = []; #charts = [];

  constructor() { onScheme(() => this.#rebuild()); }

  begin(hello) {
    this.#columns = hello.rates;
    this.#step = hello.step_s;
    this.#span = hello.span_s;
    this.#samples = [];
    this.#rebuild();
  }

  upgrades(list) {
    this.#upgrades = list;
    for (const c of this.#charts) c.plot?.redraw();
    $("upgrades").replaceChildren(...list.toReversed().slice(0, 8).map((u) => element("li", {},
      element("time", { dateTime: u.at }, clock(seconds(u.at))),
      element("b", { className: u.result === "upgraded" ? "" : "bad" }, u.result.replace("_", " ")),
      element("span", {}, u.result === "upgraded" ? `generation ${u.from.generation} to ${u.to.generation}, ${u.moved} moved, ${u.dropped} dropped, ${u.stall_ms.toFixed(1)} ms` : u.reason))));
    if (!list.length) $("upgrades").append(element("li", {}, "none yet"));
  }

  take(samples) {
    const newest = this.#samples.at(-1)?.[0] ?? 0; // the first push has what came at the beginning, too
    this.#samples.push(...samples.filter((s) => s[0] > newest));
    const oldest = (now() - this.#span) * 1000;
    while (this.#samples.length && this.#samples[0][0] < oldest) this.#samples.shift();
    const reasons = this.#reasons().join();
    if (reasons !== this.drawn) this.#rebuild();
    else for (const c of this.#charts) this.#draw(c);
  }

  #reasons() {
    return this.#columns.slice(8).filter((_, i) => this.#samples.some((s) => s[8 + i] > 0));
  }

  // what each chart shows: [name, unit, [label, column, how], …].
  #plan() {
    const rate = (v) => v / this.#step, same = (v) => v;
    return [
      ["Connections", "a second", [["opened", "accepted", rate], ...this.#reasons().map((r) => [r.replaceAll("_", " "), r, rate])]],
      ["Frames", "a second", [["frames", "frames", rate]]],
      ["Answers", "ms", [["half within", "half_ms", same], ["99 % within", "most_ms", same]]],
      ["Behind", "records", [["store is behind", "lag", same], ["log, MiB", "log_bytes", (v) => v / 1048576]]],
    ];
  }

  #rebuild() {
    for (const c of this.#charts) c.plot?.destroy();
    this.drawn = this.#reasons().join();
    this.#charts = this.#plan().map(([name, unit, series]) => ({ name, unit, series }));
    $("charts").replaceChildren(...this.#charts.map((c) => {
      c.latest = element("span");
      c.box = element("div");
      c.box.setAttribute("aria-hidden", "true");
      return element("figure", {}, element("figcaption", {}, element("b", {}, c.name), ` ${c.unit}`, c.latest), c.box);
    }));
    for (const c of this.#charts) this.#draw(c);
  }

  #data(c) {
    const data = [this.#samples.map((s) => s[0] / 1000)];
    for (const [, column, how] of c.series) {
      const i = this.#columns.indexOf(column);
      data.push(this.#samples.map((s) => (s[i] === null ? null : how(s[i]))));
    }
    return data;
  }

  #draw(c) {
    const data = this.#data(c);
    put(c.latest, this.#samples.length ? `, ${c.series[0][0]} ${number(data[1].at(-1))}` : ", nothing yet");
    if (!this.#samples.length) return;
    if (c.plot) {
      c.plot.setData(data);
      if (c.plot.cursor.idx === null || c.plot.cursor.left < 0) c.plot.setLegend({ idx: data[0].length - 1 });
      return;
    }
    const axis = { stroke: color("quiet"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const width = () => Math.max(200, c.box.clientWidth);
    const second = c.name === "Behind";
    c.plot = new uPlot({
      width: width(), height: 150, pxAlign: 0, legend: { live: true }, cursor: { sync: { key: "rates" }, drag: { x: false, y: false } },
      scales: { x: { time: true, range: () => this.#range() }, y: { range: (_, lo, hi) => [0, hi > 0 ? hi * 1.1 : 1] }, z: { range: (_, lo, hi) => [0, hi > 0 ? hi * 1.1 : 1] } },
      axes: [{ ...axis, space: 60, size: 26, values: (_, at) => at.map((t) => clock(t).slice(0, 5)) }, { ...axis, size: 44 }, ...(second ? [{ ...axis, scale: "z", side: 1, size: 44, grid: { show: false } }] : [])],
      series: [{ value: (_, t) => (t === null ? "" : clock(t)) }, ...c.series.map(([label], i) => ({
        label, scale: second && i ? "z" : "y", stroke: color(palette[i % palette.length]), width: 1.5, dash: i >= palette.length ? [4, 3] : undefined, spanGaps: false,
        points: { show: false }, value: (_, v) => number(v),
      }))],
      hooks: { draw: [(u) => this.#lines(u)] },
    }, data, c.box);
    new ResizeObserver(() => { if (c.plot.width !== width()) c.plot.setSize({ width: width(), height: 150 }); }).observe(c.box);
  }

  // range is what there is, at most half an hour.
  #range() {
    const end = now(), first = this.#samples[0][0] / 1000;
    return [Math.max(end - this.#span, Math.min(first, end - 120)), end];
  }

  // lines draws the upgrades.
  #lines(u) {
    const g = u.ctx;
    g.save();
    g.lineWidth = devicePixelRatio;
    g.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const up of this.#upgrades) {
      const x = u.valToPos(seconds(up.at), "x", true);
      if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) continue;
      g.strokeStyle = color(up.result === "upgraded" ? "text" : "bad");
      g.beginPath();
      g.moveTo(x, u.bbox.top);
      g.lineTo(x, u.bbox.top + u.bbox.height);
      g.stroke();
    }
    g.restore();
  }
}

const number = (v) => (v === null || v === undefined ? "–" : v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v.toFixed(2));
