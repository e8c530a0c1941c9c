// Which cards the contact sheet shows, and in which order.

const chosen = { text: "", state: "all", endpoint: "", change: "", order: "list" };

/** Return every row in the order of the sheet: failed, then odd, then pending, then saved. */
function rowsInOrder(told) {
  const { rows, states } = told;
  const failed = states.indexOf("failed");
  const pending = states.indexOf("pending");
  const piles = [[], [], [], []];
  for (let row = 0; row < rows.keys.length; row++) {
    const state = rows.state[row];
    piles[state === failed ? 0 : isOdd(told, row) ? 1 : state === pending ? 2 : 3].push(row);
  }
  return Uint32Array.from(piles.flat());
}

function isOdd(told, row) {
  return told.rows.missing[row] === 1 || told.pictures.flags[row] !== undefined;
}

const haystack = { of: null };

function hay(told) {
  haystack.of ??= told.rows.keys.map((key, row) => `${key}\n${told.rows.prompts[row]}\n${told.pictures.words[row] ?? ""}`.toLowerCase());
  return haystack.of;
}

/** Return the rows that are chosen, in the order that is chosen. */
function chosenRows(told, all) {
  const { rows } = told;
  const words = chosen.text.toLowerCase().split(/\s+/).filter(Boolean);
  const texts = words.length ? hay(told) : null;
  const state = told.states.indexOf(chosen.state);
  const flag = chosen.state.startsWith("flag:") ? chosen.state.slice(5) : "";
  const endpoint = chosen.endpoint === "" ? -1 : Number(chosen.endpoint);
  const change = told.changes.indexOf(chosen.change);
  const found = all.filter((row) => {
    if (state >= 0 && rows.state[row] !== state) return false;
    if (chosen.state === "flagged" && !isOdd(told, row)) return false;
    if (flag && !flagsOf(told, row).some(([word]) => word === flag)) return false;
    if (endpoint >= 0 && rows.endpoint[row] !== endpoint) return false;
    if (chosen.change && rows.change[row] !== change) return false;
    return texts === null || words.every((word) => texts[row].includes(word));
  });
  const by = { slowest: ["generate_s", -1], largest: ["size_bytes", -1], smallest: ["size_bytes", 1] }[chosen.order];
  if (by) {
    const column = rows[by[0]];
    const there = (row) => (column[row] > 0 ? column[row] : by[1] * Infinity);
    found.sort((a, b) => by[1] * (there(a) - there(b)) || a - b);
  }
  return found;
}

function countsOf(told) {
  const counts = { all: told.rows.keys.length, flagged: 0 };
  const flags = {};
  told.states.forEach((state) => (counts[state] = 0));
  for (let row = 0; row < told.rows.keys.length; row++) {
    counts[told.states[told.rows.state[row]]]++;
    if (told.rows.missing[row] || told.pictures.flags[row]) {
      counts.flagged++;
      for (const word of new Set(flagsOf(told, row).map(([one]) => one))) flags[word] = (flags[word] ?? 0) + 1;
    }
  }
  return { counts, flags };
}

/** Fill the filters and call ``changed`` whenever one of them does. */
function makeFilters(told, changed) {
  const { counts, flags } = countsOf(told);
  const chip = (value, text, many) => make("button", { type: "button", class: `chip ${value.replace(":", "-")}`, "data-show": value, "aria-pressed": String(chosen.state === value) }, text, make("b", {}, asNumber(many)));
  const chips = [chip("all", "all", counts.all)];
  for (const [state, many] of [["failed", counts.failed], ["flagged", counts.flagged], ["pending", counts.pending], ["saved", counts.saved]]) {
    if (many) chips.push(chip(state, state === "flagged" ? "need a look" : state, many));
  }
  const words = Object.entries(flags).sort((a, b) => b[1] - a[1]);
  if (words.length > 1) chips.push(...words.map(([word, many]) => chip(`flag:${word}`, word, many)));
  byId("states").replaceChildren(...chips);
  told.endpoints.forEach((one, place) => byId("by-endpoint").append(make("option", { value: place }, one.name)));
  byId("by-endpoint").hidden = told.endpoints.length < 2;
  const seen = new Set(told.rows.change);
  told.changes.forEach((name, place) => place && seen.has(place) && byId("by-change").append(make("option", { value: name }, name)));
  byId("by-change").hidden = seen.size < 2;
  byId("filters").hidden = counts.all === 0;
  const show = (value) => {
    chosen.state = value;
    for (const one of byId("states").children) one.setAttribute("aria-pressed", String(one.dataset.show === value));
    changed();
  };
  document.addEventListener("click", (event) => {
    const wanted = event.target.closest("[data-show]")?.dataset.show;
    if (wanted) show(wanted);
  });
  let waiting = 0;
  byId("search").addEventListener("input", (event) => {
    chosen.text = event.target.value;
    clearTimeout(waiting);
    waiting = setTimeout(changed, counts.all > 20000 ? 120 : 0);
  });
  for (const [id, name] of [["by-endpoint", "endpoint"], ["by-change", "change"], ["order", "order"]]) {
    byId(id).addEventListener("change", (event) => {
      chosen[name] = event.target.value;
      changed();
    });
  }
  return show;
}
