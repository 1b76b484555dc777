// The map: the outlines of the countries, which come with the page, or tiles
// where the operator has set some; the devices as one canvas, because ten
// thousand elements would not move; the track of the device that is looked at.
/* global L, topojson */

import { $, clock, color, onScheme } from "./format.js";
import { title } from "./fleet.js";

// Dots draws the devices, and lines of latitude and longitude for scale.
const Dots = L.Layer.extend({
  initialize(fleet) { this.fleet = fleet; this.chosen = ""; },
  onAdd(map) {
    this.canvas = L.DomUtil.create("canvas", "leaflet-zoom-hide");
    this.canvas.setAttribute("aria-hidden", "true");
    map.createPane("dots").style.zIndex = 450; // above the outlines, below what is pointed at
    map.getPane("dots").style.pointerEvents = "none";
    map.getPane("dots").append(this.canvas);
    map.on("moveend zoomend resize viewreset", this.draw, this);
    this.draw();
  },
  onRemove(map) {
    this.canvas.remove();
    map.off("moveend zoomend resize viewreset", this.draw, this);
  },
  draw() {
    const map = this._map, size = map.getSize(), scale = devicePixelRatio || 1;
    if (!size.x) return;
    const c = this.canvas, pad = 0.25, w = size.x * (1 + 2 * pad), h = size.y * (1 + 2 * pad);
    if (c.width !== Math.round(w * scale) || c.height !== Math.round(h * scale)) {
      c.width = Math.round(w * scale);
      c.height = Math.round(h * scale);
      c.style.width = `${w}px`;
      c.style.height = `${h}px`;
    }
    const corner = L.point(-size.x * pad, -size.y * pad);
    L.DomUtil.setPosition(c, map.containerPointToLayerPoint(corner));
    const g = c.getContext("2d");
    g.setTransform(scale, 0, 0, scale, 0, 0);
    g.clearRect(0, 0, w, h);
    const zoom = map.getZoom(), origin = map.getPixelOrigin().add(map.containerPointToLayerPoint(corner));
    const world = 256 * 2 ** zoom; // pixels
    const at = (latitude, longitude) => map.project([latitude, longitude], zoom).subtract(origin);
    this.lines(g, w, h, at, map);
    this.names(g, w, h, at, zoom);
    const kinds = { good: [], trouble: [], quiet: [] };
    let chosen = null;
    for (const d of this.fleet.list) {
      if (d.latitude === null) continue;
      const p = { x: d.x * world - origin.x, y: d.y * world - origin.y };
      if (d.imei === this.chosen) chosen = p;
      if (p.x < -9 || p.y < -9 || p.x > w + 9 || p.y > h + 9) continue;
      (d.quiet ? kinds.quiet : d.trouble ? kinds.trouble : kinds.good).push(p);
    }
    const many = this.fleet.list.length > 1500, r = many ? 2.5 : 4.5;
    const paint = (points, fill, mark) => {
      g.fillStyle = g.strokeStyle = fill;
      g.lineWidth = 1.5;
      g.beginPath();
      for (const p of points) mark(p);
      mark === ring ? g.stroke() : g.fill();
    };
    const dot = (p) => { if (many) g.rect(p.x - r, p.y - r, 2 * r, 2 * r); else { g.moveTo(p.x + r, p.y); g.arc(p.x, p.y, r, 0, 7); } };
    const ring = (p) => { g.moveTo(p.x + r, p.y); g.arc(p.x, p.y, r, 0, 7); };
    const point = (p) => { g.moveTo(p.x, p.y - r * 1.4); g.lineTo(p.x + r * 1.3, p.y + r); g.lineTo(p.x - r * 1.3, p.y + r); g.closePath(); };
    paint(kinds.quiet, color("idle"), ring);
    paint(kinds.good, color("ok"), dot);
    paint(kinds.trouble, color("warn"), point);
    if (chosen) {
      g.strokeStyle = color("accent");
      g.lineWidth = 3;
      g.beginPath();
      g.arc(chosen.x, chosen.y, 10, 0, 7);
      g.stroke();
    }
  },
  // names writes the countries, where there is room.
  names(g, w, h, at, zoom) {
    g.fillStyle = color("quiet");
    g.font = "12px system-ui, sans-serif";
    g.textAlign = "center";
    for (const c of this.countries ?? []) {
      if (c.width * 2 ** zoom < 330) continue;
      const p = at(c.latitude, c.longitude);
      if (p.x > 0 && p.y > 0 && p.x < w && p.y < h) g.fillText(c.name, p.x, p.y);
    }
    g.textAlign = "start";
  },
  // lines of latitude and longitude tell where one is when no coast is near.
  lines(g, w, h, at, map) {
    const view = map.getBounds().pad(0.25), wide = view.getEast() - view.getWest();
    const step = [30, 10, 5, 2, 1, .5, .2, .1, .05, .02, .01, .005].find((s) => wide / s >= 5) ?? .002;
    const digits = Math.max(0, Math.ceil(-Math.log10(step)));
    g.strokeStyle = color("coast");
    g.fillStyle = color("quiet");
    g.lineWidth = .5;
    g.font = "11px system-ui, sans-serif";
    const inner = map.getBounds(), left = at(0, inner.getWest()).x, top = at(inner.getNorth(), 0).y;
    g.beginPath();
    for (let v = Math.ceil(view.getSouth() / step) * step; v <= Math.min(85, view.getNorth()); v += step) {
      const y = at(v, 0).y;
      g.moveTo(0, y); g.lineTo(w, y);
      g.fillText(`${v.toFixed(digits)}°`, left + 44, y - 3);
    }
    for (let v = Math.ceil(view.getWest() / step) * step; v <= view.getEast(); v += step) {
      const x = at(0, v).x;
      g.moveTo(x, 0); g.lineTo(x, h);
      g.fillText(`${v.toFixed(digits)}°`, x + 3, top + 12);
    }
    g.stroke();
  },
});

export class FleetMap {
  #fleet; #map; #dots; #land; #track; #point; #asked = false; #fitted = false; #before = null;
  #near = 7; // so near, an outline still says where one is

  constructor(fleet, open) {
    this.#fleet = fleet;
    this.#map = L.map("map", { preferCanvas: true, zoomAnimation: false, fadeAnimation: false, worldCopyJump: true, minZoom: 1, maxZoom: 18 }).setView([20, 10], 2);
    this.#map.attributionControl.setPrefix(false);
    L.control.scale({ imperial: false }).addTo(this.#map);
    this.#dots = new Dots(fleet).addTo(this.#map);
    this.#map.on("click", (e) => { const d = this.#nearest(e.latlng); if (d) open(d.imei); });
    $("fit").addEventListener("click", () => this.fit());
    onScheme(() => { this.#land?.setStyle(land()); this.#dots.draw(); });
  }

  // ground is what lies under the devices.
  async ground(hello) {
    if (this.#asked) return;
    this.#asked = true;
    if (hello.tiles) {
      this.#near = 14;
      L.tileLayer(hello.tiles, { attribution: hello.attribution, maxZoom: 19 }).addTo(this.#map);
      return;
    }
    const world = await (await fetch("/vendor/countries.json")).json();
    this.#land = L.geoJSON(topojson.feature(world, world.objects.countries), { style: land, interactive: false, attribution: "Natural Earth" }).addTo(this.#map);
    this.#dots.countries = this.#land.getLayers().map((c) => {
      // The middle of the largest part: a country may have islands far away.
      const parts = [c.getLatLngs()].flat(c.feature.geometry.type === "MultiPolygon" ? 1 : 0).map((p) => L.latLngBounds(p.flat()));
      const wide = (b) => b.getEast() - b.getWest(), largest = parts.reduce((a, b) => (wide(b) > wide(a) ? b : a));
      const middle = largest.getCenter();
      return { name: c.feature.properties.name, width: wide(largest), latitude: middle.lat, longitude: middle.lng };
    });
    this.#dots.draw();
  }

  update() {
    if (!this.#fitted && this.#fleet.list.some((d) => d.latitude !== null)) this.fit();
    else this.#dots.draw();
  }

  fit() {
    const places = this.#fleet.list.filter((d) => d.latitude !== null).map((d) => [d.latitude, d.longitude]);
    if (!places.length) return;
    this.#fitted = true;
    this.#map.fitBounds(L.latLngBounds(places).pad(0.1), { maxZoom: this.#near });
  }

  // nearest finds the device at a place, if one is within a finger's width.
  #nearest(at) {
    const p = this.#map.latLngToContainerPoint(at);
    let best = null, least = 14; // pixels
    for (const d of this.#fleet.list) {
      if (d.latitude === null) continue;
      const far = this.#map.latLngToContainerPoint([d.latitude, d.longitude]).distanceTo(p);
      if (far < least) { best = d; least = far; }
    }
    return best;
  }

  // choose marks a device and draws its track; null: none, and what was seen
  // before is seen again.
  choose(d, points) {
    if (d) this.#before ??= [this.#map.getCenter(), this.#map.getZoom()];
    else if (this.#before) {
      this.#map.setView(...this.#before, { animate: false });
      this.#before = null;
    }
    this.#dots.chosen = d ? d.imei : "";
    this.#track?.remove();
    this.#point?.remove();
    this.#track = this.#point = null;
    if (d && points?.length) {
      const line = points.map((p) => [p.latitude, p.longitude]);
      this.#track = L.layerGroup([L.polyline(line, { color: color("accent"), weight: 3, opacity: .8, interactive: false })]);
      const marks = Math.min(8, points.length);
      for (let i = 0; i < marks; i++) {
        const p = points[Math.round(i * (points.length - 1) / Math.max(1, marks - 1))];
        L.circleMarker([p.latitude, p.longitude], { radius: 4, color: color("accent"), fillColor: color("surface"), fillOpacity: 1 }).bindTooltip(clock(p.at)).addTo(this.#track);
      }
      this.#track.addTo(this.#map);
      this.#map.fitBounds(L.latLngBounds(line).pad(0.15), { maxZoom: 15 });
    } else if (d && d.latitude !== null) {
      this.#map.setView([d.latitude, d.longitude], Math.max(this.#map.getZoom(), 9));
    }
    this.#dots.draw();
    $("map").setAttribute("aria-label", d ? `Map with the track of ${title(d)}` : "Map of the devices. The table has the same devices.");
  }

  // show marks a point of the track.
  show(p) {
    const at = [p.latitude, p.longitude];
    if (!this.#point) this.#point = L.circleMarker(at, { radius: 7, color: color("text"), fillColor: color("accent"), fillOpacity: 1, interactive: false }).addTo(this.#map);
    this.#point.setLatLng(at);
    if (!this.#map.getBounds().contains(at)) this.#map.panTo(at, { animate: false });
  }
}

const land = () => ({ fillColor: color("land"), fillOpacity: 1, color: color("coast"), weight: 1 });
