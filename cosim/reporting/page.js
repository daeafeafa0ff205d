"use strict";
// What all pictures share: packed data, colours of the theme, the chosen time.
const el = id => document.getElementById(id);
const state = {theme: "light", range: null, time: null, dirty: new Set()};
let DATA, BYTES;

async function unpack(id) {
  const text = el(id).textContent, raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  el(id).remove();
  return new Response(stream).arrayBuffer();
}

function array([kind, offset, length]) {
  return kind === "f8" ? new Float64Array(BYTES, DATA.base + offset, length) : new Float32Array(BYTES, DATA.base + offset, length);
}

// Names are text: plotly takes tags, entities, %{...} and $...$ in what it is given for more.
const plain = text => String(text).replace(/[&<>%$]/g, c => `&#${c.charCodeAt(0)};`);
const short = (text, most = 28) => { const all = Array.from(text); return all.length > most ? all.slice(0, most - 1).join("") + "\u2026" : text; };

const css = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const rgb = hex => [1, 3, 5].map(k => parseInt(hex.slice(k, k + 2), 16));
function mix(a, b, share) {
  const [x, y] = [rgb(a), rgb(b)];
  return "#" + x.map((v, k) => Math.round(v * share + y[k] * (1 - share)).toString(16).padStart(2, "0")).join("");
}
function colour(token) {
  const [name, percent] = token.split("/");
  return percent ? mix(css(name), css("bg"), percent / 100) : css(name);
}
// More is farther from the background, in light and in dark.
const RAMP = {light: ["#fdf0cd", "#fbc25a", "#ee8a23", "#c2500c", "#6d2604"], dark: ["#33291d", "#7c4a14", "#c37522", "#f2ac48", "#ffedc4"]};
function ramp(share) {
  const stops = RAMP[state.theme], at = Math.max(0, Math.min(1, share)) * (stops.length - 1), k = Math.min(Math.floor(at), stops.length - 2);
  return mix(stops[k + 1], stops[k], at - k);
}
function onColour(hex) {
  const [r, g, b] = rgb(hex);
  return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#1b1e23" : "#ffffff";
}

function clock(seconds) {
  const day = Math.floor(seconds / 86400), rest = seconds - day * 86400, two = v => String(Math.floor(v)).padStart(2, "0");
  return (day ? day + "d " : "") + two(rest / 3600) + ":" + two(rest % 3600 / 60);
}
function figure(value, digits = 3) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en-US", {minimumFractionDigits: Math.min(places, 8), maximumFractionDigits: Math.min(places, 8)}).replace(/,/g, "\u202f").replace("-", "\u2212");
}
const power = kw => Math.abs(kw) >= 1000 ? figure(kw / 1000) + " MW" : figure(Math.abs(kw) < 0.05 ? 0 : kw) + " kW";

function setTheme(theme, redraw = true) {
  state.theme = theme;
  document.documentElement.dataset.theme = theme;
  el("theme").textContent = theme === "dark" ? "Light" : "Dark";
  if (redraw) { redrawPlots(); redrawMaps(); }
}
