// Panels as plotly graphs: drawn when they come into view, zoomed together, with one cursor for the chosen time.
const DASH = {solid: "solid", dash: "7px,4px", dot: "2px,3px"};
const plots = [];
let START;
const ms = seconds => START + seconds * 1000;
const dates = a => Array.from(a, ms);
const coarse = matchMedia("(pointer: coarse)").matches;

function base(p, node) {
  const soft = css("soft"), line = css("line");
  const axis = {gridcolor: line, zeroline: false, linecolor: line, tickfont: {size: 12, color: soft}, fixedrange: true, automargin: false};
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "x unified",
    font: {family: getComputedStyle(document.body).fontFamily, size: 12, color: css("ink")},
    hoverlabel: {bgcolor: css("card"), bordercolor: line, font: {color: css("ink"), size: 12}, namelength: -1},
    margin: {l: 50, r: 24, t: 8, b: 40}, shapes: [], annotations: [], dragmode: coarse ? false : "zoom",
    xaxis: {...axis, type: "date", fixedrange: coarse, showgrid: false, ticks: "outside", ticklen: 3, tickcolor: line, hoverformat: hover(), tickangle: 0},
    yaxis: {...axis, nticks: 5, exponentformat: "power", minexponent: 6}
  };
}

const hover = () => DATA.start ? "%-d %b %H:%M UTC" : "%H:%M";

// Whole hours and days of the calendar, the date below the first and below each midnight.
const STEPS = [1, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080, 43200].map(m => m * 60);
function timeTicks(axis, room, gap) {
  const since = DATA.start ? 0 : START, [a, b] = axis.range.map(v => (v - since) / 1000), most = Math.max(2, room / gap);
  const long = b - a > 2.2 * 86400, step = STEPS.find(s => (b - a) / s <= most && (!long || s >= 86400)) || STEPS[STEPS.length - 1];
  const at = [];
  for (let t = Math.ceil(a / step) * step; t <= b; t += step) at.push(t);
  axis.tickvals = at.map(t => since + t * 1000);
  axis.ticktext = at.map((t, k) => {
    if (!DATA.start) return long ? t / 86400 + "d" : clock(t % 86400);
    const when = new Date(t * 1000);
    return long ? dayOf(when) : hhmm(when) + (k && t % 86400 === 0 ? "<br>" + dayOf(when) : "");
  });
}
// What the axis counts in, below its left end: the date and zone, or that it is a time since the start.
function zone(layout, inner) {
  const at = new Date(layout.xaxis.range[0]);
  const text = DATA.start ? (layout.xaxis.range[1] - at > 2.2 * 864e5 ? `${at.getUTCFullYear()}, UTC` : inner < 150 ? `${dayOf(at)}, UTC` : `${dayOf(at)} ${at.getUTCFullYear()}, UTC`) : "since the start";
  layout.annotations.push({xref: "paper", yref: "paper", x: 0, xanchor: "left", xshift: -16, y: 0, yanchor: "top", yshift: -21, text, showarrow: false, font: {size: 12, color: css("soft")}});
}
// What part of the time is in view: what is zoomed to, or all.
const viewOf = (p, all) => { p.home = all.slice(); return state.range && p.linked !== false ? state.range.slice() : all; };

function seriesPlot(p, node) {
  const layout = base(p, node), traces = [], labels = [], lines = [], layers = [], bg = css("bg");
  let low = null;
  for (const s of p.series) {
    const t = array(s.t), y = array(s.y), x = dates(t), ys = Array.from(y, v => Number.isNaN(v) ? null : v), c = colour(s.colour);
    if (!t.length) continue;
    if (!s.joined) x.push(ms(s.end)); if (!s.joined) ys.push(ys[ys.length - 1]);
    const common = {type: "scatter", mode: "lines", x, y: ys, name: plain(s.name), hovertemplate: "%{y:,.4~g} " + plain(p.unit || "")};
    if (s.area) {
      traces.push({...common, stackgroup: "s", fillcolor: c, line: {shape: "hv", width: 0.8, color: bg}});
      const top = ys.map((v, k) => (v || 0) + (low ? low[k] : 0));
      layers.push({text: short(s.label), c, low: low || ys.map(() => 0), top, x});
      low = top;
    } else {
      if (s.reach) traces.push(...reach(s, x, c));
      traces.push({...common, line: {shape: s.joined ? "linear" : "hv", width: p.series.length > 8 ? 1.3 : 2, color: c, dash: DASH[s.mark]}});
      if (s.label) lines.push({x, ys, text: short(s.label), c});
    }
  }
  const ends = p.series.map(s => s.end), first = p.series.map(s => array(s.t)).filter(a => a.length).map(a => a[0]);
  layout.xaxis.range = viewOf(p, [ms(Math.min(...first)), ms(Math.max(...ends))]);
  for (const {x, ys, text, c} of lines) {  // a name stands at the last value in view
    let k = ys.length - 1;
    while (k >= 0 && (ys[k] === null || x[k] > layout.xaxis.range[1])) k--;
    if (k >= 0) labels.push({y: ys[k], text, c});
  }
  layout.yaxis.range = p.log ? p.range.map(Math.log10) : p.range;
  if (p.log) Object.assign(layout.yaxis, {type: "log", exponentformat: "power", tickfont: {size: 11, color: css("soft")}, dtick: Math.max(1, Math.ceil((layout.yaxis.range[1] - layout.yaxis.range[0]) / 4))});
  layout.margin.r = 24 + Math.max(0, 7.1 * Math.max(0, ...lines.map(l => l.text.length)) - 10);
  background(p, layout, node);
  endLabels(labels, p, layout, node);
  for (const layer of layers) layerLabel(layer, layout, node);
  return [traces, layout];
}

// A band from the lowest to the highest of what a line is the mean of.
function reach(s, x, c) {
  const edge = place => { const y = Array.from(array(place), v => Number.isNaN(v) ? null : v); if (!s.joined) y.push(y[y.length - 1]); return y; };
  const [low, high] = s.reach.map(edge), common = {type: "scatter", mode: "lines", x, hoverinfo: "skip", line: {width: 0, shape: s.joined ? "linear" : "hv"}};
  return [{...common, y: low}, {...common, y: high, fill: "tonexty", fillcolor: `rgba(${rgb(c)},0.18)`}];
}

function background(p, layout, node) {
  const [x0, x1] = layout.xaxis.range, wide = node.clientWidth - layout.margin.l - layout.margin.r, tone = rgb(css("band"));
  for (const [start, end, strength, text] of p.bands) {
    layout.shapes.push({type: "rect", layer: "below", xref: "x", yref: "paper", x0: ms(start), x1: ms(end), y0: 0, y1: 1, line: {width: 0},
      fillcolor: `rgba(${tone},${0.05 + 0.27 * strength})`});
    if (text && wide * (end - start) * 1000 / (x1 - x0) > 6.2 * text.length)
      layout.annotations.push({xref: "x", yref: "paper", x: (ms(start) + ms(end)) / 2, y: 1, yanchor: "top", text: plain(text), showarrow: false, font: {size: 11, color: css("soft")}});
  }
  for (const [value, text] of p.rules) {
    layout.shapes.push({type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value, line: {width: 1, color: css("muted"), dash: "4px,3px"}});
    layout.annotations.push({xref: "paper", x: 1, xanchor: "right", y: p.log ? Math.log10(value) : value, yanchor: "bottom", text: plain(text), showarrow: false,
      font: {size: 11, color: css("soft")}});
  }
}

function endLabels(labels, p, layout, node) {
  // spread in pixels so that no two words overlap, keeping their order
  const tall = node.clientHeight - layout.margin.t - layout.margin.b, [a, b] = layout.yaxis.range, gap = 13.5;
  const px = v => (1 - ((p.log ? Math.log10(v) : v) - a) / (b - a)) * tall;
  const rows = labels.map(l => ({...l, at: px(l.y)})).sort((m, n) => m.at - n.at);
  for (let k = 1; k < rows.length; k++) rows[k].at = Math.max(rows[k].at, rows[k - 1].at + gap);
  let floor = tall - 2;
  for (let k = rows.length - 1; k >= 0; k--) { rows[k].at = Math.min(rows[k].at, floor); floor = rows[k].at - gap; }
  for (const l of rows)
    layout.annotations.push({xref: "paper", yref: "paper", x: 1, xanchor: "left", xshift: 5, y: 1 - l.at / tall, yanchor: "middle", showarrow: false,
      text: plain(l.text), font: {size: 12, color: l.c}});
}

// A layer's word stands in it, where it has most room; without room it is left to the hover and the caption.
function layerLabel({text, c, low, top, x}, layout, node) {
  const wide = node.clientWidth - layout.margin.l - layout.margin.r, tall = node.clientHeight - layout.margin.t - layout.margin.b;
  const [a, b] = layout.xaxis.range, need = 6.6 * text.length + 10, width = Math.ceil(need / wide * (b - a) / (x[1] - x[0]));
  if (!text) return;
  let best = 0, at = -1, y = 0;
  for (let k = 0; k + width < x.length; k++) {
    if (x[k] < a || x[k + width] > b) continue;
    let floor = -Infinity, roof = Infinity;
    for (let i = k; i <= k + width; i++) { floor = Math.max(floor, low[i]); roof = Math.min(roof, top[i]); }
    if (roof - floor > best + 1e-9) { best = roof - floor; at = k; y = (roof + floor) / 2; }
  }
  if (at < 0 || best / (layout.yaxis.range[1] - layout.yaxis.range[0]) * tall < 13) return;
  layout.annotations.push({x: (x[at] + x[at + width]) / 2, y, text: plain(text), showarrow: false, font: {size: 12, color: onColour(c)}});
}

function heatPlot(p, node) {
  const h = p.heat, layout = base(p, node), x = array(h.x), flat = array(h.z), rows = flat.length / h.n, z = [];
  for (let k = 0; k < rows; k++) z.push(Array.from(flat.subarray(k * h.n, (k + 1) * h.n), v => Number.isNaN(v) ? null : v));
  const flag = h.scale === "flag", stops = RAMP[state.theme];
  const trace = {type: "heatmap", x: dates(x), z, zsmooth: false, showscale: !flag, hoverongaps: false,
    colorscale: flag ? [[0, mix(css("ink"), css("bg"), 0.07)], [1, css("ink")]] : stops.map((c, k) => [k / (stops.length - 1), c]),
    ...(flag ? {zmin: 0, zmax: 1} : {}),
    colorbar: {thickness: 9, len: 0.9, y: 0.45, outlinewidth: 0, tickfont: {size: 11, color: css("soft")}, nticks: 4, title: {text: plain(h.unit), font: {size: 11}}, xpad: 4}};
  layout.hovermode = "closest";
  p.linked = !h.y;
  layout.xaxis.range = viewOf(p, [ms(x[0]), ms(x[x.length - 1])]);
  if (h.y) {
    const y = array(h.y);
    trace.y = dates(y);
    trace.hovertemplate = `${plain(h.y_says)} %{y|${hover()}}<br>${plain(h.x_says)} %{x|${hover()}}<br>%{z} ${plain(h.unit)}` + "<extra></extra>";
    Object.assign(layout.yaxis, {type: "date", range: [ms(y[0]), ms(y[y.length - 1])]});
    layout.shapes.push({type: "line", x0: ms(y[0]), y0: ms(y[0]), x1: ms(y[y.length - 1]), y1: ms(y[y.length - 1]), line: {color: css("muted"), width: 1, dash: "2px,3px"}});
    layout.annotations.push({xref: "paper", yref: "paper", x: 0.02, y: 0.98, text: `${plain(h.y_says)} \u2191   ${plain(h.x_says)} \u2192`, showarrow: false, font: {size: 11, color: css("soft")}});
  } else {
    trace.y = h.rows.map((_, k) => k);
    trace.customdata = h.rows.map(r => Array(h.n).fill(plain(r)));
    trace.hovertemplate = `%{customdata}, %{x|${hover()}}<br>` + "%{z:,.4~g} " + (flag ? "" : plain(h.unit)) + "<extra></extra>";
    const every = Math.max(1, Math.ceil(h.rows.length * 13 / (node.clientHeight - 32)));
    const shown = h.rows.map((r, k) => k).filter(k => k % every === 0);
    Object.assign(layout.yaxis, {tickvals: shown, ticktext: shown.map(k => plain(short(h.rows[k]))), showgrid: false});
    layout.margin.l = 14 + 6.8 * Math.max(...h.rows.map(r => short(r).length));
  }
  layout.margin.r = flag ? 12 : 66;
  return [[trace], layout];
}

function spreadPlot(p, node) {
  const layout = base(p, node), rows = p.spreads, traces = [], narrow = node.clientWidth < 560;
  const marks = ["circle-open", "diamond", "square"], names = rows[0][2].map(q => q[0]);
  const words = v => v < 1 ? figure(v * 60, 2) + " s" : v < 180 ? figure(v, 2) + " min" : figure(v / 60, 2) + " h";
  rows.forEach((r, k) => traces.push({type: "scatter", mode: "lines", x: [r[2][0][1], r[2][r[2].length - 1][1]], y: [k, k], line: {color: css("ink"), width: 2}, hoverinfo: "skip"}));
  names.forEach((name, q) => traces.push({type: "scatter", mode: "markers", name, x: rows.map(r => r[2][q][1]), y: rows.map((_, k) => k),
    marker: {symbol: marks[q], size: 10, color: css(q === 1 ? "accent" : "ink")}, text: rows.map(r => plain(`${r[0]}: ${name} within ${words(r[2][q][1])}`)),
    hovertemplate: "%{text}<extra></extra>"}));
  rows.forEach((r, k) => {
    layout.annotations.push({x: Math.log10(r[2][1][1]), y: k, yshift: 15, text: `95 %: ${words(r[2][1][1])}`, showarrow: false, font: {size: 11, color: css("accent")}});
    layout.annotations.push({x: Math.log10(r[3]), y: k, yshift: -20, text: narrow ? words(r[3]) : "limit " + words(r[3]), showarrow: false, font: {size: 11, color: css("alarm")}});
  });
  traces.push({type: "scatter", mode: "markers", x: rows.map(r => r[3]), y: rows.map((_, k) => k), marker: {symbol: "line-ns-open", size: 13, color: css("alarm"), line: {width: 2.5}},
    text: rows.map(r => plain(`${r[0]}: limit ${words(r[3])}`)), hovertemplate: "%{text}<extra></extra>"});
  const all = rows.flatMap(r => [r[3], ...r[2].map(q => q[1])]);
  layout.hovermode = "closest";
  layout.dragmode = false;
  const vals = [1 / 60, 0.1, 1, 10, 60, 600, 1440 * 4];
  layout.xaxis = {...layout.xaxis, type: "log", range: [Math.log10(Math.min(...all)) - 0.25, Math.log10(Math.max(...all)) + 0.35], showgrid: true, tickvals: vals,
    ticktext: ["1 s", "6 s", "1 min", "10 min", "1 h", "10 h", "4 d"], fixedrange: true, hoverformat: ""};
  Object.assign(layout.yaxis, {range: [-0.6, rows.length - 0.4], tickvals: rows.map((_, k) => k), showgrid: false,
    ticktext: rows.map(r => narrow ? plain(short(r[0], 16)) : `${plain(short(r[0]))}<br><span style="color:${css("muted")};font-size:11px">${plain(r[1])}</span>`)});
  layout.margin.l = 18 + Math.max(...rows.map(r => narrow ? 6.8 * short(r[0], 16).length : Math.max(7 * short(r[0]).length, 6 * r[1].length)));
  p.linked = false;
  return [traces, layout];
}

function eventPlot(p, node) {
  const layout = base(p, node), kinds = [...new Set(p.events.map(e => e[1]))], marks = ["circle", "square", "diamond", "triangle-up", "x"];
  const top = Math.max(...p.events.map(e => e[3]), 1);
  const traces = kinds.map((kind, k) => {
    const mine = p.events.filter(e => e[1] === kind);
    return {type: "scatter", mode: "markers", name: plain(kind), x: mine.map(e => ms(e[0])), y: mine.map(() => k), customdata: mine.map(e => e[0]),
      text: mine.map(e => plain(`${clock(e[0])} ${e[2]}: ${e[4]}`)), hovertemplate: "%{text}<extra></extra>",
      marker: {symbol: marks[k % 5], size: mine.map(e => 8 + 16 * Math.sqrt(e[3] / top)), color: css("alarm"), opacity: 0.65, line: {width: 1, color: css("bg")}}};
  });
  layout.hovermode = "closest";
  layout.xaxis.range = viewOf(p, [ms(0), ms(DATA.end)]);
  Object.assign(layout.yaxis, {range: [-0.6, kinds.length - 0.4], tickvals: kinds.map((_, k) => k), ticktext: kinds.map(k => plain(k))});
  layout.margin.l = 16 + 6.8 * Math.max(...kinds.map(k => k.length));
  return [traces, layout];
}

const DRAW = {series: seriesPlot, heat: heatPlot, spreads: spreadPlot, events: eventPlot};

function drawPlot(k) {
  const p = DATA.plots[k], node = el("plot" + k);
  const [traces, layout] = DRAW[p.kind](p, node);
  const inner = [node.clientWidth - layout.margin.l - layout.margin.r, node.clientHeight - layout.margin.t - layout.margin.b];
  if (layout.xaxis.type === "date") { timeTicks(layout.xaxis, inner[0], 58); zone(layout, inner[0]); }
  if (layout.yaxis.type === "date") timeTicks(layout.yaxis, inner[1], 36);
  const first = !p.drawn;
  p.drawn = true; p.wide = node.clientWidth;
  state.dirty.delete(k);
  layout.width = node.clientWidth; layout.height = node.clientHeight; // plotly would keep those it was first drawn at
  Plotly.react(node, traces, layout, {displayModeBar: false, responsive: false, doubleClick: false, showTips: false});
  if (first) {
    const line = document.createElement("div");
    line.className = "cursor";
    node.appendChild(line);
    node.on("plotly_relayout", change => zoomed(k, change));
    node.on("plotly_doubleclick", () => zoomAll(null));
    node.on("plotly_click", event => choose((p.kind === "events" ? event.points[0].customdata : null) ?? secondsOf(p, event.points[0].x)));
  }
  moveCursor(k);
}
const secondsOf = (p, x) => p.linked === false ? null : ((typeof x === "number" ? x : Date.parse(String(x).replace(" ", "T") + (String(x).length > 10 ? "Z" : ""))) - START) / 1000;

function zoomed(k, change) {
  if (DATA.plots[k].linked === false || change["xaxis.range[0]"] === undefined) return;
  const read = v => typeof v === "number" ? v : Date.parse(String(v).replace(" ", "T") + (String(v).length > 10 ? "Z" : ""));
  zoomAll([read(change["xaxis.range[0]"]), read(change["xaxis.range[1]"])]);
}
function zoomAll(range) {
  if (String(range) === String(state.range)) return;
  state.range = range;
  el("reset").hidden = !range;
  DATA.plots.forEach((p, k) => { if (p.drawn && p.linked !== false) state.dirty.add(k); });
  refresh();
}
function refresh() { for (const k of [...state.dirty]) if (DATA.plots[k].visible) drawPlot(k); }
function redrawPlots() { DATA.plots.forEach((p, k) => { if (p.drawn) state.dirty.add(k); }); refresh(); }

function moveCursor(k) {
  const p = DATA.plots[k], node = el("plot" + k), line = node.querySelector(".cursor");
  if (!line) return;
  const axis = node._fullLayout && node._fullLayout.xaxis;
  const at = state.time === null || p.linked === false || !axis ? -1 : axis.d2p(ms(state.time));
  line.style.display = at >= 0 && at <= (axis ? axis._length : 0) ? "block" : "none";
  if (at >= 0) line.style.left = axis._offset + at + "px";
}

function watchPlots() {
  const seen = new IntersectionObserver(entries => entries.forEach(e => {
    const k = +e.target.id.slice(4), p = DATA.plots[k];
    p.visible = e.isIntersecting;
    if (e.isIntersecting && (!p.drawn || state.dirty.has(k))) drawPlot(k);
  }), {rootMargin: "300px"});
  DATA.plots.forEach((_, k) => seen.observe(el("plot" + k)));
  let timer;
  addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(() => {
    DATA.plots.forEach((p, k) => { if (p.drawn && p.wide !== el("plot" + k).clientWidth) state.dirty.add(k); });
    refresh(); redrawMaps();
  }, 150); });
  el("reset").addEventListener("click", () => zoomAll(null));
  addEventListener("beforeprint", toPaper);
  addEventListener("afterprint", fromPaper);
  matchMedia("print").addEventListener("change", e => e.matches ? toPaper() : fromPaper());
}

// On paper: light, all of the time, as wide as a page, everything drawn.
let onScreen = null;
function toPaper() {
  if (onScreen) return;
  onScreen = {theme: state.theme, range: state.range};
  state.printing = true; state.range = null;
  document.documentElement.classList.add("printing");
  onScreen.folded = [...document.querySelectorAll("details.charts:not([open])")];
  for (const charts of onScreen.folded) charts.open = true;
  setTheme("light", false);
  DATA.plots.forEach((_, k) => drawPlot(k));
  redrawMaps();
  for (const box of document.querySelectorAll(".scroll")) box.firstChild.style.zoom = Math.min(1, box.clientWidth / box.scrollWidth);
}
function fromPaper() {
  if (!onScreen) return;
  const {theme, range, folded} = onScreen;
  for (const charts of folded) charts.open = false;
  onScreen = null; state.printing = false; state.range = range;
  document.documentElement.classList.remove("printing");
  for (const box of document.querySelectorAll(".scroll")) box.firstChild.style.zoom = "";
  setTheme(theme);
}
