// The map: a network drawn once per size and theme, recoloured as the slider moves.
const NS = "http://www.w3.org/2000/svg";
const views = [];
let mode = null, playing = null; // mode: what the nodes are coloured by, a level without its values

function svg(name, attributes, parent, text) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.appendChild(node);
  return node;
}

function prepareMaps() {
  DATA.maps.forEach((m, r) => {
    m.t = array(m.time_s); m.f = array(m.flow);
    m.level = {};
    for (const level of m.levels) m.level[level.key] = array(level.values);
    for (const mark of m.marks) mark.y = array(mark.kw);
    for (const one of m.readouts) one.y = array(one.values);
    views.push({m, at: 0, box: el("map" + r), out: el("readout" + r)});
  });
  if (!views.length) return;
  const most = f => views.reduce((top, v) => v.m[f] ? v.m[f].reduce((a, b) => Math.max(a, Math.abs(b)), top) : top, 1e-9);
  views.flow = most("f");
  const times = [...new Set(views.flatMap(v => Array.from(v.m.t)))].sort((a, b) => a - b);
  const slider = el("time");
  views.times = times;
  slider.max = times.length - 1;
  slider.addEventListener("input", () => choose(times[slider.value]));
  el("play").addEventListener("click", play);
  const modes = new Map(views.flatMap(v => v.m.levels).map(level => [level.key, level]));
  for (const key of [...modes.keys()]) if (!views.some(v => v.m.level[key] && v.m.level[key].some(Number.isFinite))) modes.delete(key);
  mode = [...modes.values()][0] || null;
  for (const level of modes.values()) {
    const tab = document.createElement("button");
    Object.assign(tab, {type: "button", textContent: level.title, id: "mode-" + level.key});
    tab.setAttribute("role", "tab");
    tab.addEventListener("click", () => { mode = level; redrawMaps(); });
    el("modes").appendChild(tab);
  }
}

const colours = m => mode && m.level[mode.key];
const unit = () => mode ? mode.unit : "";

function extent() {
  let low = Infinity, high = -Infinity;
  for (const v of views) for (const x of colours(v.m) || []) if (Number.isFinite(x)) { low = Math.min(low, x); high = Math.max(high, x); }
  return low < high ? [low, high] : [low === Infinity ? 0 : low - 0.5, high === -Infinity ? 1 : high + 0.5];
}

function redrawMaps() {
  if (!views.length) return;
  views.extent = extent();
  const [low, high] = views.extent, digits = mode ? mode.digits : 3;
  document.querySelectorAll("#modes button").forEach(b => b.setAttribute("aria-selected", b.id === "mode-" + (mode && mode.key)));
  const bar = document.createElement("i");
  bar.style.background = `linear-gradient(90deg,${RAMP[state.theme]})`;
  el("scale").replaceChildren(figure(low, digits), bar, `${figure(high, digits)} ${unit()}`);
  views.forEach(drawMap);
  views.forEach(updateMap);
}

function drawMap(v) {
  const m = v.m, wide = v.box.clientWidth, upright = wide < 700 && !state.printing, xs = m.nodes.map(n => n.x), ys = m.nodes.map(n => n.y);
  const cols = Math.max(...xs) + 1, top = Math.min(...ys), rows = Math.max(...ys) - top + 1;
  const many = m.nodes.length > 80;
  v.r = many ? 4.5 : upright ? 10 : 11;
  const row = upright ? Math.min(96, (wide - 16) / rows) : many ? 46 : 104, col = upright ? (many ? 14 : 44) : Math.min(cols < 6 ? 220 : 110, (wide - 90) / Math.max(1, cols - 1));
  const place = n => upright ? [(n.y - top + 0.5) * row + (wide - rows * row) / 2, n.x * col + 24] : [45 + n.x * col + Math.max(0, (wide - 90 - (cols - 1) * col) / 2), (n.y - top + 0.5) * row + 4];
  const tall = upright ? (cols - 1) * col + 60 : rows * row + 8;
  v.box.textContent = "";
  const root = svg("svg", {viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": "Map"}, v.box);
  v.xy = m.nodes.map(place);
  v.lines = m.lines.map(([a, b]) => {
    const [[x0, y0], [x1, y1]] = [v.xy[a], v.xy[b]], same = upright ? x0 === x1 : y0 === y1;
    const bend = same ? "" : upright ? `L${x1} ${y0}` : `L${x0} ${y1}`;
    const path = svg("path", {d: `M${x0} ${y0}${bend}L${x1} ${y1}`, fill: "none", stroke: mix(css("band"), css("bg"), 0.75), "stroke-linejoin": "round", "stroke-linecap": "round"}, root);
    const from = same ? [x0, y0] : upright ? [x1, y0] : [x0, y1];
    return {path, tip: svg("title", {}, path), x: (from[0] + x1) / 2, y: (from[1] + y1) / 2};
  });
  for (const line of v.lines) line.arrow = svg("path", {fill: css("ink"), opacity: 0.85}, root);
  v.nodes = m.nodes.map((n, k) => {
    const [x, y] = v.xy[k], g = svg("g", {class: "node", tabindex: many ? -1 : 0, role: "button"}, root);
    const dot = svg("circle", {class: "dot", cx: x, cy: y, r: v.r, stroke: mix(css("ink"), css("bg"), 0.45), "stroke-width": 1}, g);
    const text = many ? null : svg("text", {x, y: y + 3.6, "text-anchor": "middle", "font-size": n.name.length > 2 ? 8.5 : 10, "font-weight": 600}, g, short(n.name, 8));
    const tell = () => { v.told = k; updateMap(v); };
    g.addEventListener("focus", tell); g.addEventListener("pointerenter", tell);
    return {g, dot, text, tip: svg("title", {}, g)};
  });
  root.addEventListener("click", event => { // the nearest node: a finger is larger than any
    const to = root.getBoundingClientRect(), scale = wide / to.width, x = (event.clientX - to.left) * scale, y = (event.clientY - to.top) * scale;
    const far = v.xy.map(([a, b]) => Math.hypot(a - x, b - y)), nearest = far.indexOf(Math.min(...far));
    if (far[nearest] <= 44) { v.told = nearest; updateMap(v); }
  });
  const busy = new Set(m.nodes.map(n => n.x + " " + n.y)), used = new Set();
  // the words stand on the wished side of the node, or on the other where that is free and this is not
  const side = (s, wished) => {
    const n = m.nodes[s.node], full = d => used.has(s.node + " " + d) || (upright && busy.has(n.x + " " + (n.y - d)));
    const d = full(wished) && !full(-wished) ? -wished : wished;
    used.add(s.node + " " + d);
    return d;
  };
  v.marks = m.marks.map(s => attach(root, v, s, upright, side(s, s.shape === "ring" ? -1 : 1), colour(s.colour), () => {
    const [x, y] = v.xy[s.node], side = v.r + 3;
    if (s.shape === "ring") svg("circle", {cx: x, cy: y, r: v.r + 4.5, fill: "none", stroke: colour(s.colour), "stroke-width": 3, "stroke-dasharray": "5 2.5"}, root);
    else svg("rect", {x: x - side, y: y - side, width: 2 * side, height: 2 * side, fill: "none", stroke: colour(s.colour), "stroke-width": 1.8, rx: 2}, root);
  }));
}

// Name and power beside a node: of rings above (right on a phone), of squares below (left).
function attach(root, v, thing, upright, side, c, mark) {
  mark();
  const [x, y] = v.xy[thing.node], away = v.r + 8;
  const where = upright ? {x: x - side * away, y: y - 2, "text-anchor": side < 0 ? "start" : "end"} : {x, y: side < 0 ? y - away - 14 : y + away + 9, "text-anchor": "middle"};
  const text = svg("text", {...where, "font-size": 12, class: "halo"}, root);
  svg("tspan", {x: where.x, "font-weight": 700, style: `fill:${c}`}, text, short(thing.name, 24));
  return {thing, kw: svg("tspan", {x: where.x, dy: 13}, text)};
}

function updateMap(v) {
  const {m, at} = v, n = m.nodes.length, [low, high] = views.extent, values = colours(m), digits = mode ? mode.digits : 3;
  const upright = v.box.clientWidth < 700 && !state.printing;
  v.nodes.forEach((node, k) => {
    const x = values ? values[at * n + k] : NaN, c = Number.isFinite(x) ? ramp((x - low) / (high - low)) : css("line");
    node.dot.setAttribute("fill", c);
    if (node.text) node.text.style.fill = onColour(c);
    node.tip.textContent = `node ${m.nodes[k].name}: ${figure(x, digits)} ${unit()}`;
  });
  v.lines.forEach((line, k) => {
    const kw = m.f[at * m.lines.length + k], share = Math.abs(kw) / views.flow, [a, b] = m.lines[k];
    const width = 1.2 + 11 * share, size = kw ? 3.2 + 3.6 * Math.sqrt(share) : 0, turn = kw < 0 ? -1 : 1;
    line.path.setAttribute("stroke-width", width.toFixed(2));
    line.tip.textContent = `line ${m.nodes[a].name}-${m.nodes[b].name}: ${power(kw)}`;
    const [dx, dy] = upright ? [0, turn * Math.sign(v.xy[b][1] - v.xy[a][1])] : [turn * Math.sign(v.xy[b][0] - v.xy[a][0]), 0];
    line.arrow.setAttribute("d", size ? `M${line.x + dx * size} ${line.y + dy * size}L${line.x - dx * size - dy * size} ${line.y - dy * size + dx * size}L${line.x - dx * size + dy * size} ${line.y - dy * size - dx * size}Z` : "");
  });
  for (const s of v.marks) s.kw.textContent = power(s.thing.y[at]);
  const parts = m.readouts.map(one => `${one.words} ${one.unit === "kW" ? power(one.y[at]) : `${figure(one.y[at])} ${one.unit}`}`);
  if (v.told !== undefined) parts.push(m.levels.reduce((text, one) => `${text} ${one.short ? one.short + " " : ""}${figure(m.level[one.key][at * n + v.told], one.digits)} ${one.unit}`, `node ${m.nodes[v.told].name}:`));
  v.out.textContent = parts.join(" · ");
}

// The one chosen time: slider, maps and the cursor in all pictures.
function choose(seconds, marked = true) {
  if (seconds === null || !Number.isFinite(seconds)) return;
  if (marked) state.time = seconds;
  if (views.length) {
    const last = (times, t) => { let k = 0; while (k + 1 < times.length && times[k + 1] <= t) k++; return k; };
    el("time").value = last(views.times, seconds);
    el("clock").textContent = clock(seconds);
    el("time").setAttribute("aria-valuetext", clock(seconds));
    for (const v of views) { v.at = last(v.m.t, seconds); updateMap(v); }
  }
  DATA.plots.forEach((p, k) => { if (p.drawn) moveCursor(k); });
}

function play() {
  const button = el("play"), slider = el("time");
  if (playing) { clearInterval(playing); playing = null; }
  else {
    if (+slider.value >= +slider.max) choose(views.times[0]);
    playing = setInterval(() => {
      if (+slider.value >= +slider.max) return play();
      choose(views.times[+slider.value + 1]);
    }, Math.max(40, Math.min(200, 15000 / views.times.length)));
  }
  button.textContent = playing ? "\u275a\u275a" : "\u25b6";
  button.setAttribute("aria-label", playing ? "Pause" : "Play");
}
