"use strict";
// What all pictures share: packed data, colours of the theme, the chosen time.
const el = id => document.getElementById(id);
const state = {theme: "light", range: null, time: null, dirty: new Set(), printing: false};
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
  if (name === "ramp") return ramp(percent / 100);
  return percent ? mix(css(name), css("bg"), percent / 100) : css(name);
}
// More is farther from the background, in light and in dark.
const RAMP = {light: ["#fdf0cd", "#fbc25a", "#ee8a23", "#c2500c", "#6d2604"], dark: ["#33291d", "#7c4a14", "#c37522", "#f2ac48", "#ffedc4"]};
function ramp(share) {
  const stops = RAMP[state.theme], at = Math.max(0, Math.min(1, share)) * (stops.length - 1), k = Math.min(Math.floor(at), stops.length - 2);
  return mix(stops[k + 1], stops[k], at - k);
}
// The relative luminance of WCAG; of black and white one always has 4.5:1 on a colour.
function luminance(hex) {
  const [r, g, b] = rgb(hex).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const onColour = hex => luminance(hex) > 0.179 ? "#000000" : "#ffffff";

// Times are dates, UTC; runs that start at different dates are laid over one another by the time since their starts.
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
const two = v => String(Math.floor(v)).padStart(2, "0");
const hhmm = at => `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
const dayOf = at => `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;
function clock(seconds) {
  const day = Math.floor(seconds / 86400), rest = seconds - day * 86400;
  if (!DATA.start) return (day ? day + "d " : "") + two(rest / 3600) + ":" + two(rest % 3600 / 60);
  const at = new Date(ms(seconds));
  return (DATA.end > 86400 ? dayOf(at) + " " : "") + hhmm(at);
}
function figure(value, digits = 3) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en-US", {minimumFractionDigits: Math.min(places, 8), maximumFractionDigits: Math.min(places, 8)}).replace(/,/g, "\u202f").replace("-", "\u2212");
}
const power = kw => figure(Math.abs(kw) < 0.05 ? 0 : kw) + " kW";

function setTheme(theme, redraw = true) {
  state.theme = theme;
  document.documentElement.dataset.theme = theme;
  el("theme").textContent = theme === "dark" ? "Light" : "Dark";
  if (redraw) { redrawPlots(); redrawMaps(); }
}
