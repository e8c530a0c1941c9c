// Distributions: generation seconds per endpoint as boxes, and sizes, image fetch and save as histograms.

const FEW = 8;

/** Return for each endpoint of a run what its generations took, the slowest first. */
function pacesOf(told, run) {
  const { attempts, ends } = told;
  const [from, until] = rangeOf(attempts.run, run);
  const saved = ends.indexOf("saved");
  const taken = new Map();
  for (let n = from; n < until; n++) {
    if (attempts.end[n] !== saved) continue;
    const endpoint = attempts.endpoint[n];
    if (!taken.has(endpoint)) taken.set(endpoint, []);
    taken.get(endpoint).push(attempts.generate_s[n]);
  }
  const paces = [...taken].map(([endpoint, seconds]) => {
    const sorted = Float64Array.from(seconds).sort();
    const [p5, low, median, high, p95] = [0.05, 0.25, 0.5, 0.75, 0.95].map((share) => quantile(sorted, share));
    return { endpoint, name: told.endpoints[endpoint].name, sorted, p5, low, median, high, p95 };
  });
  const medians = Float64Array.from(paces, (one) => one.median).sort();
  for (const one of paces) {
    const at = firstAtLeast(medians, one.median);
    const others = Float64Array.from([...medians.subarray(0, at), ...medians.subarray(at + 1)]);
    one.times = others.length ? one.median / quantile(others, 0.5) : 1;
    one.slow = told.runs[run].turns.find((turn) => turn.endpoint === one.endpoint)?.slow ?? false;
  }
  return paces.sort((a, b) => b.median - a.median);
}

/** Return a step such that a few of them make up most: 1, 2 or 5 times a power of ten. */
function niceStep(most, few) {
  const rough = most / few;
  const power = 10 ** Math.floor(Math.log10(rough || 1));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough) ?? power;
}

function boxPlots(told, run) {
  const paces = pacesOf(told, run);
  if (!paces.length) return make("p", { class: "empty" }, "No generation gave a result in this run.");
  const most = Math.max(...paces.map((one) => Math.max(one.p95, one.high * 1.15)), 0.001) * 1.04;
  const step = niceStep(most, 6);
  const percent = (seconds) => `${(100 * Math.min(seconds, most)) / most}%`;
  const ticks = [];
  for (let at = 0; at <= most; at += step) ticks.push(make("span", { style: { left: percent(at) } }, `${Number(at.toPrecision(6))}`));
  const row = (one) => {
    const beyond = one.sorted.length - firstAtLeast(one.sorted, one.p95 + 1e-9);
    const dots = one.sorted.length <= 4000 || beyond <= 40 ? [...one.sorted.slice(-Math.min(beyond, 12)), ...one.sorted.slice(0, Math.min(6, firstAtLeast(one.sorted, one.p5)))] : [one.sorted[0], one.sorted[one.sorted.length - 1]];
    const said = `${one.name}: median ${asLength(one.median)}, half of them from ${asLength(one.low)} to ${asLength(one.high)}, 5 % under ${asLength(one.p5)}, 5 % over ${asLength(one.p95)}, longest ${asLength(one.sorted[one.sorted.length - 1])}; ${several(one.sorted.length, "result")}`;
    return make("div", { class: `bp-row${one.slow ? " slow" : ""}`, title: said, role: "img", "aria-label": said },
      make("span", { class: "name" }, one.name),
      make("span", { class: "bp-track" },
        make("i", { class: "bp-whisker", style: { left: percent(one.p5), width: `calc(${percent(one.p95)} - ${percent(one.p5)})` } }),
        make("i", { class: "bp-box", style: { left: percent(one.low), width: `calc(${percent(one.high)} - ${percent(one.low)})` } }),
        make("i", { class: "bp-median", style: { left: percent(one.median) } }),
        ...dots.map((seconds) => make("i", { class: seconds > most ? "bp-dot over" : "bp-dot", style: { left: percent(seconds) } }))),
      make("span", { class: "bp-says" }, make("b", {}, asLength(one.median)), one.times >= 1.3 && paces.length > 1 ? make("span", { class: one.slow ? "badge slow" : "muted" }, `${one.times.toFixed(1)} × the others`) : make("span", { class: "muted" }, several(one.sorted.length, "result"))));
  };
  return make("div", { class: "bp", tabindex: paces.length > 20 ? "0" : null, role: "group", "aria-label": "Generation seconds by endpoint" },
    ...paces.map(row),
    make("div", { class: "bp-row bp-axis" }, make("span", { class: "muted" }, "seconds"), make("span", { class: "bp-track" }, ...ticks), make("span", {})));
}

/** Return counts of values in equal bins up to their 99th percentile; the last bin has all above. */
function binned(sorted) {
  const low = sorted[0];
  const high = Math.max(quantile(sorted, 0.99), low + 1e-9);
  const bins = sorted[0] === sorted[sorted.length - 1] ? 1 : Math.max(FEW, Math.min(36, Math.round(Math.sqrt(sorted.length) * 1.6)));
  const begin = low < high * 0.25 ? 0 : low;
  const width = (high - begin) / bins || 1;
  const counts = new Array(bins).fill(0);
  for (const value of sorted) counts[Math.min(bins - 1, Math.floor((value - begin) / width))]++;
  return { counts, begin, width, beyond: sorted[sorted.length - 1] > high };
}

const histograms = [];

function histogram(title, values, words, none) {
  const sorted = Float64Array.from(values).sort();
  const says = sorted.length ? `median ${words(quantile(sorted, 0.5))}, 5 % over ${words(quantile(sorted, 0.95))}` : "";
  const plot = make("div", { class: "hg-plot" });
  const figure = make("figure", { class: "hg" }, make("figcaption", {}, make("b", {}, title), make("span", { class: "muted" }, says)), sorted.length ? plot : make("p", { class: "empty" }, none));
  if (sorted.length) histograms.push({ plot, title, words, ...binned(sorted), chart: null });
  return figure;
}

function drawHistogram(one) {
  one.chart ??= echarts.init(one.plot, null, { renderer: "canvas", height: 132, width: one.plot.clientWidth || 300 });
  one.chart.resize({ width: one.plot.clientWidth || 300, height: 132 });
  const edge = (bin) => one.begin + bin * one.width;
  const label = { color: theme.colour("muted"), fontSize: 11, fontFamily: getComputedStyle(document.body).fontFamily };
  one.chart.setOption({
    animation: false,
    grid: { left: 4, right: 8, top: 8, bottom: 20, containLabel: false },
    tooltip: {
      trigger: "axis", axisPointer: { type: "shadow", shadowStyle: { color: theme.colour("hair") } }, confine: true, renderMode: "html",
      backgroundColor: theme.colour("panel"), borderColor: theme.colour("line"), textStyle: { color: theme.colour("text"), fontSize: 12 },
      formatter: (found) => {
        const bin = found[0].dataIndex;
        const last = bin === one.counts.length - 1 && one.beyond;
        return `${asNumber(one.counts[bin])} of ${one.words(edge(bin))}${last ? " and more" : ` to ${one.words(edge(bin + 1))}`}`;
      },
    },
    xAxis: {
      type: "category", data: one.counts.map((_, bin) => one.words(edge(bin))),
      axisLabel: { ...label, interval: Math.max(1, Math.ceil(one.counts.length / 4)) - 1, hideOverlap: true }, axisTick: { show: false }, axisLine: { lineStyle: { color: theme.colour("line") } },
    },
    yAxis: { type: "value", show: false },
    series: [{ type: "bar", data: one.counts, barCategoryGap: "12%", barMaxWidth: 60, itemStyle: { color: theme.colour("accent-soft"), borderRadius: [2, 2, 0, 0] }, emphasis: { itemStyle: { color: theme.colour("accent") } } }],
  });
}

/** Draw the distributions of a run into the page. */
function showSpread(told, run) {
  for (const one of histograms.splice(0)) one.chart?.dispose();
  const { rows } = told;
  const saved = told.states.indexOf("saved");
  const mine = [];
  for (let row = 0; row < rows.keys.length; row++) if (rows.run[row] === run) mine.push(row);
  const done = mine.filter((row) => rows.state[row] === saved && rows.size_bytes[row] > 0);
  const times = (column) => mine.map((row) => rows[column][row]).filter((seconds) => seconds > 0);
  const figures = make("div", { class: "hgs" },
    histogram("Size of a result", done.map((row) => rows.size_bytes[row]), asSize, "This run has no result here."),
    histogram("Fetching an image", times("image_s"), asLength, "No image was fetched."),
    histogram("Verifying and saving", times("save_s"), asLength, "Nothing was saved."));
  byId("distributions-view").replaceChildren(make("h3", {}, "Seconds of a generation, by endpoint"), boxPlots(told, run), figures);
  byId("distributions-say").textContent = !document.querySelector(".bp") ? "" : "Box: the middle half. Line: the median. Whiskers: all but the quickest and the slowest 5 %.";
  histograms.forEach(drawHistogram);
}

theme.onChange(() => histograms.forEach(drawHistogram));
let spreadWidth = 0;
new ResizeObserver(([entry]) => {
  if (Math.abs(entry.contentRect.width - spreadWidth) < 1) return;
  spreadWidth = entry.contentRect.width;
  requestAnimationFrame(() => histograms.forEach(drawHistogram));
}).observe(byId("distributions-view"));
