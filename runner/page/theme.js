// The page's colours, as scripts that draw need them, and the button that changes between light and dark.
"use strict";
const nonce = document.currentScript.nonce;
const byId = (id) => document.getElementById(id);

/** Return a new element; texts become text nodes, never markup. */
function make(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "style") Object.assign(element.style, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const theme = {
  listeners: [],
  known: new Map(),
  /** Return a custom property as a colour that a canvas takes. */
  colour(name) {
    let found = theme.known.get(name);
    if (found === undefined) {
      const probe = make("i", { style: { color: `var(--${name})`, display: "none" } });
      document.body.append(probe);
      found = getComputedStyle(probe).color;
      probe.remove();
      theme.known.set(name, found);
    }
    return found;
  },
  onChange(listener) {
    theme.listeners.push(listener);
  },
  changed() {
    theme.known.clear();
    for (const listener of theme.listeners) listener();
  },
  isDark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  },
};

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme.changed());
byId("theme").addEventListener("click", () => {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const next = theme.isDark() ? "light" : "dark";
  if (next === system) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  const said = next === system ? "as the system has them" : next;
  byId("theme").setAttribute("aria-label", `Colours: ${said}`);
  theme.changed();
});
