// Put the page together.

/** Show moments in the reader's own time; with seconds, if two runs would be told apart by nothing else. */
function localTimes() {
  const times = [...document.querySelectorAll("time[datetime]")];
  const options = [...document.querySelectorAll("#run option[data-at]")];
  const runs = [...new Set([...document.querySelectorAll("#verdict .story time")].map((one) => one.dateTime).concat(options.map((one) => one.dataset.at)))];
  const seconds = new Set(runs.map((at) => asMoment(at))).size < runs.length;
  for (const time of times) {
    time.title = time.dateTime.replace("T", " ").replace(/Z$/, " UTC");
    time.textContent = asMoment(time.dateTime, { seconds });
  }
  for (const option of options) {
    option.textContent = `${asMoment(option.dataset.at, { seconds })} · ${option.textContent.split(" · ").slice(1).join(" · ")}`;
  }
}

function copyButtons() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(button.parentElement.querySelector("code"));
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}

function sortableTable() {
  const table = document.querySelector("#endpoints table");
  if (!table) return;
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = make("button", { type: "button", class: "sort" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = column === 0 ? head.getAttribute("aria-sort") === "ascending" : head.getAttribute("aria-sort") !== "descending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (line) => Number(line.cells[column].dataset.sort);
      const lines = [...table.tBodies[0].rows].sort((a, b) => (down ? -1 : 1) * (value(a) - value(b)));
      table.tBodies[0].append(...lines);
    });
  });
}

function printing(line, sheet) {
  let back = [];
  const before = () => {
    if (back.length) return;
    hideTip();
    const chosenTheme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    theme.changed();
    if (sheet) back.push(layOut(sheet, 60));
    for (const image of document.querySelectorAll("img[data-src]")) image.src = image.dataset.src;
    if (line?.blocks.length) {
      const { height } = line.box.style;
      const { fits } = line;
      if (line.height > 1800) {
        line.fits = true;
        arrange(line);
      }
      const tall = line.height;
      line.box.style.height = `${tall}px`;
      line.box.scrollTop = 0;
      line.chart.resize({ width: line.plot.clientWidth, height: tall });
      line.canvas.style.height = `${tall}px`;
      draw(line);
      line.chart.getZr().flush();
      back.push(() => {
        line.box.style.height = height;
        line.fits = fits;
        arrange(line);
      });
    }
    back.push(() => {
      if (chosenTheme) document.documentElement.dataset.theme = chosenTheme;
      else delete document.documentElement.dataset.theme;
      theme.changed();
    });
  };
  const after = () => {
    for (const one of back.splice(0)) one();
  };
  window.addEventListener("beforeprint", before);
  window.addEventListener("afterprint", after);
}

/** Say what the endpoints of a run were idle for, all together, and of how much of their time nobody knows. */
function idleWords(told, run) {
  const { turns } = told.runs[run];
  const sums = new Map();
  let whole = 0;
  for (const turn of turns) {
    whole += wholeOf(told, run, turn);
    for (const [why, idle] of Object.entries(turn.idle)) sums.set(why, (sums.get(why) ?? 0) + idle);
  }
  const unheard = (sums.get("unheard") ?? 0) / whole;
  sums.delete("unheard");
  const shares = [...sums].map(([why, idle]) => [why, idle / whole]).filter(([, share]) => share >= 0.005).sort((a, b) => b[1] - a[1]);
  const idle = shares.map(([why, share]) => `${asPercent(share)} ${told.reasons[why] ?? why}`).join(", ");
  const said = [idle && `idle: ${idle}`, unheard >= 0.005 && `${asPercent(unheard)} ${told.reasons.unheard}`].filter(Boolean);
  return said.length ? `Of the endpoints’ time, ${said.join("; ")}.` : "";
}

function nothingAsked(run) {
  if (run.ended === null) return "No generation of this run has ended yet.";
  return run.ended === "killed" ? "No generation of this run had ended." : "This run asked no endpoint for anything.";
}

function switchRun(told, line, run) {
  const [from, until] = rangeOf(told.attempts.run, run);
  const cut = run < told.first_run;
  window.report.run = run;
  window.report.bars = until - from;
  byId("timeline-controls").hidden = until === from;
  byId("timeline-view").hidden = until === from;
  const says = cut ? "The attempts of this run did not fit into the page." : until === from ? nothingAsked(told.runs[run]) : `${several(until - from, "attempt")} on ${several(told.runs[run].turns.length, "endpoint")} in ${asLength(told.runs[run].seconds)}.`;
  byId("timeline-says").textContent = says;
  const hint = matchMedia("(pointer: coarse)").matches ? " Pinch to zoom, tap a bar." : " Drag to zoom in, or Ctrl and the wheel; a click keeps what a bar says.";
  if (until > from) byId("timeline-says").append(make("span", { class: "hint" }, hint));
  const idle = cut ? "" : idleWords(told, run);
  byId("idle-says").hidden = !idle;
  byId("idle-says").textContent = idle;
  if (until > from) showRun(line, run);
}

const nextFrame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));

async function begin() {
  localTimes();
  copyButtons();
  sortableTable();
  const [told] = await Promise.all([readData(), runBundle("charts")]);
  window.report = { run: told.shown, bars: 0, cards: told.rows.keys.length, told };
  const line = told.shown === null ? null : beginTimeline(told);
  await nextFrame();
  window.report.timeline_ms = performance.now();
  const sheet = makeSheet(told, (row) => showLook(look, row));
  const look = makeLook(sheet);
  const show = makeFilters(told, () => refill(sheet));
  refill(sheet);
  makeStrip(told);
  followHashes(told, sheet, look, show);
  await nextFrame();
  if (told.shown === null) byId("distributions-say").textContent = "No run, no distributions.";
  else showSpread(told, window.report.run);
  printing(line, sheet);
  await nextFrame();
  window.report.ready_ms = performance.now();
  document.documentElement.dataset.ready = "1";
}

function beginTimeline(told) {
  const line = makeTimeline(told, byId("timeline-view"));
  const refresh = makeOverview(line);
  listen(line);
  const change = (run) => {
    switchRun(told, line, run);
    if (line.blocks.length) refresh();
  };
  change(told.shown);
  byId("run")?.addEventListener("change", (event) => {
    change(Number(event.target.value));
    showSpread(told, window.report.run);
  });
  byId("timeline-order").addEventListener("change", (event) => {
    line.order = event.target.value;
    line.blocks.sort(ORDERS[line.order]);
    arrange(line);
  });
  byId("timeline-fit").addEventListener("click", () => {
    line.fits = !line.fits;
    byId("timeline-fit").setAttribute("aria-pressed", String(line.fits));
    arrange(line);
  });
  byId("zoom-in").addEventListener("click", () => zoomBy(line, 0.5));
  byId("zoom-out").addEventListener("click", () => zoomBy(line, 2));
  byId("zoom-all").addEventListener("click", () => zoomTo(line, 0, line.seconds));
  return line;
}

/** Open the card that the page's address names, now and whenever it changes; close it when it names none any more. */
function followHashes(told, sheet, look, show) {
  const follow = () => {
    if (!location.hash.startsWith("#key=")) return look.dialog.open && look.dialog.close();
    let key = location.hash.slice(5);
    try {
      key = decodeURIComponent(key);
    } catch {
      return undefined;
    }
    const row = told.rows.keys.indexOf(key);
    if (row < 0 || (look.row === row && look.dialog.open)) return undefined;
    if (!sheet.rows.includes(row)) {
      byId("search").value = chosen.text = chosen.endpoint = chosen.change = "";
      byId("by-endpoint").value = byId("by-change").value = "";
      show("all");
    }
    return showLook(look, row);
  };
  window.addEventListener("hashchange", follow);
  follow();
}

begin();
