// What the pointer and the keys do in the timeline: hover, tap, zoom, move.

const tip = byId("tip");

/** Return what stands at a point of the plot: {block, attempt}, {block, outage}, {block, gap} or null. */
function standsAt(line, x, y) {
  const { view, told } = line;
  const content = y + line.box.scrollTop;
  if (y < AXIS) return null;
  const block = line.blocks.find((one) => content >= one.y && content < one.y + one.height);
  if (!block) return null;
  const scale = view.width / (view.until - view.from);
  const t = view.from + (x - view.left) / scale;
  const slot = Math.min(block.slots.length - 1, Math.max(0, Math.floor((content - block.y - block.label - block.pad) / block.slotHeight)));
  const near = 3 / scale;
  const { start_s: start, generate_s: generate, receive_s: receive } = told.attempts;
  const places = block.slots[slot];
  const sent = sentUntil(places, start, t + near);
  let best = null;
  for (let n = Math.max(0, sent - 6); n < sent; n++) {
    const place = places[n];
    const off = Math.max(start[place] - t, t - start[place] - generate[place] - receive[place], 0);
    if (off <= near && (best === null || off <= best.off)) best = { off, place };
  }
  if (best) return { block, slot, t, attempt: best.place };
  const outage = block.outages.find((one) => t >= one.from - near && t <= one.until + near);
  if (outage) return { block, slot, t, outage };
  const gap = block.gaps.find((one) => one.slot === slot && t >= one.from && t <= one.until);
  return gap ? { block, slot, t, gap } : { block, slot, t };
}

function tipOf(line, found, pinned) {
  const { told } = line;
  const { block } = found;
  if (found.attempt !== undefined) return attemptTip(line, found, pinned);
  const span = found.outage ?? found.gap;
  if (!span) return null;
  const title = found.outage ? `${block.name} was out` : span.why === "unheard" ? `${block.name}: not known` : `${block.name} was idle`;
  const why = found.outage ? span.why : told.reasons[span.why];
  return [
    make("strong", {}, title),
    facts([
      ["for", asLength(span.until - span.from) + (found.outage && !span.back ? ", to the end" : "")],
      ["why", why],
      ["from", `${asClock(line.began + span.from * 1000)} (+${asLength(span.from)})`],
    ]),
  ];
}

function attemptTip(line, { block, slot, attempt: n }, pinned) {
  const { told } = line;
  const { attempts, rows } = told;
  const row = attempts.prompt[n];
  const known = row !== NO_PROMPT && row < rows.keys.length;
  const end = told.ends[attempts.end[n]];
  const error = told.errors[attempts.error[n]];
  const said = { retried: "failed, and was tried again", dropped: "dropped: another had it first" }[end] ?? end;
  return [
    make("strong", {}, known ? rows.keys[row] : "a prompt that is not in the list"),
    make("p", {}, make("i", { class: `key ${end}` }), `${said}, attempt ${attempts.number[n]}`, attempts.moved[n] ? ", moved here from another lane" : ""),
    facts([
      ["on", block.name + (block.slots.length > 1 ? `, slot ${slot + 1}` : "")],
      ["sent", `${asClock(line.began + attempts.start_s[n] * 1000)} (+${asLength(attempts.start_s[n])})`],
      ["waiting", asLength(attempts.wait_s[n])],
      ["generating", asLength(attempts.generate_s[n])],
      ["receiving", attempts.receive_s[n] ? asLength(attempts.receive_s[n]) : ""],
      ["status", attempts.status[n] ? String(attempts.status[n]) : error ? "no answer" : ""],
    ]),
    error ? make("p", { class: "said" }, error.length > 300 ? `${error.slice(0, 300)} …` : error) : null,
    known ? make("p", { class: "open" }, pinned ? make("a", { href: `#key=${encodeURIComponent(rows.keys[row])}` }, "Open its card →") : "Click to keep this and to open its card") : null,
  ];
}

function facts(pairs) {
  return make("dl", {}, ...pairs.filter(([, text]) => text).flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
}

function showTip(nodes, x, y, pinned) {
  if (!nodes) return hideTip();
  tip.replaceChildren(...nodes.filter(Boolean));
  tip.hidden = false;
  tip.classList.toggle("pinned", pinned);
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 16 + width > document.documentElement.clientWidth - 8 ? Math.max(8, x - width - 16) : x + 16;
  const below = y + 18 + height > window.innerHeight - 8 ? Math.max(8, y - height - 14) : y + 18;
  tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(below)}px)`;
  return undefined;
}

function hideTip() {
  tip.hidden = true;
  tip.classList.remove("pinned");
}

function outline(line, found) {
  const { hover, view, told } = line;
  if (found?.attempt === undefined) return void (hover.hidden = true);
  const { attempts } = told;
  const scale = view.width / (view.until - view.from);
  const n = found.attempt;
  const x = view.left + (attempts.start_s[n] - view.from) * scale;
  const width = Math.max(2, (attempts.generate_s[n] + attempts.receive_s[n]) * scale);
  const left = Math.max(x, 0);
  Object.assign(hover.style, {
    left: `${left - 1}px`, width: `${Math.max(2, Math.min(x + width, view.left + view.width + 8) - left) + 1}px`,
    top: `${found.block.y + found.block.label + found.block.pad + found.slot * found.block.slotHeight}px`, height: `${Math.max(3, found.block.slotHeight - 1)}px`,
  });
  hover.hidden = false;
  return undefined;
}

function listen(line) {
  const { plot, box, view } = line;
  const pointers = new Map();
  let drag = null;
  const place = (event) => {
    const room = plot.getBoundingClientRect();
    return { x: event.clientX - room.left, y: event.clientY - box.getBoundingClientRect().top - box.clientTop };
  };
  const second = (x) => view.from + ((x - view.left) / view.width) * (view.until - view.from);

  plot.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const { x, y } = place(event);
    pointers.set(event.pointerId, x);
    plot.setPointerCapture(event.pointerId);
    if (pointers.size === 2) {
      const [a, b] = [...pointers.values()];
      drag = { kind: "pinch", a: second(a), b: second(b) };
    } else drag = { kind: event.pointerType === "mouse" && !event.shiftKey ? "brush" : "move", x, y, from: view.from, until: view.until, moved: false };
  });
  plot.addEventListener("pointermove", (event) => {
    const { x, y } = place(event);
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, x);
    if (!drag || !pointers.size) return void hovered(event, x, y);
    if (drag.kind === "pinch") return void pinched();
    if (Math.abs(x - drag.x) > 4) drag.moved = true;
    if (!drag.moved) return undefined;
    hideTip();
    if (drag.kind === "move") {
      const shift = ((drag.x - x) / view.width) * (drag.until - drag.from);
      zoomTo(line, drag.from + shift, drag.until + shift);
    } else brushed(drag.x, x);
    return undefined;
  });
  const released = (event) => {
    const { x, y } = place(event);
    pointers.delete(event.pointerId);
    line.brush.hidden = true;
    if (drag && drag.kind === "brush" && drag.moved) zoomTo(line, second(Math.min(drag.x, x)), second(Math.max(drag.x, x)));
    else if (drag && drag.kind !== "pinch" && !drag.moved && event.type === "pointerup") tapped(event, x, y);
    if (!pointers.size) drag = null;
  };
  plot.addEventListener("pointerup", released);
  plot.addEventListener("pointercancel", released);
  plot.addEventListener("pointerleave", () => {
    line.hover.hidden = true;
    if (!tip.classList.contains("pinned")) hideTip();
  });
  plot.addEventListener("dblclick", () => zoomTo(line, 0, line.seconds));
  box.addEventListener("wheel", (event) => {
    const { x } = place(event);
    if (event.ctrlKey || event.metaKey || event.altKey) {
      event.preventDefault();
      zoomBy(line, Math.exp(event.deltaY * (event.deltaMode ? 0.05 : 0.0022)), second(x));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      const shift = ((event.deltaX || event.deltaY) / view.width) * (view.until - view.from);
      zoomTo(line, view.from + shift, view.until + shift);
    }
    if (!tip.classList.contains("pinned")) hideTip();
  }, { passive: false });
  box.addEventListener("keydown", (event) => {
    const span = view.until - view.from;
    const steps = { ArrowLeft: -0.15, ArrowRight: 0.15, "+": 0, "=": 0, "-": 0, 0: 0 };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (event.key === "0") zoomTo(line, 0, line.seconds);
    else if (event.key === "+" || event.key === "=") zoomBy(line, 0.6);
    else if (event.key === "-") zoomBy(line, 1 / 0.6);
    else zoomTo(line, view.from + steps[event.key] * span, view.until + steps[event.key] * span);
  });

  function hovered(event, x, y) {
    if (event.pointerType === "touch" || tip.classList.contains("pinned")) return;
    const found = standsAt(line, x, y);
    outline(line, found);
    showTip(found && tipOf(line, found, false), event.clientX, event.clientY, false);
    plot.style.cursor = found?.attempt === undefined ? "crosshair" : "pointer";
  }

  function tapped(event, x, y) {
    const found = standsAt(line, x, y);
    outline(line, found);
    showTip(found && tipOf(line, found, true), event.clientX, event.clientY, true);
  }

  function pinched() {
    const [a, b] = [...pointers.values()];
    if (Math.abs(a - b) < 12) return;
    const scale = (drag.b - drag.a) / (b - a);
    const from = drag.a - (a - view.left) * scale;
    zoomTo(line, from, from + view.width * scale);
  }

  function brushed(a, b) {
    Object.assign(line.brush.style, { left: `${Math.min(a, b)}px`, width: `${Math.abs(a - b)}px`, top: `${box.scrollTop + AXIS}px`, height: `${box.clientHeight - AXIS}px` });
    line.brush.hidden = false;
  }
}

document.addEventListener("pointerdown", (event) => {
  if (tip.classList.contains("pinned") && !tip.contains(event.target)) hideTip();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});
tip.addEventListener("click", (event) => {
  if (event.target.closest("a")) hideTip();
});
