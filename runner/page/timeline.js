// The timeline: rows of bars that scroll, over an axis that zooms. Draws only the rows that are to be seen.

const AXIS = 30;
const PAINT = ["why-start", "why-over", "why-end", "why-unheard", "why-client", "why-receive", "why-image", "why-wait", "why-out", "outage", "tail", "dropped", "saved", "interrupted", "retried", "failed", "moved"];

function makeTimeline(told, host) {
  const labels = make("div", { class: "tl-labels" });
  const plot = make("div", { class: "tl-plot" });
  const sides = make("div", { class: "tl-sides" });
  const canvas = make("div", { class: "tl-canvas" });
  const hover = make("div", { class: "tl-hover", hidden: true });
  const brush = make("div", { class: "tl-brush", hidden: true });
  plot.append(canvas, hover, brush);
  const inner = make("div", { class: "tl-inner" }, labels, plot, sides);
  const box = make("div", { class: "tl-box", tabindex: "0", role: "group", "aria-label": "Timeline: + and − zoom, the arrows move, 0 shows the whole run" }, inner);
  const overview = make("div", { class: "tl-overview" });
  const legend = make("ul", { class: "legend tl-legend" });
  host.append(box, overview, legend);
  const line = {
    told, host, box, inner, labels, plot, sides, canvas, hover, brush, overview, legend,
    run: 0, blocks: [], order: "list", fits: false, compact: 0,
    view: { from: 0, until: 1, left: 8, width: 100 }, chart: null, waiting: false, listeners: [],
  };
  registerShapes();
  line.chart = echarts.init(canvas, null, { renderer: "canvas", width: 100, height: 100 });
  box.addEventListener("scroll", () => redraw(line), { passive: true });
  let width = 0;
  new ResizeObserver(() => {
    if (host.clientWidth === width) return;
    width = host.clientWidth;
    requestAnimationFrame(() => arrange(line));
  }).observe(host);
  theme.onChange(() => (styleAxis(line), redraw(line)));
  return line;
}

function registerShapes() {
  echarts.graphic.registerShape("boxes", echarts.graphic.extendShape({
    shape: { boxes: [] },
    buildPath(path, { boxes }) {
      for (let n = 0; n < boxes.length; n += 4) path.rect(boxes[n], boxes[n + 1], boxes[n + 2], boxes[n + 3]);
    },
  }));
  echarts.graphic.registerShape("arrows", echarts.graphic.extendShape({
    shape: { boxes: [] },
    buildPath(path, { boxes }) {
      for (let n = 0; n < boxes.length; n += 4) {
        path.moveTo(boxes[n] - 1, boxes[n + 1] - 1);
        path.lineTo(boxes[n] + 7, boxes[n + 1] - 1);
        path.lineTo(boxes[n] + 3, boxes[n + 1] + 5);
        path.closePath();
      }
    },
  }));
}

/** Show a run from beginning to end. */
function showRun(line, run) {
  line.run = run;
  line.blocks = blocksOf(line.told, run).sort(ORDERS[line.order]);
  line.began = Date.parse(line.told.runs[run].began_at) || 0;
  line.seconds = Math.max(line.told.runs[run].seconds, lastSecond(line), 0.001);
  Object.assign(line.view, { from: 0, until: line.seconds });
  line.box.scrollTop = 0;
  styleAxis(line);
  tellLegend(line);
  arrange(line);
}

function lastSecond(line) {
  const { attempts } = line.told;
  let last = 0;
  for (const block of line.blocks) {
    for (const places of block.slots) {
      if (!places.length) continue;
      const place = places[places.length - 1];
      last = Math.max(last, attempts.start_s[place] + attempts.generate_s[place] + attempts.receive_s[place]);
    }
  }
  return last;
}

/** Give every row its place and height, and name it. */
function arrange(line) {
  const { box, blocks } = line;
  if (!blocks.length || !box.clientWidth) return;
  const narrow = box.clientWidth < 620;
  const roomy = blocks.length <= 60;
  const most = Math.min(Math.max(360, window.innerHeight * 0.7), 720);
  const label = narrow ? 17 : 0;
  let slot = (count) => (count === 1 ? (roomy ? 24 : 15) : count <= 4 ? (roomy ? 12 : 8) : 6);
  let pad = roomy ? 3 : 2;
  const wanted = blocks.reduce((sum, one) => sum + label + one.slots.length * slot(one.slots.length) + 2 * pad, 0);
  byId("timeline-fit").hidden = wanted <= most && !line.fits;
  if (line.fits) {
    const rows = blocks.reduce((sum, one) => sum + one.slots.length, 0);
    const each = Math.max(1, Math.min(15, (most - AXIS) / rows));
    pad = each >= 6 ? 1 : 0;
    slot = () => each - (2 * pad * blocks.length) / rows;
  }
  let y = AXIS;
  for (const block of blocks) {
    block.label = line.fits ? 0 : label;
    block.slotHeight = slot(block.slots.length);
    block.pad = pad;
    block.y = y;
    block.height = block.label + block.slots.length * block.slotHeight + 2 * pad;
    y += block.height;
  }
  line.narrow = narrow;
  line.height = Math.ceil(y) + 2;
  line.inner.style.height = `${line.height}px`;
  box.style.height = `${Math.min(line.height, most)}px`;
  box.classList.toggle("narrow", narrow);
  box.classList.toggle("bare", line.fits && blocks.every((block) => block.height < 10));
  nameRows(line);
  line.chart.resize({ width: line.plot.clientWidth, height: box.clientHeight });
  line.canvas.style.height = `${box.clientHeight}px`;
  line.view.width = line.plot.clientWidth - line.view.left - 10;
  redraw(line);
}

function nameRows(line) {
  const { told, run } = line;
  const names = [make("div", { class: "tl-corner" }, line.narrow ? "" : "Endpoint")];
  const sides = [make("div", { class: "tl-corner" }, "Busy, and why it was idle")];
  for (const block of line.blocks) {
    const readable = block.height >= 10;
    const at = { top: `${block.y}px`, height: `${line.narrow ? block.label + 2 : block.height}px` };
    const isHeard = block.slots.some((places) => places.length) || !["killed", null].includes(told.runs[run].ended);
    const busy = !block.turn ? "" : isHeard ? asPercent(block.turn.share) : "–";
    const marks = [block.outages.length ? "out" : "", block.turn?.slow ? "slow" : ""].filter(Boolean);
    const why = whyIdle(told, run, block.turn);
    const badges = marks.map((mark) => make("span", { class: `badge ${mark}` }, mark));
    const name = make("span", { class: "name" }, block.name);
    if (line.narrow) {
      names.push(make("div", { class: "tl-name", style: at, title: block.name }, ...(readable && block.label ? [name, ...badges, make("b", {}, busy), make("span", { class: "muted" }, why)] : [])));
      continue;
    }
    names.push(make("div", { class: "tl-name", style: at, title: block.name }, ...(readable ? [name, ...badges] : [])));
    const meter = make("i", { class: "meter" }, make("i", { style: { width: `${100 * (block.turn?.share ?? 0)}%` } }));
    sides.push(make("div", { class: "tl-side", style: at, title: `${isHeard ? `${busy} generating` : block.name}${why ? `, ${why}` : ""}` }, ...(readable ? [meter, make("b", {}, busy), make("span", { class: "muted" }, why)] : [])));
  }
  line.labels.replaceChildren(...names);
  line.sides.replaceChildren(...sides);
}

/** Draw with the next frame. */
function redraw(line) {
  if (line.waiting || !line.blocks.length) return;
  line.waiting = true;
  requestAnimationFrame(() => {
    line.waiting = false;
    draw(line);
  });
}

function draw(line) {
  const { view, box, blocks } = line;
  const top = box.scrollTop;
  const bottom = top + box.clientHeight;
  const shown = [];
  blocks.forEach((block, place) => {
    if (block.y + block.height >= top + AXIS && block.y <= bottom) shown.push([place]);
  });
  line.chart.setOption({
    xAxis: { min: line.began + view.from * 1000, max: line.began + view.until * 1000 },
    series: [{ id: "rows", data: shown }],
  });
  for (const listener of line.listeners) listener();
}

function renderRow(line, place) {
  const block = line.blocks[place];
  const top = block.y - line.box.scrollTop;
  const boxes = boxesOf(line.told, block, line.view, top + block.label, block.slotHeight, block.pad);
  const children = [];
  const { left, width } = line.view;
  if (block.height >= 6) children.push({ type: "rect", silent: true, shape: { x: left, y: Math.round(top + block.height) - 1, width, height: 1 }, style: { fill: theme.colour("hair") } });
  for (const kind of PAINT) {
    const found = boxes.get(kind);
    if (!found) continue;
    const fill = kind === "outage" ? hatching("out-edge", "why-out") : kind === "why-unheard" ? hatching("pending", kind) : theme.colour(kind);
    children.push({ type: kind === "moved" ? "arrows" : "boxes", silent: true, shape: { boxes: found }, style: { fill } });
    if (kind === "outage") children.push({ type: "boxes", silent: true, shape: { boxes: edges(found) }, style: { fill: theme.colour("out-edge") } });
  }
  return { type: "group", silent: true, children };
}

function edges(boxes) {
  const found = [];
  for (let n = 0; n < boxes.length; n += 4) {
    found.push(boxes[n], boxes[n + 1], 1.5, boxes[n + 3], boxes[n] + boxes[n + 2] - 1.5, boxes[n + 1], 1.5, boxes[n + 3]);
  }
  return found;
}

const hatches = new Map();

function hatching(stripes, ground) {
  const colour = theme.colour(stripes);
  if (!hatches.has(colour)) {
    const tile = make("canvas", { width: 8, height: 8 });
    const pen = tile.getContext("2d");
    pen.fillStyle = theme.colour(ground);
    pen.fillRect(0, 0, 8, 8);
    pen.strokeStyle = colour;
    pen.lineWidth = 1.4;
    pen.beginPath();
    for (const shift of [-8, 0, 8]) (pen.moveTo(shift, 8), pen.lineTo(shift + 8, 0));
    pen.stroke();
    hatches.set(colour, { image: tile, repeat: "repeat" });
  }
  return hatches.get(colour);
}

function styleAxis(line) {
  const muted = theme.colour("muted");
  line.chart.setOption({
    animation: false,
    grid: { left: line.view.left, right: 10, top: AXIS, bottom: 0 },
    xAxis: {
      type: "time", position: "top", min: line.began, max: line.began + line.seconds * 1000,
      splitNumber: line.narrow ? 3 : 8,
      axisLine: { show: false }, axisTick: { lineStyle: { color: theme.colour("line") } },
      axisLabel: { color: muted, fontSize: 11, hideOverlap: true, fontFamily: getComputedStyle(document.body).fontFamily, formatter: tickWords },
      splitLine: { show: true, lineStyle: { color: theme.colour("hair") } },
    },
    yAxis: { type: "value", min: 0, max: 1, show: false },
    series: [{ id: "rows", type: "custom", silent: true, clip: true, animation: false, data: [], renderItem: (_, api) => renderRow(line, api.value(0)), encode: { x: [], y: [] } }],
  });
}

function tickWords(ms) {
  const at = new Date(ms);
  if (ms % 1000) return asClock(ms, 3);
  if (at.getSeconds()) return asClock(ms);
  if (at.getHours() || at.getMinutes()) return `${two(at.getHours())}:${two(at.getMinutes())}`;
  return `${at.getDate()} ${monthNames[at.getMonth()]}`;
}

function tellLegend(line) {
  const { told, run } = line;
  const [from, until] = rangeOf(told.attempts.run, run);
  const seen = new Set();
  let moved = false;
  for (let place = from; place < until; place++) {
    seen.add(told.attempts.end[place]);
    moved ||= told.attempts.moved[place] === 1;
  }
  const words = { retried: "failed, tried again", interrupted: "interrupted", dropped: "dropped: another had it first" };
  const entry = (kind, text) => make("li", {}, make("i", { class: kind }), text);
  const entries = told.ends.filter((_, place) => seen.has(place)).map((end) => entry(end, words[end] ?? end));
  if (seen.has(told.ends.indexOf("saved"))) entries.push(entry("tail", "receiving"));
  if (moved) entries.push(entry("moved", "moved here from another lane"));
  const whys = new Set(line.blocks.flatMap((block) => block.gaps.map((gap) => gap.why)));
  if (line.blocks.some((block) => block.outages.length)) {
    entries.push(entry("hatched", "out"));
    whys.delete("out");
  }
  if (whys.delete("unheard")) entries.push(entry("why-unheard", told.reasons.unheard));
  const gaps = Object.keys(told.reasons).filter((why) => whys.has(why)).map((why) => entry(`why-${why}`, told.reasons[why]));
  line.legend.replaceChildren(...entries, ...(gaps.length ? [make("li", { class: "muted" }, "idle:")] : []), ...gaps);
}

/** Move the view to a span of seconds, within the run. */
function zoomTo(line, from, until) {
  const least = Math.min(0.05, line.seconds);
  const span = Math.min(Math.max(until - from, least), line.seconds);
  const begin = Math.min(Math.max(from, 0), line.seconds - span);
  Object.assign(line.view, { from: begin, until: begin + span });
  redraw(line);
}

/** Zoom by a factor around a second that stays where it is. */
function zoomBy(line, factor, around = (line.view.from + line.view.until) / 2) {
  const { from, until } = line.view;
  zoomTo(line, around - (around - from) * factor, around + (until - around) * factor);
}
