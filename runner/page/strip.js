// The first results beside what they were made from, under the verdict: what ran, at a glance.

const STRIP = 12;

function makeStrip(told) {
  const strip = byId("strip");
  const { rows } = told;
  const saved = told.states.indexOf("saved");
  const shown = [];
  for (let row = 0; row < rows.keys.length && shown.length < STRIP; row++) {
    const url = rows.state[row] === saved ? pictureUrl(told, row, "thumbnail") : "";
    if (url?.startsWith("data:")) shown.push([row, url]);
  }
  strip.hidden = shown.length === 0;
  strip.append(...shown.map(([row, url]) => pairOf(told, row, url)));
  if (shown.length) new ResizeObserver(() => hideCut(strip)).observe(strip);
}

/** Hide the pairs that fit no more into the row: what nobody sees nobody should come upon otherwise. */
function hideCut(strip) {
  const pairs = [...strip.children];
  for (const one of pairs) one.hidden = false;
  const cut = pairs.map((one) => one.offsetTop > pairs[0].offsetTop);
  pairs.forEach((one, place) => (one.hidden = cut[place]));
}

function pairOf(told, row, url) {
  const key = told.rows.keys[row];
  const prompt = pictureUrl(told, row, "prompt");
  const made = make("a", { href: hashOf(key), class: "made", tabindex: "-1", title: key, "aria-label": `${key}: look at it` });
  if (prompt?.startsWith("data:")) made.append(make("img", { src: prompt, alt: "", class: "from" }), make("i", { "aria-hidden": "true" }, "→"));
  made.append(make("img", { src: url, alt: "" }));
  return made;
}
