// The contact sheet: a card for every prompt, of which only those in sight are in the page.

const GAP = 12;
const FOOT = 62;
const RESULT = 1.62 / 2.62; // the part of a card's width that the result has; the prompt has the rest

function makeSheet(told, open) {
  const list = make("div", { class: "cards", role: "list", "aria-label": "Results" });
  const box = make("div", { class: "sheet-box", tabindex: "-1" }, list);
  byId("sheet-view").append(box);
  const sheet = { told, box, list, open, all: rowsInOrder(told), rows: [], columns: 1, width: 200, height: 200, cards: new Map(), focused: 0, everything: false, waiting: false };
  box.addEventListener("scroll", () => fillSoon(sheet), { passive: true });
  list.addEventListener("click", (event) => {
    const card = event.target.closest(".card");
    if (card) open(Number(card.dataset.row));
  });
  list.addEventListener("keydown", (event) => moveFocus(sheet, event));
  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    requestAnimationFrame(() => measure(sheet));
  }).observe(byId("sheet-view"));
  return sheet;
}

/** Show those rows that are chosen, from the top. */
function refill(sheet) {
  sheet.rows = chosenRows(sheet.told, sheet.all);
  sheet.focused = 0;
  sheet.box.scrollTop = 0;
  const many = sheet.rows.length;
  const all = sheet.all.length;
  byId("sheet-says").textContent = all === 0 ? "No prompt, no result." : many === all ? several(all, "prompt") : `${asNumber(many)} of ${several(all, "prompt")}`;
  measure(sheet);
}

function measure(sheet) {
  const { box, list } = sheet;
  const room = box.clientWidth;
  if (!room || sheet.everything) return;
  const least = room < 560 ? 158 : 224;
  sheet.columns = Math.max(1, Math.floor((room + GAP) / (least + GAP)));
  sheet.width = Math.floor((room - GAP * (sheet.columns - 1)) / sheet.columns);
  sheet.height = Math.round(sheet.width * RESULT) + FOOT;
  const lines = Math.ceil(sheet.rows.length / sheet.columns);
  list.style.height = `${Math.max(0, lines * (sheet.height + GAP) - GAP)}px`;
  list.style.setProperty("--card", `${sheet.width}px`);
  for (const card of sheet.cards.values()) card.remove();
  sheet.cards.clear();
  fill(sheet);
}

function fillSoon(sheet) {
  if (sheet.waiting) return;
  sheet.waiting = true;
  requestAnimationFrame(() => {
    sheet.waiting = false;
    fill(sheet);
  });
}

/** Put the cards in sight, and one line beyond, into the page, and take out all others. */
function fill(sheet) {
  const { box, list, rows, columns, height, cards, everything } = sheet;
  if (everything) return;
  const line = height + GAP;
  const first = Math.max(0, Math.floor(box.scrollTop / line) - 1) * columns;
  const until = Math.min(rows.length, (Math.ceil((box.scrollTop + box.clientHeight) / line) + 1) * columns);
  const kept = document.activeElement?.closest?.(".card");
  for (const [place, card] of cards) {
    if ((place < first || place >= until) && card !== kept) {
      card.remove();
      cards.delete(place);
    }
  }
  for (let place = first; place < until; place++) {
    if (cards.has(place)) continue;
    const card = makeCard(sheet, place);
    cards.set(place, card);
    const after = cards.get(place - 1);
    if (after && after.parentNode === list) after.after(card);
    else list.prepend(card);
  }
  if (!rows.length) list.replaceChildren(make("p", { class: "empty" }, sheet.all.length ? "Nothing is like that." : "There is no prompt here."));
}

function makeCard(sheet, place) {
  const { told, columns, width, height } = sheet;
  const row = sheet.rows[place];
  const { rows } = told;
  const state = told.states[rows.state[row]];
  const flags = flagsOf(told, row);
  const badges = flags.map(([word, why]) => make("span", { class: `badge flag-${word}`, title: why }, word));
  if (rows.change[row] && told.changes[rows.change[row]] !== "newly saved") badges.push(make("span", { class: "badge" }, told.changes[rows.change[row]]));
  const said = [rows.endpoint[row] === NONE ? "" : told.endpoints[rows.endpoint[row]].name, rows.generate_s[row] > 0 ? asLength(rows.generate_s[row]) : "", rows.size_bytes[row] > 0 ? asSize(rows.size_bytes[row]) : ""].filter(Boolean);
  const more = rows.more[row] ? ` + ${several(rows.more[row], "file")}` : "";
  const card = make("button", {
    type: "button", class: `card ${state}`, "data-key": rows.keys[row], "data-row": row, tabindex: place === sheet.focused ? "0" : "-1",
    "aria-label": `${rows.keys[row]}: ${state}${flags.length ? `, ${flags.map(([word]) => word).join(", ")}` : ""}`,
  },
    make("span", { class: "pair" }, resultFace(told, row, state), promptFace(told, row), badges.length ? make("span", { class: "badges" }, ...badges) : null),
    make("span", { class: "foot" },
      make("span", { class: "card-key" }, make("i", { class: `dot ${state}` }), make("span", { class: "name", title: rows.keys[row] }, rows.keys[row])),
      make("span", { class: "card-says" }, state === "pending" && !said.length ? "pending" : said.join(" · ") + more)));
  const item = make("div", { role: "listitem", class: "item", "aria-setsize": sheet.rows.length, "aria-posinset": place + 1 }, card);
  if (!sheet.everything) Object.assign(item.style, { transform: `translate(${(place % columns) * (width + GAP)}px, ${Math.floor(place / columns) * (height + GAP)}px)` });
  Object.assign(item.style, { width: `${width}px`, height: `${height}px` });
  item.place = place;
  return item;
}

function resultFace(told, row, state) {
  const { rows } = told;
  const url = pictureUrl(told, row, "thumbnail");
  if (url) return pictureFace(url, "result", rows.formats[rows.format[row]]);
  if (state === "failed") return make("span", { class: "face words failed" }, told.errors[rows.error[row]] || "failed");
  const words = told.pictures.words[row];
  if (words && state === "saved") return make("span", { class: "face words" }, words);
  if (state === "pending") return make("span", { class: "face none pending" }, "not yet");
  return make("span", { class: "face none" }, rows.formats[rows.format[row]] || "no picture");
}

function promptFace(told, row) {
  const url = pictureUrl(told, row, "prompt");
  if (url) return pictureFace(url, "prompt", "image");
  return make("span", { class: "face words prompt" }, told.rows.prompts[row]);
}

/** Return a picture; if it can't be had, what it would be of. */
function pictureFace(url, kind, words) {
  const none = () => make("span", { class: "face none" }, words || "no picture");
  const isInPage = url.startsWith("data:");
  if (!isInPage && beside.isGone()) return none();
  const image = make("img", { src: isInPage ? url : null, alt: "", decoding: "async" });
  const face = make("span", { class: `face ${kind}` }, image);
  image.addEventListener("error", () => {
    if (!isInPage) beside.failed++;
    face.replaceWith(none());
  });
  if (!isInPage) {
    image.addEventListener("load", () => beside.loaded++);
    image.dataset.src = url;
    beside.inSight.observe(image);
  }
  return face;
}

// Pictures that did not fit into the page: asked for when they come into sight, and no more once it is plain that the
// page was moved away from its folder.
const beside = {
  loaded: 0,
  failed: 0,
  isGone: () => beside.loaded === 0 && beside.failed >= 12,
  inSight: new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      beside.inSight.unobserve(target);
      target.src = target.dataset.src;
    }
  }, { rootMargin: "160px" }),
};

function moveFocus(sheet, event) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -sheet.columns, ArrowDown: sheet.columns, PageDown: 4 * sheet.columns, PageUp: -4 * sheet.columns, Home: -Infinity, End: Infinity };
  const item = event.target.closest(".item");
  if (!(event.key in steps) || !item) return;
  event.preventDefault();
  focusPlace(sheet, Math.min(Math.max(item.place + steps[event.key], 0), sheet.rows.length - 1));
}

/** Bring a card into sight and give it the focus. */
function focusPlace(sheet, place) {
  const { box, height, columns } = sheet;
  const top = Math.floor(place / columns) * (height + GAP);
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + height > box.scrollTop + box.clientHeight) box.scrollTop = top + height - box.clientHeight;
  sheet.cards.get(sheet.focused)?.querySelector(".card")?.setAttribute("tabindex", "-1");
  sheet.focused = place;
  fill(sheet);
  const card = sheet.cards.get(place)?.querySelector(".card");
  card?.setAttribute("tabindex", "0");
  card?.focus({ preventScroll: true });
}

/** Put the first cards into the page one after the other, for a printer; ``back`` undoes it. */
function layOut(sheet, many) {
  const { rows } = sheet;
  sheet.everything = true;
  sheet.rows = rows.slice(0, many);
  sheet.list.style.height = "auto";
  const kept = [sheet.width, sheet.height];
  [sheet.width, sheet.height] = [156, Math.round(156 * RESULT) + FOOT];
  sheet.list.replaceChildren(...Array.from(sheet.rows, (_, place) => makeCard(sheet, place)));
  if (rows.length > many) sheet.list.append(make("p", { class: "muted" }, `and ${asNumber(rows.length - many)} more, which the page shows on a screen`));
  return function back() {
    sheet.everything = false;
    sheet.rows = rows;
    [sheet.width, sheet.height] = kept;
    sheet.cards.clear();
    sheet.list.replaceChildren();
    measure(sheet);
  };
}
