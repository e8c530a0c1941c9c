// How many generations went on at every moment of a run, and a window on it: what the timeline shows.

const BINS = 480;

/** Return, for each of so many equal parts of a run, how many generations went on, and how many attempts failed. */
function concurrency(line) {
  const { attempts, ends } = line.told;
  const [from, until] = rangeOf(attempts.run, line.run);
  const going = new Float64Array(BINS + 1);
  const failed = new Uint32Array(BINS);
  const bad = new Set([ends.indexOf("failed"), ends.indexOf("retried")]);
  const scale = BINS / line.seconds;
  for (let n = from; n < until; n++) {
    const begin = Math.max(0, Math.min(BINS, attempts.start_s[n] * scale));
    const end = Math.max(begin, Math.min(BINS, (attempts.start_s[n] + attempts.generate_s[n]) * scale));
    const first = Math.floor(begin);
    const last = Math.floor(end);
    if (first === last) going[first] += end - begin;
    else {
      going[first] += first + 1 - begin;
      for (let bin = first + 1; bin < last; bin++) going[bin] += 1;
      going[last] += end - last;
    }
    if (bad.has(attempts.end[n])) failed[Math.min(BINS - 1, last)]++;
  }
  return { going: going.subarray(0, BINS), failed };
}

function makeOverview(line) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  const left = make("i", { class: "grip left" });
  const right = make("i", { class: "grip right" });
  const pane = make("div", { class: "tl-window" }, left, right);
  const title = make("div", { class: "tl-overview-name" });
  const strip = make("div", { class: "tl-strip" }, canvas, pane);
  line.overview.append(title, strip, make("div", {}));
  let counted = null;
  const slots = () => line.blocks.reduce((sum, block) => sum + block.slots.length, 0);

  function paint() {
    const width = strip.clientWidth - line.view.left - 10;
    if (width <= 0 || !counted) return;
    const density = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(40 * density);
    Object.assign(canvas.style, { left: `${line.view.left}px`, width: `${width}px` });
    const pen = canvas.getContext("2d");
    pen.scale(canvas.width / BINS, canvas.height / 40);
    const most = Math.max(slots(), 1);
    pen.fillStyle = theme.colour("saved-soft");
    pen.beginPath();
    pen.moveTo(0, 40);
    counted.going.forEach((many, bin) => {
      const y = 38 - (34 * Math.min(many, most)) / most;
      pen.lineTo(bin, y);
      pen.lineTo(bin + 1, y);
    });
    pen.lineTo(BINS, 40);
    pen.fill();
    pen.fillStyle = theme.colour("failed");
    counted.failed.forEach((many, bin) => {
      if (many) pen.fillRect(bin, 37, Math.max(1, (BINS / width) * 1.5), 3);
    });
  }

  function place() {
    const width = strip.clientWidth - line.view.left - 10;
    const { from, until } = line.view;
    Object.assign(pane.style, { left: `${line.view.left + (from / line.seconds) * width}px`, width: `${Math.max(6, ((until - from) / line.seconds) * width)}px` });
    pane.classList.toggle("all", until - from >= line.seconds * 0.999);
  }

  let drag = null;
  strip.addEventListener("pointerdown", (event) => {
    const width = strip.clientWidth - line.view.left - 10;
    const x = event.clientX - strip.getBoundingClientRect().left - line.view.left;
    const kind = event.target === left ? "left" : event.target === right ? "right" : "move";
    let { from, until } = line.view;
    if (kind === "move" && event.target !== pane) {
      const middle = (x / width) * line.seconds;
      const half = (until - from >= line.seconds * 0.999 ? line.seconds / 5 : until - from) / 2;
      zoomTo(line, middle - half, middle + half);
      ({ from, until } = line.view);
    }
    drag = { kind, x, from, until, perPixel: line.seconds / width };
    strip.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  strip.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const shift = (event.clientX - strip.getBoundingClientRect().left - line.view.left - drag.x) * drag.perPixel;
    if (drag.kind === "left") zoomTo(line, Math.min(drag.from + shift, drag.until - 0.05), drag.until);
    else if (drag.kind === "right") zoomTo(line, drag.from, Math.max(drag.until + shift, drag.from + 0.05));
    else zoomTo(line, drag.from + shift, drag.until + shift);
  });
  for (const name of ["pointerup", "pointercancel"]) strip.addEventListener(name, () => (drag = null));
  line.listeners.push(place);
  theme.onChange(paint);
  new ResizeObserver(() => (paint(), place())).observe(strip);
  return () => {
    counted = concurrency(line);
    title.textContent = `at work, of ${several(slots(), "slot")}`;
    paint();
    place();
  };
}
