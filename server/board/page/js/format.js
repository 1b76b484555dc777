// What the other modules write with. Text from devices goes into the page as
// text nodes only.

export const $ = (id) => document.getElementById(id);

// element makes one: element("p", {className: "x"}, "text", child…).
export function element(tag, properties, ...children) {
  const e = Object.assign(document.createElement(tag), properties);
  e.append(...children);
  return e;
}

// put writes a text only where it differs: most updates change little.
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// skew is how far this machine's clock is from the server's, in milliseconds.
let skew = 0;
export const setServerTime = (ms) => { skew = ms - Date.now(); };
export const now = () => (Date.now() + skew) / 1000;

// span writes seconds as the largest whole unit.
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} d`;
}

export const ago = (t) => (t === null ? "never" : span(now() - t));
export const clock = (t) => new Date(t * 1000).toLocaleTimeString([], { hour12: false });
export const moment = (t) => {
  const d = new Date(t * 1000);
  return `${d.toLocaleDateString([], { day: "numeric", month: "short" })} ${d.toLocaleTimeString([], { hour12: false })}`;
};
export const seconds = (rfc3339) => Date.parse(rfc3339) / 1000;
export const count = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");

// color returns a colour of the style sheet as it is now. To ask the browser
// makes it lay out the page, so the answer is kept.
const colors = new Map();
export function color(name) {
  if (!colors.has(name)) colors.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colors.get(name);
}

// onScheme calls f when the page turns dark or light.
const schemes = matchMedia("(prefers-color-scheme: dark)");
schemes.addEventListener("change", () => colors.clear());
export const onScheme = (f) => schemes.addEventListener("change", f);
