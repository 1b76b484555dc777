// The table of devices. Only the rows in sight exist, between two empty ones
// that keep the place of the others, so ten thousand devices scroll like
// twenty. Screen readers are told the true number and place of each row.

import { $, ago, count, element, put, seconds, span, now } from "./format.js";
import { filters, matches, problems } from "./fleet.js";

const height = 40; // pixels of a row, as in app.css
const spare = 6; // rows kept above and below those in sight
const hold = 20_000; // the order stays this long after somebody touched the table

const columns = [
  ["c-seen", (d) => ago(d.seen)],
  ["c-fix", (d) => (d.fix === null ? "none" : ago(d.fix))],
  ["c-speed", (d) => (d.speed === null ? "" : String(Math.round(d.speed)))],
  ["c-battery", (d) => (d.battery === null ? "" : `${d.battery} %`)],
  ["c-alarm", (d) => (d.alarm ? `${d.alarm}, ${span(now() - seconds(d.alarm_at))}` : "")],
  ["c-problems", (d) => problems(d).join(", ")],
];

// What a column is sorted by, and whether its interesting end is the upper.
const orders = {
  name: [(d) => d.name || d.imei, false], seen: [(d) => d.seen ?? 0, false], fix: [(d) => d.fix ?? 0, false], speed: [(d) => d.speed ?? -1, true],
  battery: [(d) => d.battery ?? 101, false], alarm_at: [(d) => d.alarm_at, true], problems: [(d) => d.trouble, true],
};

export class Table {
  #fleet; #open;
  #shown = []; #rows = []; #focus = -1; #top = 0; #touched = 0; #stale = true;
  #sort = "seen"; #down = false; #filter = "all"; #search = "";
  #box = $("rows"); #body = this.#box.querySelector("tbody"); #table = this.#box.querySelector("table");
  #above = gap(); #below = gap();
  chosen = "";

  constructor(fleet, open) {
    this.#fleet = fleet;
    this.#open = open;
    this.#body.append(this.#above, this.#below);
    this.#box.addEventListener("scroll", () => { this.#touch(); this.render(); }, { passive: true });
    this.#box.addEventListener("pointermove", () => this.#touch(), { passive: true });
    this.#body.addEventListener("keydown", (e) => this.#key(e));
    this.#body.addEventListener("click", (e) => {
      const row = e.target.closest("tr[data-imei]");
      if (row) this.#open(row.dataset.imei);
    });
    this.#body.addEventListener("focusin", (e) => {
      const row = e.target.closest("tr[data-imei]");
      if (row) this.#focus = Number(row.getAttribute("aria-rowindex")) - 2;
      this.#touch();
    });
    this.#body.addEventListener("focusout", () => { this.#focus = -1; });
    for (const b of this.#table.querySelectorAll("thead button")) b.addEventListener("click", () => this.#order(b.dataset.sort));
    for (const r of document.querySelectorAll("#filters input")) r.addEventListener("change", () => { this.#filter = r.value; this.#again(); });
    $("search").addEventListener("input", (e) => { this.#search = e.target.value.trim().toLowerCase(); this.#again(); });
    new ResizeObserver(() => this.render()).observe(this.#box);
    this.#mark();
  }

  // update shows the fleet as it is by now. While somebody is in the table its
  // rows keep their order.
  update() {
    this.#stale = true;
    this.#counts();
    this.render();
  }

  #touch() { this.#touched = performance.now(); }
  #again() { this.#touched = 0; this.#stale = true; this.#box.scrollTop = 0; this.#focus = -1; this.render(); }

  #order(by) {
    this.#down = by === this.#sort ? !this.#down : orders[by][1];
    this.#sort = by;
    this.#mark();
    this.#again();
  }

  #mark() {
    for (const b of this.#table.querySelectorAll("thead button")) {
      if (b.dataset.sort === this.#sort) b.parentElement.setAttribute("aria-sort", this.#down ? "descending" : "ascending");
      else b.parentElement.removeAttribute("aria-sort");
    }
  }

  #counts() {
    const n = Object.fromEntries(Object.keys(filters).map((f) => [f, 0]));
    for (const d of this.#fleet.list) for (const f in filters) if (filters[f](d)) n[f]++;
    for (const r of document.querySelectorAll("#filters input")) put(r.nextElementSibling.querySelector("b"), count(n[r.value]));
  }

  #choose() {
    const pass = filters[this.#filter], text = this.#search;
    const [key] = orders[this.#sort], sign = this.#down ? -1 : 1;
    const list = this.#fleet.list.filter((d) => pass(d) && (!text || matches(d, text)));
    for (const d of list) d.key = key(d);
    list.sort((a, b) => (a.key < b.key ? -sign : a.key > b.key ? sign : a.imei < b.imei ? -1 : 1));
    this.#shown = list;
    this.#stale = false;
  }

  render() {
    if ($("devices").hidden) return;
    const held = this.#shown.length > 0 && performance.now() - this.#touched < hold && this.#touched > 0;
    if (this.#stale && !held) this.#choose();
    $("held").hidden = !(held && this.#stale);
    const rows = this.#shown.length;
    const first = Math.max(0, Math.min(Math.floor(this.#box.scrollTop / height) - spare, rows - 1));
    const last = Math.min(rows, first + Math.ceil(this.#box.clientHeight / height) + 2 * spare);
    // One row is on the way of the tab key, the arrows reach the others.
    const entry = this.#focus >= first && this.#focus < last ? this.#focus : Math.min(Math.ceil(this.#box.scrollTop / height), rows - 1);
    while (this.#rows.length < last - first) this.#rows.push(makeRow());
    this.#rows.forEach((row, i) => {
      const at = first + i;
      if (at >= last) { row.line.remove(); return; }
      if (!row.line.isConnected) this.#body.insertBefore(row.line, this.#below);
      fill(row, this.#shown[at], at, this.chosen);
      row.button.tabIndex = at === entry ? 0 : -1;
    });
    this.#above.firstChild.style.height = `${first * height}px`;
    this.#below.firstChild.style.height = `${(rows - last) * height}px`;
    this.#table.setAttribute("aria-rowcount", rows + 1);
    const focused = this.#focus >= first && this.#focus < last ? this.#rows[this.#focus - first] : null;
    if (focused && this.#body.contains(document.activeElement) && document.activeElement !== focused.button) focused.button.focus({ preventScroll: true });
  }

  #key(e) {
    const page = Math.floor(this.#box.clientHeight / height) - 1;
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 }[e.key];
    if (!by || this.#focus < 0) return;
    e.preventDefault();
    this.#go(Math.max(0, Math.min(this.#shown.length - 1, this.#focus + by)));
  }

  #go(to) {
    const top = to * height, room = this.#box.clientHeight - height * 1.5; // the head covers a row
    if (top < this.#box.scrollTop) this.#box.scrollTop = top;
    else if (top > this.#box.scrollTop + room - height) this.#box.scrollTop = top - room + height;
    this.#focus = to;
    this.#touch();
    this.render();
  }

  // hide makes room for a device, show takes it back and goes on where it was.
  hide() {
    this.#top = this.#box.scrollTop;
    $("devices").hidden = true;
  }

  show(imei) {
    $("devices").hidden = false;
    this.#box.scrollTop = this.#top;
    this.render();
    const row = this.#rows.find((r) => r.line.isConnected && r.line.dataset.imei === imei);
    (row ? row.button : $("search")).focus({ preventScroll: true });
  }
}

function gap() {
  const e = element("tr", { className: "gap" }, element("td", { colSpan: 7 }));
  e.setAttribute("aria-hidden", "true");
  return e;
}

function makeRow() {
  const button = element("button", { type: "button" }), name = document.createTextNode(""), more = element("small");
  button.append(name, more);
  const line = element("tr", {}, element("th", { scope: "row", className: "c-name" }, button));
  const cells = columns.map(([className]) => element("td", { className }));
  line.append(...cells);
  return { line, button, name, more, cells };
}

function fill(row, d, at, chosen) {
  const { line } = row;
  if (line.dataset.imei !== d.imei) line.dataset.imei = d.imei;
  const kind = d.quiet ? "silent" : d.trouble ? "trouble" : "";
  const classes = d.imei === chosen ? `${kind} chosen` : kind;
  if (line.className !== classes) line.className = classes;
  line.setAttribute("aria-rowindex", at + 2);
  put(row.name, d.name || d.imei);
  put(row.more, d.name ? `…${d.imei.slice(-6)}` : "");
  columns.forEach(([, text], i) => put(row.cells[i], text(d)));
}
