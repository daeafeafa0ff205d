// Theme first, so that nothing flashes; then the data; then the pictures as they come into view.
const wished = matchMedia("(prefers-color-scheme: dark)");
setTheme(wished.matches ? "dark" : "light", false);
let ready = false, chosen = false;
el("theme").addEventListener("click", () => { chosen = true; setTheme(state.theme === "dark" ? "light" : "dark", ready); });
wished.addEventListener("change", () => { if (!chosen) setTheme(wished.matches ? "dark" : "light", ready); });

async function boot() {
  if (typeof DecompressionStream === "undefined") throw new Error("it is older than 2023");
  const [code, data] = await Promise.all([unpack("plotly-gz"), unpack("data-gz")]);
  const script = document.createElement("script");
  script.textContent = new TextDecoder().decode(code);
  document.head.appendChild(script);
  BYTES = data;
  const length = new DataView(data).getUint32(0, true);
  DATA = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 8, length)));
  DATA.base = 8 + length;
  START = DATA.start ? Date.parse(DATA.start) : 0;
  prepareMaps();
  redrawMaps();
  if (views.length) choose(views.times[Math.floor(views.times.length / 2)], false);
  watchPlots();
  watchTables();
  for (const time of document.querySelectorAll("time[data-s]")) time.textContent = clock(+time.dataset.s);
  ready = true;
  document.addEventListener("click", event => {
    const save = event.target.closest("[data-get]");
    if (save) return SAVE[save.dataset.get](save.dataset.of);
    const button = event.target.closest("[data-t]");
    if (!button) return;
    choose(+button.dataset.t);
    if (views.length) el("map").scrollIntoView();
  });
  document.documentElement.dataset.ready = "yes";
}
boot().catch(error => {
  el("broken").hidden = false;
  el("broken").textContent = "This browser cannot draw the pictures (" + error.message + "); text and tables are complete.";
  console.error(error);
});
