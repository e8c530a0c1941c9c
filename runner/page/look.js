// The dialog: one prompt's result, large, and all that is known of it.

function makeLook(sheet) {
  const { told } = sheet;
  const dialog = byId("look");
  const look = { told, sheet, dialog, row: -1, view: null, turn: 0, byPrompt: null };
  dialog.addEventListener("close", () => {
    if (dialog.open) return; // another card was opened meanwhile
    closeView(look);
    dialog.replaceChildren();
    if (location.hash === hashOf(told.rows.keys[look.row])) history.replaceState(null, "", location.pathname + location.search + "#sheet");
    const place = sheet.rows.indexOf(look.row);
    if (place >= 0 && !document.activeElement?.closest("a")) focusPlace(sheet, place); // a link has the focus again
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.closest("select, input, pre")) return;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      step(look, event.key === "ArrowLeft" ? -1 : 1);
    }
  });
  return look;
}

const hashOf = (key) => `#key=${encodeURIComponent(key)}`;

/** Open a row's card; its neighbours are those of the sheet as it stands. */
function showLook(look, row) {
  closeView(look);
  look.row = row;
  const { told, dialog } = look;
  const key = told.rows.keys[row];
  const focused = dialog.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : "";
  const isNamed = dialog.open || location.hash === hashOf(key);
  history[isNamed ? "replaceState" : "pushState"](null, "", hashOf(key)); // the way back closes what a click opened
  dialog.replaceChildren(headOf(look, row), make("div", { class: "look-body" }, stageOf(look, row), asideOf(look, row)));
  if (dialog.open) focusAgain(dialog, focused);
  else dialog.showModal();
  dialog.querySelector(".look-body").scrollTop = 0;
  dialog.setAttribute("aria-label", key);
}

/** Give the focus to the button that had it in the card before, else to the one that closes: without one, no key works. */
function focusAgain(dialog, label) {
  const buttons = [...dialog.querySelectorAll(".look-head button:not(:disabled)")];
  (buttons.find((one) => one.getAttribute("aria-label") === label) ?? buttons.at(-1)).focus();
}

function step(look, by) {
  const place = look.sheet.rows.indexOf(look.row);
  const next = look.sheet.rows[place + by];
  if (next !== undefined) showLook(look, next);
}

function closeView(look) {
  look.turn++;
  look.view?.dispose();
  look.view = null;
}

function headOf(look, row) {
  const { told, sheet } = look;
  const place = sheet.rows.indexOf(row);
  const state = told.states[told.rows.state[row]];
  const arrow = (by, sign, text) => make("button", { type: "button", "aria-label": text, title: `${text} (${sign})`, disabled: sheet.rows[place + by] === undefined, onclick: () => step(look, by) }, sign);
  return make("header", { class: "look-head" },
    make("i", { class: `dot ${state}` }), make("h2", { title: told.rows.keys[row] }, told.rows.keys[row]),
    make("span", { class: `state ${state}` }, state),
    make("span", { class: "look-tools" },
      place >= 0 ? make("span", { class: "muted" }, `${asNumber(place + 1)} of ${asNumber(sheet.rows.length)}`) : null,
      make("span", { class: "joined" }, arrow(-1, "←", "Previous"), arrow(1, "→", "Next")),
      make("button", { type: "button", class: "close", "aria-label": "Close", title: "Close (Esc)", onclick: () => look.dialog.close(), autofocus: true }, "✕")));
}

function stageOf(look, row) {
  const { told } = look;
  const stage = make("div", { class: "stage" });
  const state = told.states[told.rows.state[row]];
  const thumbnail = pictureUrl(told, row, "thumbnail");
  const place = told.pictureOf[row];
  const kind = place < 0 ? "" : told.pictures.kinds[told.pictures.kind[place]];
  if (is3d(told, row)) fillStage3d(look, row, stage, thumbnail);
  else if (kind === "image" && fileUrl(told, row)) fillStageImage(stage, fileUrl(told, row), thumbnail);
  else if (told.pictures.words[row] && state === "saved") stage.append(make("pre", { class: "stage-text", tabindex: "0" }, told.pictures.words[row]));
  else if (thumbnail) stage.append(make("img", { class: "still", src: thumbnail, alt: "The result" }));
  else if (state === "failed") stage.append(make("pre", { class: "stage-text failed", tabindex: "0" }, told.errors[told.rows.error[row]] || "It failed, and nobody said why."));
  else stage.append(make("p", { class: "empty" }, state === "pending" ? "Not generated yet." : "There is no picture of this result."));
  return stage;
}

function fillStageImage(stage, url, thumbnail) {
  const image = make("img", { class: "still", src: url, alt: "The result" });
  image.addEventListener("error", () => {
    if (thumbnail && image.src !== thumbnail) image.src = thumbnail;
    else stage.replaceChildren(make("p", { class: "empty" }, "The file is not beside this page."));
  });
  stage.append(image);
}

function fillStage3d(look, row, stage, thumbnail) {
  const { told } = look;
  const room = make("div", { class: "stage-3d", "data-state": "waiting" });
  const says = make("p", { class: "stage-says", role: "status" }, "");
  if (thumbnail) room.append(make("img", { class: "still poster", src: thumbnail, alt: "The result" }));
  const turn = look.turn;
  const doubts = flagsOf(told, row).filter(([word]) => ["blank", "exploded"].includes(word));
  const doubt = doubts.map(([word, why]) => ` It is marked as ${word}${why ? `: ${why.replace(/\.$/, "")}` : ""}.`).join("");
  let opening = 0;
  const show = async (model, words, more) => {
    const mine = ++opening;
    const current = () => look.turn === turn && opening === mine;
    says.textContent = "Opening …";
    const canvas = make("div", { class: "stage-canvas" });
    room.append(canvas);
    try {
      const view = await openModel(canvas, await model);
      if (!current()) return void (view.dispose(), canvas.remove());
      look.view?.dispose();
      for (const old of [...room.querySelectorAll(".stage-canvas, .poster")]) if (old !== canvas) old.remove();
      look.view = view;
      axes.show(view.up);
      await view.drawn;
      if (!current()) return;
      room.dataset.state = "drawn";
      says.textContent = `${several(view.count, { mesh: "triangle", splats: "splat", points: "point" }[view.kind])}${words(view.count)}. Drag to turn, scroll to zoom.${more}`;
    } catch (error) {
      canvas.remove();
      if (!current()) return;
      room.dataset.state = look.view ? "drawn" : "failed";
      says.textContent = error.message;
    }
  };
  const original = (file) => {
    const mine = isResultOf(told, row, file);
    const words = mine ? ", all of the file" : ` in ${file.name}, another file than this result`;
    return show(readFile(file), () => words, mine ? doubt : "");
  };
  const axes = axesOf(look);
  stage.append(room, toolsOf(look, axes, room, original), says);
  dropZone(room, original);
  const count = told.pictures.count[told.pictureOf[row]];
  if (hasModel(told, row)) setTimeout(() => look.turn === turn && !opening && show(modelOf(told, row), (shown) => (count > shown ? ` of ${asNumber(count)}` : ""), doubt), 60);
  else {
    if (!thumbnail) room.append(make("p", { class: "empty poster" }, "There is no picture of this result."));
    says.textContent = `No small model of it stands in the page. Open the result’s file, or drop it here, to look at it.${doubt}`;
  }
}

/** Tell whether a file from the reader's disk is, by its name and size, a row's result. */
function isResultOf(told, row, file) {
  const name = fileUrl(told, row).split("/").pop();
  const size = told.rows.size_bytes[row];
  return file.name === unquoted(name) && (!size || size === file.size);
}

function unquoted(name) {
  try {
    return decodeURIComponent(name);
  } catch {
    return name; // its bytes are no text
  }
}

/** Return a file from the reader's disk as {bytes, format}. Rejects in words. */
async function readFile(file) {
  const content = await file.arrayBuffer().catch(() => {
    throw new Error(`${file.name} can’t be read.`);
  });
  const bytes = new Uint8Array(content);
  return { bytes, format: formatOf(bytes, file.name) };
}

/** Return the buttons that choose which way is up: their element, and how to show what is chosen. */
function axesOf(look) {
  const show = (chosen) => {
    for (const [axis, button] of buttons) button.setAttribute("aria-pressed", String(axis === chosen));
  };
  const buttons = ["y", "-y", "z", "-z"].map((axis) => [axis, make("button", { type: "button", "aria-pressed": "false", title: `${axis} is up`, onclick: () => {
    if (!look.view) return;
    models.up[look.view.frame] = axis;
    look.view.setUp(axis);
    show(axis);
  } }, axis.replace("-", "−"))]);
  const element = make("span", { class: "joined", role: "group", "aria-label": "Which way is up" }, make("span", {}, "up"), ...buttons.map(([, button]) => button));
  return { element, show };
}

function toolsOf(look, axes, room, original) {
  const picker = make("input", { type: "file", accept: ".ply,.spz,.glb,.splat", hidden: true, onchange: (event) => event.target.files[0] && original(event.target.files[0]) });
  return make("div", { class: "stage-tools" },
    axes.element,
    make("button", { type: "button", onclick: () => look.view?.reset() }, "Reset"),
    make("button", { type: "button", onclick: () => (document.fullscreenElement ? document.exitFullscreen() : room.requestFullscreen?.()) }, "Full screen"),
    make("button", { type: "button", title: "Look at the original: choose the result’s file, or drop it on the view", onclick: () => picker.click() }, "Open the file …"), picker);
}

function dropZone(room, original) {
  room.addEventListener("dragover", (event) => (event.preventDefault(), room.classList.add("over")));
  room.addEventListener("dragleave", () => room.classList.remove("over"));
  room.addEventListener("drop", (event) => {
    event.preventDefault();
    room.classList.remove("over");
    if (event.dataTransfer.files[0]) original(event.dataTransfer.files[0]);
  });
}

function asideOf(look, row) {
  const { told } = look;
  const { rows } = told;
  const prompt = pictureUrl(told, row, "prompt");
  const flags = flagsOf(told, row);
  const url = fileUrl(told, row);
  const run = told.runs[rows.run[row]];
  const place = told.pictureOf[row];
  const box = place < 0 ? [] : [0, 1, 2].map((n) => told.pictures.box[3 * place + n]);
  const seconds = (name) => (rows[name][row] > 0 ? asLength(rows[name][row]) : "");
  return make("aside", {},
    make("section", { class: "asked" }, make("h3", {}, "Prompt"), prompt ? pictureFace(prompt, "prompt", "image") : null, promptText(rows.prompts[row])),
    ...flags.map(([word, why]) => make("p", { class: "flag" }, make("span", { class: `badge flag-${word}` }, word), why)),
    make("section", {}, facts([
      ["endpoint", rows.endpoint[row] === NONE ? "" : told.endpoints[rows.endpoint[row]].name],
      ["generating", seconds("generate_s")],
      ["fetching its image", seconds("image_s")],
      ["verifying, saving", seconds("save_s")],
      ["beginning to end", seconds("seconds")],
      ["size", rows.size_bytes[row] > 0 ? `${asSize(rows.size_bytes[row])} (${asNumber(rows.size_bytes[row])} bytes)` : ""],
      ["format", rows.formats[rows.format[row]] ?? ""],
      ["holds", place >= 0 && told.pictures.count[place] ? `${asNumber(told.pictures.count[place])} ${{ mesh: "triangles", image: "pixels", text: "characters", other: "" }[told.pictures.kinds[told.pictures.kind[place]]] ?? told.pictures.kinds[told.pictures.kind[place]]}` : ""],
      ["extent", box.some(Boolean) ? box.map((side) => Number(side.toPrecision(3))).join(" × ") : ""],
      ["further files", rows.more[row] ? asNumber(rows.more[row]) : ""],
      ["run", run ? asMoment(run.began_at) : ""],
      ["in this run", told.changes[rows.change[row]]],
    ]), url ? make("p", {}, make("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, "Open the result file")) : null),
    make("section", {}, make("h3", {}, "Attempts"), attemptsOf(look, row)));
}

function promptText(text) {
  if (!text) return null;
  const linked = /^https?:\/\/\S+$/i.test(text);
  return make("p", { class: "prompt-text" }, linked ? make("a", { href: text, rel: "noreferrer noopener", target: "_blank" }, text) : text);
}

/** Return where the attempts of each prompt stand: begin[row] to begin[row + 1] in ``places``. */
function byPrompt(told) {
  const { attempts, rows } = told;
  const begin = new Uint32Array(rows.keys.length + 2);
  for (const row of attempts.prompt) if (row < rows.keys.length) begin[row + 2]++;
  for (let row = 2; row < begin.length; row++) begin[row] += begin[row - 1];
  const places = new Uint32Array(begin[begin.length - 1]);
  attempts.prompt.forEach((row, place) => {
    if (row < rows.keys.length) places[begin[row + 1]++] = place;
  });
  return { begin, places };
}

function attemptsOf(look, row) {
  const { told } = look;
  const { attempts } = told;
  look.byPrompt ??= byPrompt(told);
  const { begin, places } = look.byPrompt;
  const mine = [...places.subarray(begin[row], begin[row + 1])].sort((a, b) => attempts.run[b] - attempts.run[a] || attempts.start_s[a] - attempts.start_s[b]);
  const known = mine.map((n) => {
    const run = told.runs[attempts.run[n]];
    const end = told.ends[attempts.end[n]];
    const error = told.errors[attempts.error[n]];
    const began = Date.parse(run.began_at) || 0;
    const times = [["waited", attempts.wait_s[n]], ["generated", attempts.generate_s[n]], ["received", attempts.receive_s[n]]].filter(([, s]) => s > 0.0005).map(([name, s]) => `${name} ${asLength(s)}`);
    return make("li", {}, make("p", {}, make("i", { class: `key ${end}` }), make("b", {}, `${attempts.number[n]}. ${end}`), ` on ${told.endpoints[attempts.endpoint[n]].name}`, attempts.moved[n] ? ", moved from another lane" : ""),
      make("p", { class: "muted" }, [asMoment(run.began_at).split(",")[0] + " " + asClock(began + attempts.start_s[n] * 1000), ...times, attempts.status[n] ? `status ${attempts.status[n]}` : ""].filter(Boolean).join(" · ")),
      error ? make("pre", { tabindex: "0" }, error) : null);
  });
  const last = told.errors[told.rows.error[row]];
  if (!known.length) return make("div", {}, make("p", { class: "muted" }, told.rows.attempts[row] ? `${several(told.rows.attempts[row], "attempt")}, which are not in this page.` : "None."), last ? make("pre", { tabindex: "0" }, last) : null);
  const unsaid = last && !mine.some((n) => attempts.error[n] === told.rows.error[row]) ? make("li", {}, make("pre", { tabindex: "0" }, last)) : null;
  return make("ol", { class: "tries" }, ...known, unsaid);
}
