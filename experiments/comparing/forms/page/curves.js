// Curves: a figure for each metric and task, drawn when it is scrolled to.

const STATISTICS = [["mean", "mean"], ["median", "median"], ["iqm", "IQM"]];
const MANY = 5_000; // points above which a figure is slow to draw

const look = {
  metric: null, axis: null, statistic: "mean", seeds: true, logX: false, logY: false, smooth: 0,
  tasks: "", published: new Set(),
};

function curvesSection() {
  const axes = [...new Set(report.curves.flatMap((curve) => Object.keys(curve.bands)))];
  const metrics = [...new Set(report.curves.map((curve) => curve.metric))];
  Object.assign(look, { metric: metrics[0], axis: axes[0] });
  const place = el("div", { class: "figures" });
  let figures = [];
  const remake = () => {
    figures.forEach((figure) => figure.destroy());
    figures = report.tasks
      .filter((task) => task.toLowerCase().includes(look.tasks))
      .map((task) => new Figure(look.metric, task))
      .filter((figure) => figure.series.length);
    place.replaceChildren(...figures.map((figure) => figure.node));
    place.classList.toggle("single", figures.length === 1);
    remakeNotes();
  };
  const redraw = () => figures.forEach((figure) => figure.change());
  const rebuild = () => figures.forEach((figure) => figure.rebuild());
  const told = el("p", { class: "quiet", role: "status" });
  const remakeNotes = () => {
    told.textContent = `${figures.length} of ${report.tasks.length} tasks`;
  };
  groups.listeners.push(redraw);
  groups.pointers.push(() => figures.forEach((figure) => figure.seen && figure.plot?.chart.redraw(false)));
  themes.push(rebuild);
  const set = (name, then) => (value) => {
    look[name] = value;
    then();
  };
  const smoothing = el("input", { type: "range", min: 0, max: 30, step: 1, value: 0, "aria-label": "Smoothing window" });
  const window_ = el("output", {}, "0 %");
  smoothing.addEventListener("input", () => {
    window_.textContent = `${smoothing.value} %`;
    look.smooth = smoothing.value / 100;
    redraw();
  });
  const tools = el("div", { class: "tools" },
    metrics.length > 1 ? choice("metric", metrics, look.metric, set("metric", remake)) : null,
    choice("x-axis", axes, look.axis, set("axis", rebuild)),
    choice("over seeds", STATISTICS, look.statistic, set("statistic", redraw)),
    checkbox("single seeds", look.seeds, set("seeds", redraw)),
    checkbox("log x", false, set("logX", rebuild)),
    checkbox("log y", false, set("logY", rebuild)),
    el("label", { class: "field" }, el("span", {}, "smooth"), smoothing, window_),
    dragChoice(),
    el("button", { type: "button", onclick: () => figures.forEach((figure) => figure.plot?.reset()) }, "Reset zoom"),
    report.tasks.length > 1 ? search("Filter tasks", set("tasks", remake)) : null,
    report.tasks.length > 1 ? told : null);
  const section = el("section", { id: "curves", "aria-labelledby": "curves-title" },
    el("h2", { id: "curves-title" }, "Curves"), tools,
    el("p", { class: "quiet" }, "Lines: over seeds, thinner where some have no value; bands: 95 % intervals, none for " +
      "one seed, cut where they leave the figure; pale: single seeds; ticks: where runs were resumed. Drag: zoom; Shift " +
      "and drag: pan; Ctrl and wheel: nearer; double click: all. Keys: ← → read, Shift ← → pan, + − zoom, Esc all. " +
      "Smoothing averages over a window of x about each place; figures stay raw."),
    place);
  remake();
  return section;
}

function dragChoice() {
  return choice("drag", ["zoom", "pan"], Plot.drag, (value) => {
    Plot.drag = value;
  });
}

class Figure {
  constructor(metric, task) {
    Object.assign(this, { metric, task, plot: null, seen: false, stale: false });
    const own = report.curves.filter((curve) => curve.metric === metric && curve.task === task);
    const repeated = (curve) => own.filter((other) => other.group === curve.group).length > 1;
    this.series = own.map((curve) => ({
      curve,
      name: report.names[curve.group] + (repeated(curve) ? ` (protocol ${curve.protocol})` : ""),
    }));
    this.published = report.published.filter((each) => each.metric === metric && each.task === task);
    this.canvas = el("div");
    this.live = el("p", { class: "unseen", "aria-live": "polite" });
    this.table = el("tbody");
    this.where = el("caption");
    this.notes = el("div", { class: "notes-of-figure" });
    this.node = el("article", { class: "figure", "data-task": task }, el("h3", {}, `${metric} · ${task}`), this.canvas,
      this.live, el("div", { class: "readout", tabindex: 0, role: "region", "aria-label": "Values at the cursor" },
        el("table", {}, this.where, this.table)), this.references(), this.notes);
    this.watch = new IntersectionObserver(([entry]) => this.scrolled(entry.isIntersecting), { rootMargin: "300px" });
    this.watch.observe(this.node);
    this.printed = () => printing.matches && this.scrolled(true);
    printing.addEventListener("change", this.printed);
    this.read = oncePerFrame(() => this.readOut());
  }

  destroy() {
    this.watch.disconnect();
    printing.removeEventListener("change", this.printed);
    this.plot?.destroy();
  }

  scrolled(seen) {
    this.seen = seen;
    if (seen && !this.plot) this.rebuild();
    else if (seen && this.stale) this.change();
  }

  rebuild() {
    if (!this.seen && !this.plot) return;
    this.plot?.destroy();
    this.canvas.replaceChildren();
    this.plot = new Plot(this.canvas, {
      label: `${this.metric} on ${this.task} over ${look.axis}; arrow keys read its values`,
      names: { x: look.axis, y: "" },
      log: { x: look.logX, y: look.logY },
      grid: () => this.grid(),
      bounds: () => this.bounds(),
      paint: (context, to, state) => this.paint(context, to, state),
      isSlow: () => this.isSlow(),
      hovered: (x, how) => this.hovered(x, how),
    });
    this.rewrite();
  }

  /** After groups, the statistic or the like have changed. */
  change() {
    this.stale = !this.seen;
    if (this.stale || !this.plot) return;
    this.plot.update();
    this.rewrite();
  }

  rewrite() {
    this.rows = null;
    this.x = null;
    this.readOut();
    this.notes.replaceChildren(...this.remarks());
  }

  visible() {
    return this.series.filter(({ curve }) => groups.shows(curve.group) && curve.bands[look.axis]);
  }

  /** Every x at which a shown group has a value. */
  grid() {
    const every = this.visible().map(({ curve }) => numbers(curve.bands[look.axis].x));
    const low = look.logX ? Number.MIN_VALUE : -Infinity;
    const joined = Float64Array.from(new Set(every.flatMap((xs) => Array.from(xs)))).sort();
    return joined.filter((x) => x >= low);
  }

  /** The lines' own range; bands that reach beyond are cut, so that one wide interval flattens nothing. */
  bounds() {
    const visible = this.visible();
    const xs = visible.map(({ curve }) => numbers(curve.bands[look.axis].x));
    const x = roomy(xs.reduce((span, own) => widen(span, own, look.logX), [Infinity, -Infinity]), look.logX);
    return { x, y: (seen) => this.height(visible, seen) };
  }

  height(visible, seen) {
    const within = (xs, values, span) => {
      const [from, to] = [before(xs, seen[0]), before(xs, seen[1]) + 1];
      return widen(span, values, look.logY, Math.max(from, 0), Math.min(to, values.length - 1));
    };
    const [lines, bands] = [[Infinity, -Infinity], [Infinity, -Infinity]];
    for (const { curve } of visible) {
      const band = curve.bands[look.axis];
      const x = numbers(band.x);
      within(x, numbers(band.center[look.statistic]), lines);
      within(x, numbers(band.low[look.statistic]), bands);
      within(x, numbers(band.high[look.statistic]), bands);
      for (const line of curve.lines) if (line.axes[look.axis]) within(numbers(line.axes[look.axis]), numbers(line.values), lines);
    }
    for (const each of this.published) {
      if (!look.published.has(each) || each.axis !== look.axis) continue;
      within(numbers(each.x), numbers(each.mean), lines);
      for (const side of spreadOf(each) ?? []) within(numbers(each.x), side, bands);
    }
    const room = look.logY ? 0 : (lines[1] - lines[0]) / 3;
    return roomy([Math.max(Math.min(lines[0], bands[0]), lines[0] - room), Math.min(Math.max(lines[1], bands[1]), lines[1] + room)], look.logY);
  }

  isSlow() {
    return this.visible().reduce((sum, { curve }) => sum + this.points(curve), 0) > MANY;
  }

  points(curve) {
    const own = (place) => place.array?.[2] ?? place.length;
    const seeds = look.seeds ? curve.lines.reduce((sum, line) => sum + own(line.values), 0) : 0;
    return seeds + 3 * own(curve.bands[look.axis].x);
  }

  /** All of it, or while the view moves the averages alone. */
  paint(context, to, { x, moving }) {
    const visible = this.visible();
    const pen = new Pen(context, to, x);
    if (!moving) {
      for (const { curve } of visible) pen.band(curve.bands[look.axis], curve.group);
      const among = visible.reduce((sum, { curve }) => sum + curve.lines.length, 0);
      if (look.seeds) for (const { curve } of visible) this.paintSeeds(pen, curve, among);
    }
    for (const { curve } of visible) this.paintAverage(pen, curve, moving);
    for (const each of this.published) if (look.published.has(each)) pen.published(each);
  }

  /** Thin where seeds are missing, so that a step from a change of n is seen as one. */
  paintAverage(pen, curve, moving) {
    const band = curve.bands[look.axis];
    const [xs, n, raw] = [band.x, band.n, band.center[look.statistic]].map(numbers);
    const most = n.reduce((all, own) => Math.max(all, own), 0);
    const values = look.smooth ? smoothed(xs, raw, look.smooth) : raw;
    const style = { colour: colour(curve.group), alpha: groups.weight(curve.group) };
    if (moving) return pen.line(xs, values, { ...style, width: 1 });
    if (look.smooth) pen.line(xs, raw, { ...style, width: 1, alpha: 0.4 * style.alpha });
    pen.line(xs, values, { ...style, width: 1, dash: dash(curve.group) });
    pen.line(xs, values.map((value, i) => (n[i] === most ? value : NaN)), { ...style, width: 2.2, dash: dash(curve.group) });
    return undefined;
  }

  /** The more lines there are the paler they are. */
  paintSeeds(pen, curve, among) {
    const alpha = 0.35 * Math.max(Math.min(Math.sqrt(30 / among), 1), 0.2) * groups.weight(curve.group);
    for (const line of curve.lines) {
      if (!line.axes[look.axis]) continue;
      const [xs, values] = [numbers(line.axes[look.axis]), numbers(line.values)];
      pen.line(xs, values, { colour: colour(curve.group), width: 1, alpha });
      for (const seam of line.seams[look.axis] ?? []) pen.seam(seam, values[nearest(xs, seam)], colour(curve.group));
    }
  }

  hovered(x, { keyboard }) {
    this.x = x;
    this.aloud = keyboard;
    this.read();
  }

  /** The values of each shown group at the cursor, or at its end: of its own x nearest to it. */
  readOut() {
    const visible = this.visible();
    this.rows ??= visible.map(({ curve, name }) => {
      const cells = ["value", "interval", "n", "at"].map((kind) => el("td", { class: kind }));
      const row = el("tr", { "data-group": report.groups[curve.group] }, el("th", { scope: "row" }, groupName(curve.group, name)), ...cells);
      return { row, cells };
    });
    if (this.table.childElementCount !== visible.length || this.table.firstChild !== this.rows[0]?.row) {
      this.table.replaceChildren(...this.rows.map(({ row }) => row));
    }
    const spoken = visible.map(({ curve, name }, index) => {
      const told = this.at(curve.bands[look.axis]);
      const texts = [shown(told.value), told.low === null ? "" : shown([told.low, told.high]), `n = ${told.n}`, told.elsewhere];
      texts.forEach((text, cell) => {
        const node = this.rows[index].cells[cell];
        if (node.textContent !== text) node.textContent = text;
      });
      return `${name}: ${texts.filter(Boolean).join(", ")}`;
    });
    const where = this.x === null ? `at the end of each, ${look.axis}` : `${look.axis} ${shown(this.x)}`;
    this.where.textContent = where;
    if (this.aloud) this.live.textContent = [where, ...spoken].join("; ");
    this.aloud = false;
  }

  at(band) {
    const x = numbers(band.x);
    const index = this.x === null ? x.length - 1 : nearest(x, this.x);
    const pick = (place) => {
      const value = numbers(place)[index];
      return value === undefined || Number.isNaN(value) ? null : value;
    };
    const elsewhere = this.x === null || x[index] !== this.x ? `at ${shown(x[index])}` : "";
    return {
      value: pick(band.center[look.statistic]), low: pick(band.low[look.statistic]),
      high: pick(band.high[look.statistic]), n: pick(band.n), elsewhere,
    };
  }

  /** Published curves, each to be ticked. */
  references() {
    if (!this.published.length) return null;
    return el("div", { class: "references" }, ...this.published.map((each) => checkbox(
      `${each.label}: ${each.protocol ?? "protocol not known"}${each.std ? "; shaded: its standard deviation over runs" : ""} (${each.source ?? "no source"})`, false, (on) => {
        if (on) look.published.add(each);
        else look.published.delete(each);
        this.change();
      })));
  }

  /** Which runs end early, what was thinned, which groups lack this axis. */
  remarks() {
    const own = this.series.filter(({ curve }) => groups.shows(curve.group));
    const told = [];
    const short = own.flatMap(({ curve, name }) => curve.short.map(([folder, why]) => [name, folder, why]));
    if (short.length) {
      const items = short.map(([name, folder, why]) => el("li", {}, el("code", {}, folder), ` ${why} (${name})`));
      told.push(el("div", {}, `${short.length} ${short.length === 1 ? "run is" : "runs are"} not done:`, el("ul", {}, ...items)));
    }
    const lines = own.flatMap(({ curve }) => curve.lines);
    const rows = lines.reduce((sum, line) => sum + line.rows, 0);
    const drawn = lines.reduce((sum, line) => sum + numbers(line.values).length, 0);
    const bands = this.visible().map(({ curve }) => curve.bands[look.axis]);
    const places = bands.reduce((sum, band) => sum + band.places, 0);
    const kept = bands.reduce((sum, band) => sum + numbers(band.x).length, 0);
    if (drawn < rows || kept < places) {
      told.push(el("p", {}, `Thinned for drawing, extremes stay: ${shown(drawn)} of ${shown(rows)} rows of single seeds, ` +
        `${shown(kept)} of ${shown(places)} places of averages.`));
    }
    const without = own.filter(({ curve }) => !curve.bands[look.axis]).map(({ name }) => name);
    if (without.length) told.push(el("p", {}, `Without ${look.axis} in their rows: ${without.join(", ")}.`));
    if (look.logX || look.logY) told.push(el("p", {}, "A log axis has no place for values at or below 0."));
    return told;
  }
}

/** Draws along an x-axis, what is near [low, high] only. */
class Pen {
  constructor(context, to, seen, logY = look.logY) {
    Object.assign(this, { context, to, seen, logY });
    this.scale = devicePixelRatio;
  }

  range(xs) {
    return [Math.max(before(xs, this.seen[0]), 0), Math.min(before(xs, this.seen[1]) + 2, xs.length)];
  }

  line(xs, values, { colour: ink_, width, alpha = 1, dash: pattern = [] }) {
    const { context, to } = this;
    const [from, end] = this.range(xs);
    Object.assign(context, { strokeStyle: ink_, fillStyle: ink_, lineWidth: width * this.scale, globalAlpha: alpha, lineJoin: "bevel" });
    context.setLineDash(pattern.map((length) => length * this.scale));
    context.beginPath();
    const alone = [];
    let open = false;
    for (let i = from; i < end; i += 1) {
      const [x, y] = [to.x(xs[i]), to.y(values[i])];
      if (Number.isNaN(x) || Number.isNaN(y)) {
        open = false;
        continue;
      }
      if (open) context.lineTo(x, y);
      else context.moveTo(x, y);
      if (!open && !(i + 1 < values.length && Number.isFinite(values[i + 1]))) alone.push([x, y]);
      open = true;
    }
    context.stroke();
    for (const [x, y] of alone) this.dot(x, y, width + 1);
    context.setLineDash([]);
    context.globalAlpha = 1;
  }

  dot(x, y, radius) {
    this.context.beginPath();
    this.context.arc(x, y, radius * this.scale, 0, 2 * Math.PI);
    this.context.fill();
  }

  /** The interval as an area, a stroke where it stands alone. */
  band(band, group) {
    this.interval(band.x, band.low[look.statistic], band.high[look.statistic], colour(group), groups.weight(group));
  }

  interval(xs, lows, highs, ink_, weight = 1) {
    const [x, low, high] = [xs, lows, highs].map(numbers);
    const [from, end] = this.range(x);
    Object.assign(this.context, { fillStyle: ink_, strokeStyle: ink_, globalAlpha: 0.14 * weight, lineWidth: 3 * this.scale });
    let start = from;
    for (let i = from; i <= end; i += 1) {
      if (i < end && Number.isFinite(low[i]) && Number.isFinite(high[i])) continue;
      if (i > start) this.area(x, low, high, start, i);
      start = i + 1;
    }
    this.context.globalAlpha = 1;
  }

  area(xs, low, high, from, end) {
    const { context, to } = this;
    const y = (value) => (value > 0 || !this.logY ? to.y(value) : context.canvas.height); // 0 lies below a log axis
    context.beginPath();
    context.moveTo(to.x(xs[from]), y(high[from]));
    for (let i = from; i < end; i += 1) context.lineTo(to.x(xs[i]), y(high[i]));
    for (let i = end - 1; i >= from; i -= 1) context.lineTo(to.x(xs[i]), y(low[i]));
    if (end - from > 1) context.fill();
    else context.stroke();
  }

  /** Where a run went on. */
  seam(x, value, ink_) {
    const { context, to, scale } = this;
    const [at, middle] = [to.x(x), to.y(value)];
    if (Number.isNaN(at) || Number.isNaN(middle)) return;
    Object.assign(context, { strokeStyle: ink_, lineWidth: 1.5 * scale });
    context.beginPath();
    context.moveTo(at, middle - 5 * scale);
    context.lineTo(at, middle + 5 * scale);
    context.stroke();
  }

  published(each) {
    if (each.axis !== look.axis) return;
    const [x, mean] = [numbers(each.x), numbers(each.mean)];
    const spread = spreadOf(each);
    if (spread) this.interval(each.x, ...spread, ink("quiet"));
    this.line(x, mean, { colour: ink("quiet"), width: 1.5, dash: [4, 4] });
  }
}

/** The mean of a published curve less and plus the standard deviation over its runs; null where that is not known. */
function spreadOf(each) {
  if (each.std === null) return null;
  const [mean, std] = [numbers(each.mean), numbers(each.std)];
  return [-1, 1].map((side) => mean.map((value, i) => value + side * std[i]));
}

/** Averages over a window of x, a share of all of it, as wide to the left as to the right; gaps stay. */
function smoothed(xs, values, share) {
  const width = share * (xs[xs.length - 1] - xs[0]);
  const found = Float64Array.from(values);
  for (let from = 0; from < xs.length; from += 1) {
    if (!Number.isFinite(values[from])) continue;
    let end = from;
    while (end + 1 < xs.length && Number.isFinite(values[end + 1])) end += 1;
    const part = [xs.subarray(from, end + 1), values.subarray(from, end + 1)];
    const sums = integrals(...part);
    for (let i = from; i <= end; i += 1) {
      const half = Math.min(width / 2, xs[i] - xs[from], xs[end] - xs[i]);
      if (half > 0) found[i] = (integral(...part, sums, xs[i] + half) - integral(...part, sums, xs[i] - half)) / (2 * half);
    }
    from = end;
  }
  return found;
}

function integrals(xs, values) {
  const sums = new Float64Array(xs.length);
  for (let i = 1; i < xs.length; i += 1) sums[i] = sums[i - 1] + ((xs[i] - xs[i - 1]) * (values[i] + values[i - 1])) / 2;
  return sums;
}

/** Of the line through the values, up to x. */
function integral(xs, values, sums, x) {
  const i = Math.min(Math.max(before(xs, x), 0), xs.length - 1);
  if (i === xs.length - 1) return sums[i];
  const share = (x - xs[i]) / (xs[i + 1] - xs[i]);
  const value = values[i] + share * (values[i + 1] - values[i]);
  return sums[i] + ((x - xs[i]) * (values[i] + value)) / 2;
}
