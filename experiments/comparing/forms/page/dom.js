"use strict";
// Elements. Whatever comes from the runs becomes text or an attribute's value here, never markup.

const SVG = "http://www.w3.org/2000/svg";
const printing = matchMedia("print"); // on paper all is drawn, in light colours

/** An element; `properties` are attributes, `on…` listeners. */
function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A labelled checkbox. */
function checkbox(text, checked, changed) {
  const box = el("input", { type: "checkbox", checked, onchange: () => changed(box.checked) });
  return el("label", { class: "check" }, box, el("span", {}, text));
}

/** A labelled choice; `options` are texts or [value, text]. */
function choice(text, options, value, changed) {
  const select = el("select", { "aria-label": text, onchange: () => changed(select.value) });
  for (const option of options) {
    const [own, shownAs] = Array.isArray(option) ? option : [option, option];
    select.append(el("option", { value: own }, shownAs));
  }
  select.value = value;
  return el("label", { class: "field" }, el("span", {}, text), select);
}

/** A field that calls `changed` with its text in lower case while it is typed. */
function search(text, changed) {
  const input = el("input", { type: "search", "aria-label": text, placeholder: text });
  input.addEventListener("input", () => changed(input.value.trim().toLowerCase()));
  return input;
}

/** Calls `work` once in the next frame, however often it was asked for before. */
function oncePerFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

// ---- numbers, as tables.py shows them ----

const NUMBER = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

function shown(cell) {
  if (cell === null || cell === undefined) return "";
  if (Array.isArray(cell)) return `[${cell.map(shown).join(", ")}]`;
  if (typeof cell !== "number") return String(cell);
  if (!Number.isFinite(cell)) return "";
  const size = Math.abs(cell);
  if (size >= 1e15) return cell.toExponential(3);
  if (size >= 1e4 || Number.isInteger(cell)) return NUMBER.format(cell);
  return size < 1e-4 ? cell.toExponential(3).replace(/\.?0+e/, "e") : String(Number(cell.toPrecision(4)));
}

/** For the ticks of an axis: 20M, 150k, 0.25. */
function compact(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= unit) return `${Number((value / (letter === "k" ? 1e3 : unit)).toPrecision(6))}${letter}`;
  }
  return size && size < 1e-3 ? value.toExponential().replace("e-0", "e-") : String(Number(value.toPrecision(6)));
}

// ---- colours of canvases: the style's own, as the theme has them ----

const probe = el("span", { hidden: true });
const inks = new Map();

function ink(name) {
  if (!inks.has(name)) {
    if (!probe.isConnected) document.body.append(probe);
    probe.style.color = `var(--${name})`;
    inks.set(name, getComputedStyle(probe).color);
  }
  return inks.get(name);
}
