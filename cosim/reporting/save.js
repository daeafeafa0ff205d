// A chart as a file: its data as CSV, its picture as PNG; made here, from a file:// page too.
const SAVE = {csv: of => saveCsv(of), png: of => savePng(of)};

function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
const fileName = (text, ending) => text.replace(/[^\w]+/g, "_").replace(/^_+|_+$/g, "").slice(0, 80) + ending;

// A text that a spreadsheet would take for a formula begins with an apostrophe.
// Values are packed with 24 bits: seven digits of them are data.
function csvCell(value) {
  if (typeof value === "number") return Number.isFinite(value) ? String(Number.isInteger(value) ? value : +value.toPrecision(7)) : "";
  const text = /^[\s"']*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[ "']*[\t\r\n]/.test(value) ? "'" + value : value;
  return /[",;\r\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
}
const csvOf = rows => "\ufeff" + rows.map(row => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
const iso = seconds => DATA.start ? new Date(ms(seconds)).toISOString().replace(".000Z", "Z") : "";
const timed = (names, times, cells) => [["time_s", ...(DATA.start ? ["time_utc"] : []), ...names], ...times.map((t, k) => [t, ...(DATA.start ? [iso(t)] : []), ...cells(t, k)])];
const withUnit = (name, unit) => unit ? `${name} [${unit}]` : name;

function rowsOf(p) {
  if (p.kind === "series") {
    const columns = p.series.flatMap(s => [[s.name, s.y, s.t], ...(s.reach ? [[s.name + ", lowest", s.reach[0], s.t], [s.name + ", highest", s.reach[1], s.t]] : [])]);
    const maps = columns.map(([, y, t]) => { const at = array(t), of = array(y); return new Map(Array.from(at, (v, k) => [v, of[k]])); });
    const times = [...new Set(maps.flatMap(m => [...m.keys()]))].sort((a, b) => a - b);
    return timed(columns.map(c => withUnit(c[0], p.unit)), times, t => maps.map(m => m.has(t) ? m.get(t) : NaN));
  }
  if (p.kind === "heat") {
    const h = p.heat, x = array(h.x), z = array(h.z), n = h.n;
    if (!h.y) return timed(h.rows.map(r => withUnit(r, h.unit)), Array.from(x.subarray(0, n)), (_, k) => h.rows.map((_, r) => z[r * n + k]));
    const y = array(h.y), rows = [[`${h.y_says}, s`, `${h.x_says}, s`, h.unit]];
    for (let r = 0; r < z.length / n; r++) for (let k = 0; k < n; k++) if (Number.isFinite(z[r * n + k])) rows.push([y[r], x[k], z[r * n + k]]);
    return rows;
  }
  if (p.kind === "spreads") return [["name", "what", ...p.spreads[0][2].map(q => `${q[0]} [min]`), "limit [min]"], ...p.spreads.map(r => [r[0], r[1], ...r[2].map(q => q[1]), r[3]])];
  return timed(["kind", "where", "count", "what"], p.events.map(e => e[0]), (_, k) => p.events[k].slice(1));
}

function rowsOfMap(m) {
  const n = m.nodes.length, names = m.levels.map(level => withUnit(level.title, level.unit)), rows = [["time_s", ...(DATA.start ? ["time_utc"] : []), "node", ...names]];
  m.t.forEach((t, k) => m.nodes.forEach((node, i) => rows.push([t, ...(DATA.start ? [iso(t)] : []), node.name, ...m.levels.map(level => m.level[level.key][k * n + i])])));
  return rows;
}

function saveCsv(of) {
  const number = +of.replace(/\D+/, ""), p = of.startsWith("map") ? null : DATA.plots[number];
  save(fileName(p ? `${p.key} ${p.title}` : "map", ".csv"), new Blob([csvOf(p ? rowsOf(p) : rowsOfMap(views[number].m))], {type: "text/csv"}));
}

async function savePng(of) {
  const number = +of.replace(/\D+/, "");
  if (of.startsWith("map")) return saveMap(views[number]);
  const p = DATA.plots[number], node = el(of), above = 30;
  if (!p.drawn || state.dirty.has(number)) drawPlot(number);
  const title = {xref: "paper", yref: "paper", x: 0, xanchor: "left", xshift: -40, y: 1, yanchor: "bottom", yshift: 12, text: plain(withUnit(p.title, p.unit)), showarrow: false, font: {size: 14, color: css("ink")}};
  const {width, height, margin} = node._fullLayout;
  const url = await Plotly.toImage({data: node.data, layout: {...node.layout, paper_bgcolor: css("bg"), annotations: [...node.layout.annotations, title], margin: {...margin, t: margin.t + above}}},
    {format: "png", width, height: height + above, scale: 3});
  const bytes = Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), c => c.charCodeAt(0));
  save(fileName(`${p.key} ${p.title}`, ".png"), new Blob([bytes], {type: "image/png"}));
}

// The map's styles are the page's: they go into a copy, which becomes an image.
function saveMap(v) {
  const shown = v.box.querySelector("svg"), copy = shown.cloneNode(true), box = shown.getBoundingClientRect(), scale = 3;
  const from = shown.querySelectorAll("text, tspan");
  copy.querySelectorAll("text, tspan").forEach((text, k) => {
    const style = getComputedStyle(from[k]);
    for (const name of ["fill", "stroke", "stroke-width", "paint-order", "font-family", "font-size", "font-weight"]) text.style.setProperty(name, style.getPropertyValue(name));
  });
  copy.setAttribute("width", box.width); copy.setAttribute("height", box.height);
  const url = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], {type: "image/svg+xml"})), image = new Image();
  image.onload = () => {
    const canvas = document.createElement("canvas");
    canvas.width = box.width * scale; canvas.height = box.height * scale;
    const to = canvas.getContext("2d");
    to.fillStyle = css("bg"); to.fillRect(0, 0, canvas.width, canvas.height);
    to.drawImage(image, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(url);
    canvas.toBlob(blob => save(`map_${clock(state.time ?? v.m.t[v.at]).replace(/\D+/g, "")}.png`, blob), "image/png");
  };
  image.src = url;
}

// A table that is wider than its place says so until its end is in view; of a column that is not wholly in view nothing
// is shown, as half of a number reads like another number.
function watchTables() {
  const look = box => {
    const wide = box.scrollWidth > box.clientWidth + 1, rows = [...box.querySelectorAll("tr")], edge = box.getBoundingClientRect();
    box.parentElement.classList.toggle("wide", wide);
    const first = rows[0].cells[0].getBoundingClientRect().right;
    for (let k = 1; k < rows[0].cells.length; k++) {
      const cells = rows.map(row => row.cells[k]).filter(Boolean), pad = parseFloat(getComputedStyle(cells[0]).paddingLeft);
      const at = cells[0].getBoundingClientRect(), cut = !state.printing && wide && (at.right > edge.right + 1 || at.left + pad < first - 1);
      if (cells[0].classList.contains("cut") !== cut) for (const cell of cells) cell.classList.toggle("cut", cut);
    }
    box.parentElement.classList.toggle("end", box.scrollLeft + box.clientWidth >= box.scrollWidth - 2);
  };
  const sizes = new ResizeObserver(entries => entries.forEach(e => look(e.target)));
  for (const box of document.querySelectorAll(".scroll")) {
    sizes.observe(box); look(box);
    box.addEventListener("scroll", () => look(box), {passive: true});
  }
}
