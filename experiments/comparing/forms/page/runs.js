// Runs as points of any two of their numbers, and as lines through all settings that differ.

const MARKS = ["circle", "square", "triangle", "diamond", "cross"];
const AXES = 8; // of the parallel coordinates that are ticked at first

/** Everything that a run can be placed by: {name, values: one a run, number or text or null, numeric}. */
function variables() {
  const made = [];
  const add = (name, values, kind) => {
    const known = values.filter((value) => value !== null && value !== undefined);
    const numeric = known.every((value) => typeof value === "number");
    if (known.length) made.push({ name, values, numeric, kind, distinct: new Set(known).size });
  };
  for (const { key, values } of report.settings) add(key, values.map((value) => (value === "null" ? null : value)), "setting");
  const { runs } = report;
  for (const metric of Object.keys(report.metrics)) {
    for (const which of ["last", "best", "at"]) add(`${metric}, ${which}`, runs.map((run) => run.values[metric]?.[which] ?? null), "metric");
  }
  const axes = [...new Set(runs.flatMap((run) => Object.keys(run.reached)))];
  for (const axis of axes) add(axis, runs.map((run) => run.reached[axis] ?? null), "cost");
  return made;
}

/** Places of the runs that are shown: their group is, and so is their task. */
function shownRuns(task) {
  return report.runs.flatMap((run, i) => (groups.shows(run.group) && (task === "all" || run.task === task) ? [i] : []));
}

// ---- points ----

function pointsSection() {
  const every = variables().filter((each) => each.numeric);
  const byName = new Map(every.map((each) => [each.name, each]));
  const first = (kind) => every.find((each) => each.kind === kind && each.distinct > 1);
  const y = first("metric") ?? every.find((each) => each.kind === "metric");
  const x = first("setting") ?? every.find((each) => each.name === "hours") ?? every.find((each) => each !== y);
  if (!x || !y) return null;
  const own = { x: x.name, y: y.name, logX: spread(x.values) >= 10, logY: false, task: "all" };
  const told = el("p", { class: "quiet told", "aria-live": "polite" });
  const canvas = el("div", { class: "points" });
  let plot = null;
  const points = () => shownRuns(own.task).flatMap((i) => {
    const [px, py] = [byName.get(own.x).values[i], byName.get(own.y).values[i]];
    const drawn = typeof px === "number" && typeof py === "number" && (!own.logX || px > 0) && (!own.logY || py > 0);
    return drawn ? [{ i, x: px, y: py }] : [];
  });
  const tell = (point) => {
    const all = points();
    const rest = shownRuns(own.task).length - all.length;
    told.textContent = point ? describe(point, own)
      : `${all.length} runs; hollow: not done.${rest ? ` ${rest} have no such value${own.logX || own.logY ? " above 0" : ""}.` : ""} Point at one, or use the arrow keys.`;
  };
  const make = () => {
    plot?.destroy();
    canvas.replaceChildren();
    plot = new Plot(canvas, {
      label: `${own.y} against ${own.x}; arrow keys go from run to run`,
      names: { x: own.x, y: own.y },
      log: { x: own.logX, y: own.logY },
      grid: () => Float64Array.from(points(), (point) => point.x).sort(),
      bounds: () => {
        const span = (key, log) => roomy(widen([Infinity, -Infinity], points().map((point) => point[key]), log), log);
        return { x: span("x", own.logX), y: () => span("y", own.logY) };
      },
      paint: (context, to, { moving }) => moving
        || points().forEach((point) => mark(context, to.x(point.x), to.y(point.y), report.runs[point.i])),
      isSlow: () => report.runs.length > 500,
      hovered: (value, how) => tell(value === null ? null : pointed(plot, points(), how)),
    });
    tell(null);
  };
  groups.listeners.push(() => {
    plot?.update();
    tell(null);
  });
  groups.pointers.push(() => plot?.chart.redraw(false));
  themes.push(() => plot && make());
  const names = every.map((each) => each.name);
  const set = (name) => (value) => {
    own[name] = value;
    make();
  };
  const tools = el("div", { class: "tools" },
    choice("x", names, own.x, set("x")), choice("y", names, own.y, set("y")),
    report.tasks.length > 1 ? choice("task", ["all", ...report.tasks], "all", set("task")) : null,
    checkbox("log x", own.logX, set("logX")), checkbox("log y", false, set("logY")),
    el("button", { type: "button", onclick: () => plot?.reset() }, "Reset zoom"));
  const section = el("section", { id: "points", "aria-labelledby": "points-title" },
    el("h2", { id: "points-title" }, "Runs as points"), tools, canvas, told);
  later(section, make);
  return section;
}

function spread(values) {
  const known = values.filter((value) => typeof value === "number");
  return Math.min(...known) > 0 ? Math.max(...known) / Math.min(...known) : 0;
}

/** With the keys, points are read in the order of x; with the mouse, the nearest within reach. */
function pointed(plot, all, { keyboard, left, top }) {
  if (keyboard) return [...all].sort((a, b) => a.x - b.x)[plot.at];
  let [found, least] = [null, 24 ** 2];
  for (const point of all) {
    const away = (plot.chart.valToPos(point.x, "x") - left) ** 2 + (plot.chart.valToPos(point.y, "y") - top) ** 2;
    if (away < least) [found, least] = [point, away];
  }
  return found;
}

function describe({ i, x, y }, own) {
  const run = report.runs[i];
  return `${run.folder}: ${report.names[run.group]}, ${run.task}, seed ${run.seed}, ${run.state}; ${own.x} ${shown(x)}, ${own.y} ${shown(y)}`;
}

function mark(context, x, y, run) {
  const size = 4.5 * devicePixelRatio;
  Object.assign(context, { fillStyle: colour(run.group), strokeStyle: colour(run.group), lineWidth: 1.5 * devicePixelRatio, globalAlpha: groups.weight(run.group) });
  context.beginPath();
  const corners = {
    square: [[-1, -1], [1, -1], [1, 1], [-1, 1]], triangle: [[0, -1.2], [1.1, 1], [-1.1, 1]],
    diamond: [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
    cross: [[-1, -1], [0, -0.4], [1, -1], [0.4, 0], [1, 1], [0, 0.4], [-1, 1], [-0.4, 0]],
  }[MARKS[Math.floor(run.group / COLOURS) % MARKS.length]];
  if (corners) corners.forEach(([right, down], k) => context[k ? "lineTo" : "moveTo"](x + right * size, y + down * size));
  else context.arc(x, y, size, 0, 2 * Math.PI);
  context.closePath();
  if (run.state === "done") context.fill();
  context.stroke();
}

// ---- parallel coordinates ----

function parallelSection() {
  const every = variables().filter((each) => each.distinct > 1);
  const metrics = every.filter((each) => each.kind === "metric");
  const settings = every.filter((each) => each.kind === "setting");
  if (settings.length < 2 || !metrics.length) return null;
  const on = new Set([...settings.slice(0, AXES - 1), metrics[0]]);
  const own = { colour: metrics[0].name, ranges: new Map(), task: "all", spoken: "" };
  const place = el("div", { class: "parallel" });
  const told = el("p", { class: "quiet told", role: "status" });
  const draw = () => drawParallel(place, told, every.filter((each) => on.has(each)), own, metrics);
  const redraw = oncePerFrame(draw);
  groups.listeners.push(redraw);
  themes.push(redraw);
  const boxes = every.map((each) => checkbox(each.name, on.has(each), (ticked) => {
    if (ticked) on.add(each);
    else on.delete(each);
    own.ranges.delete(each.name);
    own.spoken = "";
    redraw();
  }));
  const set = (name) => (value) => {
    own[name] = value;
    redraw();
  };
  const tools = el("div", { class: "tools" },
    el("details", { class: "menu" }, el("summary", {}, `Axes (${every.length})`), el("div", {}, ...boxes)),
    choice("colour", ["group", ...metrics.map((each) => each.name)], own.colour, set("colour")),
    report.tasks.length > 1 ? choice("task", ["all", ...report.tasks], "all", set("task")) : null,
    el("button", { type: "button", onclick: () => { own.ranges.clear(); own.spoken = ""; redraw(); } }, "Clear ranges"));
  const section = el("section", { id: "parallel", "aria-labelledby": "parallel-title" },
    el("h2", { id: "parallel-title" }, "Runs through their settings"), tools,
    el("p", { class: "quiet" }, "Drag along an axis to keep a range of it. Keys on an axis: ↑ ↓ keep one value and go from value to " +
      "value, Shift ↑ ↓ move the upper end, PageUp and PageDown go by a tenth of them, Home, End, Esc clears, ← → the next axis."),
    place, told);
  later(section, () => new ResizeObserver(redraw).observe(place));
  return section;
}

function drawParallel(place, told, axes, own, metrics) {
  const [width, height, top, bottom] = [Math.max(place.clientWidth, 120 * axes.length), 320, 34, 22];
  const runs = shownRuns(own.task);
  const measures = axes.map((axis, k) => ({
    axis, x: 70 + (k * (width - 140)) / Math.max(axes.length - 1, 1), at: parallelScale(axis, runs, top, height - bottom),
  }));
  const inRange = (i) => [...own.ranges].every(([name, [low, high]]) => {
    const measure = measures.find(({ axis }) => axis.name === name);
    const y = measure?.at(measure.axis.values[i]) ?? NaN;
    return y >= low && y <= high;
  });
  const again = () => drawParallel(place, told, axes, own, metrics);
  const painted = metrics.find((each) => each.name === own.colour);
  const known = painted ? runs.map((i) => painted.values[i]).filter((value) => typeof value === "number") : [];
  const [least, most] = [Math.min(...known), Math.max(...known)];
  const lines = runs.map((i) => {
    const corners = measures.map(({ axis, x, at }) => [x, at(axis.values[i])]);
    const path = corners.map(([x, y], k) => (y === null ? "" : `${k && corners[k - 1][1] !== null ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`)).join("");
    const stroke = painted ? heat((painted.values[i] - least) / (most - least || 1), painted.values[i]) : colour(report.runs[i].group);
    const run = report.runs[i];
    const name = `${run.folder}: ${report.names[run.group]}, seed ${run.seed}; ${axes.map((axis) => `${axis.name} ${shown(axis.values[i])}`).join(", ")}`;
    return svg("path", { d: path, stroke, class: inRange(i) ? "in" : "out", onmouseenter: () => { told.textContent = name; } });
  });
  const count = lines.filter((line) => line.getAttribute("class") === "in").length;
  told.textContent = `${own.spoken}${count} of ${runs.length} runs. Point at a line for its run.` +
    (painted ? ` Colours: ${shown(least)} dark to ${shown(most)} bright.` : "");
  const anchor = (k) => (k === 0 ? "first" : k === axes.length - 1 ? "last" : "");
  const rulers = measures.map((measure, k) => ruler(measure, { top, bottom: height - bottom, anchor: anchor(k) }, own, again));
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.axis : null;
  place.replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": "Settings and values of each run" },
    svg("g", { class: runs.length > 200 ? "lines many" : "lines" }, ...lines), ...rulers));
  if (focused) handles(place).find((handle) => handle.dataset.axis === focused)?.focus({ preventScroll: true });
}

function handles(place) {
  return [...place.querySelectorAll(".handle")];
}

/** The values of an axis that its range keeps, by number from the lowest: [first, last], or null where it keeps all. */
function keptValues({ heights }, range) {
  const kept = range ? heights.flatMap((y, i) => (y >= range[0] && y <= range[1] ? [i] : [])) : [];
  return kept.length ? [kept[0], kept[kept.length - 1]] : null;
}

/** What a key makes of [first, last] kept of `count` values; null: all are kept; undefined: not its key. */
function keyedRange(event, kept, count) {
  const tenth = Math.max(Math.round(count / 10), 1);
  const by = { ArrowUp: 1, ArrowDown: -1, PageUp: tenth, PageDown: -tenth, Home: -count, End: count }[event.key];
  if (["Escape", "Delete", "Backspace"].includes(event.key)) return null;
  if (by === undefined || event.ctrlKey || event.altKey || event.metaKey) return undefined;
  const limited = (value, low) => Math.min(Math.max(value, low), count - 1);
  if (!kept) return ["ArrowUp", "PageUp", "Home"].includes(event.key) ? [0, 0] : [count - 1, count - 1];
  if (event.shiftKey) return [kept[0], limited(kept[1] + by, kept[0])];
  const first = limited((by > 0 ? kept[1] : kept[0]) + by, 0);
  return [first, first];
}

/** From a value to its height: numbers evenly or in logarithms, texts in their order; null where a run has none. */
function parallelScale(axis, runs, top, bottom) {
  const known = [...new Set(axis.values.filter((value) => value !== null && value !== undefined))];
  const up = (share) => bottom - share * (bottom - top);
  if (!axis.numeric) {
    const order = known.map(String).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const at = (value) => (value === null || value === undefined ? null : up(order.length > 1 ? order.indexOf(String(value)) / (order.length - 1) : 0.5));
    return Object.assign(at, { marks: order, values: order });
  }
  const log = spread(known) >= 10;
  const measure = log ? Math.log : (value) => value;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const at = (value) => (value === null || value === undefined ? null : up((measure(value) - measure(low)) / (measure(high) - measure(low) || 1)));
  const marks = known.length <= 6 ? known : [low, ...[0.25, 0.5, 0.75].map((share) => {
    const value = measure(low) + share * (measure(high) - measure(low));
    return Number((log ? Math.exp(value) : value).toPrecision(2));
  }), high];
  return Object.assign(at, { marks, log, values: known.sort((a, b) => a - b) });
}

function ruler({ axis, x, at }, { top, bottom, anchor }, own, redraw) {
  const { ranges } = own;
  const { values } = at;
  const heights = values.map(at);
  const marks = at.marks.map((value) => svg("text", { x: x + 9, y: at(value) + 4 }, short(shown(value), 16)));
  const title = svg("text", { x: x + ({ first: -66, last: 66 }[anchor] ?? 0), y: 14, class: `title ${anchor}` }, short(axis.name, 28), svg("title", {}, axis.name + (at.log ? " (log)" : "")));
  const range = ranges.get(axis.name);
  const kept = range && svg("rect", { x: x - 6, y: range[0], width: 12, height: range[1] - range[0], class: "kept" });
  const ends = keptValues({ heights }, range);
  const texts = (two) => (two ? [...new Set(two.map((i) => shown(values[i])))].join(" to ") : "all");
  const handle = svg("rect", {
    x: x - 14, y: top - 6, width: 28, height: bottom - top + 12, class: "handle", "data-axis": axis.name, tabindex: 0, role: "slider",
    "aria-orientation": "vertical", "aria-label": `Kept of ${axis.name}`, "aria-valuemin": 0, "aria-valuemax": values.length - 1,
    "aria-valuenow": ends?.[1] ?? 0, "aria-valuetext": range && !ends ? "none" : texts(ends),
  });
  handle.addEventListener("keydown", (event) => {
    const side = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const next = side ? undefined : keyedRange(event, ends, values.length);
    if (!side && next === undefined) return;
    event.preventDefault();
    if (side) {
      const every = handles(handle.ownerSVGElement);
      every[every.indexOf(handle) + side]?.focus();
      return;
    }
    if (next) {
      const half = (i, k) => (i in heights && k in heights ? Math.min(Math.abs(heights[i] - heights[k]) / 2.1, 5) : 5);
      ranges.set(axis.name, [heights[next[1]] - half(next[1], next[1] + 1), heights[next[0]] + half(next[0], next[0] - 1)]);
    } else ranges.delete(axis.name);
    own.spoken = `${axis.name}: ${texts(next)}. `;
    redraw();
  });
  handle.addEventListener("pointerdown", (event) => {
    const scale = handle.ownerSVGElement.getBoundingClientRect();
    const height = (now) => now.clientY - scale.top;
    const start = height(event);
    const end = new AbortController();
    addEventListener("pointerup", (last) => {
      end.abort();
      const [low, high] = [start, height(last)].sort((a, b) => a - b);
      if (high - low < 4) ranges.delete(axis.name);
      else ranges.set(axis.name, [low, high]);
      own.spoken = "";
      redraw();
    }, end);
  });
  return svg("g", { class: "ruler" }, svg("line", { x1: x, x2: x, y1: top, y2: bottom }), kept ?? "", ...marks, title, handle);
}

function short(text, most) {
  return text.length > most ? `…${text.slice(1 - most)}` : text;
}

/** Dark blue to yellow, told apart without red and green. */
function heat(share, value) {
  if (typeof value !== "number") return ink("quiet");
  const stops = [[0, 60, 130], [70, 95, 140], [125, 124, 120], [180, 155, 90], [235, 190, 40]];
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const [from, to] = [stops[Math.floor(place)], stops[Math.ceil(place)]];
  return `rgb(${from.map((part, k) => Math.round(part + (to[k] - part) * (place % 1))).join(" ")})`;
}
