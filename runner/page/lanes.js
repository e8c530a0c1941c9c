// Which bars stand in which row of the timeline, and what of it lies in a span of time.

/** Return where a run's entries begin and end in a column that is sorted by run. */
function rangeOf(column, run) {
  return [firstAtLeast(column, run), firstAtLeast(column, run + 1)];
}

function firstAtLeast(sorted, value) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Return how many attempts of a row (places in a column, sorted by when they were sent) were sent before or at t. */
function sentUntil(places, start, t) {
  let low = 0;
  let high = places.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (start[places[middle]] <= t) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Return a block for each endpoint of a run: its bars by slot, its gaps, its outages. */
function blocksOf(told, run) {
  const { attempts, idle } = told;
  const [from, until] = rangeOf(attempts.run, run);
  const blocks = new Map();
  const block = (endpoint) => {
    if (!blocks.has(endpoint)) {
      const turn = told.runs[run].turns.find((one) => one.endpoint === endpoint);
      const slots = Array.from({ length: turn?.slots ?? 1 }, () => []);
      blocks.set(endpoint, { endpoint, name: told.endpoints[endpoint].name, turn, slots, gaps: [], outages: [], failed: 0 });
    }
    return blocks.get(endpoint);
  };
  for (const turn of told.runs[run].turns) block(turn.endpoint);
  const failedEnds = new Set(["failed", "retried"].map((name) => told.ends.indexOf(name)));
  for (let place = from; place < until; place++) {
    const one = block(attempts.endpoint[place]);
    const slot = attempts.slot[place];
    while (one.slots.length <= slot) one.slots.push([]);
    one.slots[slot].push(place);
    if (failedEnds.has(attempts.end[place])) one.failed++;
  }
  const whys = Object.keys(told.reasons);
  for (let place = 0; place < idle.run.length; place++) {
    if (idle.run[place] !== run) continue;
    const one = block(idle.endpoint[place]);
    one.gaps.push({ slot: idle.slot[place], from: idle.from_s[place], until: idle.until_s[place], why: whys[idle.why[place]] ?? "wait" });
  }
  for (const [ofRun, endpoint, outFrom, outUntil, why] of told.outages) {
    if (ofRun === run) block(endpoint).outages.push({ from: outFrom, until: outUntil ?? told.runs[run].seconds, back: outUntil !== null, why });
  }
  for (const one of blocks.values()) one.gaps.sort((a, b) => a.from - b.from);
  return [...blocks.values()];
}

const ORDERS = {
  list: (a, b) => a.endpoint - b.endpoint,
  idle: (a, b) => (a.turn?.share ?? 0) - (b.turn?.share ?? 0),
  failed: (a, b) => b.failed - a.failed || a.endpoint - b.endpoint,
  slow: (a, b) => (b.turn?.median_s ?? 0) - (a.turn?.median_s ?? 0),
};

/** Return the seconds that an endpoint's slots had in a run; at least those that are told of, for a run's are rounded. */
function wholeOf(told, run, turn) {
  const all = told.runs[run].seconds * turn.slots;
  return Math.max(all, Object.values(turn.idle).reduce((sum, idle) => sum + idle, turn.busy_s));
}

const NATURAL = new Set(["start", "over", "end", "unheard"]); // every endpoint is idle at the beginning and at the end

/** Return in words why an endpoint was idle for most of the time: what might have been helped first. */
function whyIdle(told, run, turn) {
  if (!turn) return "";
  const whole = wholeOf(told, run, turn);
  const shares = Object.entries(turn.idle).map(([why, seconds]) => ({ why, share: seconds / whole, last: NATURAL.has(why) || seconds / whole < 0.03 }));
  const found = shares.filter((one) => one.share >= 0.01).sort((a, b) => a.last - b.last || b.share - a.share);
  return found.slice(0, 2).map((one) => `${asPercent(one.share)} ${told.reasons[one.why] ?? one.why}`).join(", ");
}

/** Collects boxes [x, y, width, height] by kind; those narrower than a pixel that touch become one. */
class Boxes {
  constructor() {
    this.of = new Map();
    this.last = new Map();
  }

  add(kind, x0, x1, y, height, least) {
    let boxes = this.of.get(kind);
    if (boxes === undefined) this.of.set(kind, (boxes = []));
    const width = Math.max(x1 - x0, least);
    const at = boxes.length - 4;
    if (at >= 0 && boxes[at + 1] === y && boxes[at + 3] === height && x0 < boxes[at] + boxes[at + 2] + 0.4 && (width <= 1.5 || boxes[at + 2] <= 1.5 || boxes.merged)) {
      boxes[at + 2] = Math.max(boxes[at + 2], x0 + width - boxes[at]);
      boxes.merged = true;
      return;
    }
    boxes.merged = false;
    boxes.push(x0, y, width, height);
  }
}

const TALL = { saved: 0.66, retried: 0.84, failed: 1, interrupted: 0.5, dropped: 0.38 };

/** Return the boxes of a block within a view {from, until, left, width}; y is where the block begins, in pixels. */
function boxesOf(told, block, view, y, slotHeight, pad) {
  const { attempts, ends } = told;
  const scale = view.width / (view.until - view.from);
  const at = (t) => view.left + (t - view.from) * scale;
  const boxes = new Boxes();
  const height = block.slots.length * slotHeight;
  for (const one of block.outages) {
    if (one.until >= view.from && one.from <= view.until) {
      boxes.add("outage", clamp(at(one.from), view), clamp(at(one.until), view), y + pad, height, 3);
    }
  }
  for (const gap of block.gaps) {
    if (gap.until < view.from || gap.from > view.until) continue;
    boxes.add(`why-${gap.why}`, clamp(at(gap.from), view), clamp(at(gap.until), view), y + pad + gap.slot * slotHeight, slotHeight - (slotHeight > 4 ? 1 : 0), 0.5);
  }
  block.slots.forEach((places, slot) => {
    const top = y + pad + slot * slotHeight;
    const room = slotHeight > 4 ? slotHeight - 1 : slotHeight;
    const first = Math.max(0, sentUntil(places, attempts.start_s, view.from) - 2);
    const last = sentUntil(places, attempts.start_s, view.until);
    if ((last - first) * DENSE > view.width) addColumns(told, places.slice(first, last), view, top, room, boxes);
    else addBars(told, places.slice(first, last), view, top, room, boxes);
  });
  return boxes.of;
}

const DENSE = 3; // narrower than so many pixels, on average, bars say less than how much of each moment they took

function addBars(told, places, view, top, room, boxes) {
  const { attempts, ends } = told;
  const scale = view.width / (view.until - view.from);
  let marked = -9;
  for (const place of places) {
    const end = ends[attempts.end[place]];
    const x0 = view.left + (attempts.start_s[place] - view.from) * scale;
    const x1 = x0 + attempts.generate_s[place] * scale;
    const tall = Math.max(1, room * TALL[end]);
    const gap = x1 - x0 > 5 ? 0.8 : 0;
    if (x1 >= view.left - 2) boxes.add(end, clamp(x0, view), clamp(x1 - gap, view), top + (room - tall) / 2, tall, end === "failed" || end === "retried" ? 1.6 : 0.7);
    const x2 = x1 + attempts.receive_s[place] * scale;
    if (x2 - x1 > 0.8) boxes.add("tail", clamp(x1, view), clamp(x2 - gap, view), top + room * 0.36, Math.max(1, room * 0.28), 0.5);
    if (attempts.moved[place] && room >= 8 && x0 - marked >= 9 && x0 >= view.left - 4) boxes.add("moved", (marked = x0), x0, top, room, 0);
  }
}

const STACK = ["saved", "dropped", "interrupted", "retried", "failed"];

/** Stack, for every two pixels, which part of that time went on what: the gaps behind show what is left of it. */
function addColumns(told, places, view, top, room, boxes) {
  const { attempts, ends } = told;
  const many = Math.ceil(view.width / 2);
  const scale = many / (view.until - view.from);
  const parts = new Map();
  for (const place of places) {
    const end = ends[attempts.end[place]];
    let part = parts.get(end);
    if (part === undefined) parts.set(end, (part = new Float64Array(many)));
    const from = Math.max(0, (attempts.start_s[place] - view.from) * scale);
    const until = Math.min(many, (attempts.start_s[place] + attempts.generate_s[place] - view.from) * scale);
    for (let column = Math.floor(from); column < until; column++) part[column] += Math.min(until, column + 1) - Math.max(from, column);
  }
  const foot = new Float64Array(many);
  for (const end of STACK) {
    const part = parts.get(end);
    if (part === undefined) continue;
    const least = end === "failed" || end === "retried" ? 1.5 : 0;
    for (let column = 0; column < many; column++) {
      if (!part[column]) continue;
      const tall = Math.min(Math.max(Math.min(part[column], 1) * room, least), room);
      const low = Math.min(foot[column], room - tall);
      const x = view.left + column * 2;
      boxes.add(end, x, x + 2, top + room - low - tall, tall, 2);
      foot[column] = low + tall;
    }
  }
}

function clamp(x, view) {
  return Math.min(Math.max(x, view.left - 8), view.left + view.width + 8);
}
