// The report's data, and what of it is shown: which groups, in which colours.

let report = null; // what page.py's `content` made

/** Unpacks what page.py's `packed` made. */
async function unpack() {
  const raw = decoded(document.getElementById("data").textContent);
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const values = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  return { ...values, buffer, start: 8 + length };
}

function decoded(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

/** The numbers behind {"array": […]}; those that were read stay. */
function numbers(place) {
  if (!place.array) return place;
  if (!place.read) {
    const [kind, offset, length] = place.array;
    const from = report.start + offset;
    if (kind === "float32") place.read = new Float32Array(report.buffer, from, length);
    else if (kind === "float64") place.read = new Float64Array(report.buffer, from, length);
    else place.read = summed(new Int32Array(report.buffer, from, length));
  }
  return place.read;
}

function summed(steps) {
  const values = new Float64Array(steps.length);
  let sum = 0;
  for (let i = 0; i < steps.length; i += 1) values[i] = sum += steps[i];
  return values;
}

/** The last index whose value is at most `value` in ascending numbers; -1 where there is none. */
function before(values, value) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** The index of the nearest of ascending numbers. */
function nearest(values, value) {
  const at = Math.max(before(values, value), 0);
  return at + 1 < values.length && values[at + 1] - value < value - values[at] ? at + 1 : at;
}

// ---- groups ----

const COLOURS = 8;
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [14, 4]];

/** Which groups are shown. Hiding one changes no number and no colour. */
const groups = {
  unchecked: new Set(),
  filter: "",
  emphasised: null, // the one that is pointed at in the list
  listeners: [],
  pointers: [], // called when another is emphasised
  shows(index) {
    return !this.unchecked.has(index) && (report.groups[index] ?? "").toLowerCase().includes(this.filter);
  },
  changed() {
    for (const listener of this.listeners) listener();
  },
  emphasise(index) {
    this.emphasised = index;
    for (const pointer of this.pointers) pointer();
  },
  /** How strongly a group is drawn. */
  weight(index) {
    return this.emphasised === null || this.emphasised === index ? 1 : 0.15;
  },
};

function colour(index) {
  return ink(`c${index % COLOURS}`);
}

function dash(index) {
  return DASHES[Math.floor(index / COLOURS) % DASHES.length];
}

/** A piece of a group's line. */
function swatch(index) {
  const line = svg("line", {
    x1: 0, x2: 22, y1: 5, y2: 5, class: `c${index % COLOURS}`, "stroke-dasharray": dash(index).join(" "),
  });
  return svg("svg", { class: "swatch", width: 22, height: 10, "aria-hidden": "true" }, line);
}

/** A group's line and name. */
function groupName(index, text = report.names[index]) {
  return el("span", { class: "group", title: report.groups[index] }, swatch(index), el("span", {}, text));
}

/** The list of groups: a filter, all or none, a checkbox each. */
function groupList(place) {
  const count = el("p", { class: "quiet", role: "status" });
  const rows = report.groups.map((name, index) => {
    const box = checkbox(report.names[index], true, (on) => {
      if (on) groups.unchecked.delete(index);
      else groups.unchecked.add(index);
      groups.changed();
    });
    box.insertBefore(swatch(index), box.lastChild);
    const point = { onmouseenter: () => groups.emphasise(index), onmouseleave: () => groups.emphasise(null) };
    return el("li", { "data-group": name, title: name, ...point }, box);
  });
  const all = (on) => {
    report.groups.forEach((name, index) => {
      if (!name.toLowerCase().includes(groups.filter)) return;
      if (on) groups.unchecked.delete(index);
      else groups.unchecked.add(index);
    });
    groups.changed();
  };
  const filter = search("Filter groups", (text) => {
    groups.filter = text;
    groups.changed();
  });
  const update = () => {
    let visible = 0;
    rows.forEach((row, index) => {
      row.hidden = !report.groups[index].toLowerCase().includes(groups.filter);
      row.querySelector("input").checked = !groups.unchecked.has(index);
      visible += groups.shows(index);
    });
    count.textContent = `${visible} of ${rows.length} shown; hiding changes no number`;
  };
  groups.listeners.push(update);
  update();
  const buttons = el("div", { class: "row" },
    el("button", { type: "button", onclick: () => all(true) }, "All"),
    el("button", { type: "button", onclick: () => all(false) }, "None"));
  const open = matchMedia("(min-width: 64rem)").matches;
  place.append(el("details", { open }, el("summary", {}, "Groups"),
    el("div", { class: "tools" }, filter, buttons), el("ul", { class: "grouplist" }, ...rows), count));
}
