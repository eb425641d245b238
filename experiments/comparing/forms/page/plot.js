// A frame to draw in: uPlot's axes and cursor, with zoom, pan and keys. What is in it, `paint` draws.

const MOVING = 150; // milliseconds after a zoom or a pan until all is drawn anew

/**
 * `options`: label; names {x, y}; log {x, y}; grid() -> ascending x at which the cursor stops; bounds() -> {x: [low,
 * high], y: (x) => [low, high]}; paint(context, to, {x, moving}), where to = {x, y} map values to pixels; isSlow() -> whether
 * that takes long; hovered(x or null, {keyboard, left, top}).
 */
class Plot {
  constructor(place, options) {
    Object.assign(this, { place, options, zoom: null, still: null, picture: null });
    place.classList.add("plot");
    filled(place, { tabindex: 0, role: "group", "aria-roledescription": "figure", "aria-label": options.label }, []);
    this.grid = options.grid();
    this.view = this.whole();
    this.chart = new uPlot(this.chartOptions(), this.data(), place);
    this.chart.over.addEventListener("mousedown", (event) => this.press(event), true);
    this.chart.over.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.keys = (event) => this.key(event);
    place.addEventListener("keydown", this.keys);
    this.resized = new ResizeObserver(oncePerFrame(() => this.resize()));
    this.resized.observe(place);
  }

  destroy() {
    clearTimeout(this.still);
    this.resized.disconnect();
    this.place.removeEventListener("keydown", this.keys);
    this.chart.destroy();
  }

  /** After what is shown has changed. */
  update() {
    this.grid = this.options.grid();
    this.view = this.zoom ?? this.whole();
    this.chart.setData(this.data(), false);
    this.apply();
  }

  reset() {
    this.zoom = null;
    this.view = this.whole();
    this.apply();
  }

  whole() {
    const bounds = this.options.bounds();
    return { x: bounds.x, y: bounds.y(bounds.x) };
  }

  data() {
    const xs = this.grid.length ? this.grid : this.view.x;
    return [xs, Array.from(xs, () => null)];
  }

  apply() {
    this.place.dataset.view = [...this.view.x, ...this.view.y].join(" "); // for tests
    this.chart.batch(() => {
      this.chart.setScale("x", { min: this.view.x[0], max: this.view.x[1] });
      this.chart.setScale("y", { min: this.view.y[0], max: this.view.y[1] });
    });
  }

  /** Shows [low, high] of x; y follows what lies there unless it is given. */
  look(x, y) {
    if (!(x[1] > x[0])) return;
    this.zoom = this.view = { x, y: y ?? this.options.bounds().y(x) };
    clearTimeout(this.still);
    this.still = setTimeout(() => {
      this.still = null;
      this.chart.redraw(false);
    }, MOVING);
    this.apply();
  }

  /** `by` of what is seen to the right, or nearer by `factor` about `middle` (0 to 1). */
  shift(by) {
    this.look(this.along("x", by, 1 + by));
  }

  nearer(factor, middle = 0.5) {
    this.look(this.along("x", middle - middle / factor, middle + (1 - middle) / factor));
  }

  /** The values at two shares of what is seen along an axis, evenly in its logarithm where it has one. */
  along(axis, from, to, [low, high] = this.view[axis]) {
    const log = this.options.log[axis];
    const [a, b] = log ? [Math.log(low), Math.log(high)] : [low, high];
    return [from, to].map((share) => (log ? Math.exp(a + share * (b - a)) : a + share * (b - a)));
  }

  press(event) {
    this.place.focus({ preventScroll: true });
    if (!(Plot.drag === "pan" || event.shiftKey) || event.button !== 0) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    const [start, { x, y }] = [[event.clientX, event.clientY], this.view];
    const { width, height } = this.chart.over.getBoundingClientRect();
    const move = (now) => {
      const [right, down] = [(now.clientX - start[0]) / width, (now.clientY - start[1]) / height];
      this.look(this.along("x", -right, 1 - right, x), this.along("y", down, 1 + down, y));
    };
    const end = new AbortController();
    addEventListener("mousemove", move, end);
    addEventListener("mouseup", () => end.abort(), end);
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return; // a plain wheel scrolls the page
    event.preventDefault();
    this.nearer(event.deltaY < 0 ? 1.25 : 0.8, event.offsetX / this.chart.over.clientWidth);
  }

  key(event) {
    const right = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (right && event.shiftKey) this.shift(right * 0.2);
    else if (right) this.step(right);
    else if (event.key === "Home") this.stop(0);
    else if (event.key === "End") this.stop(this.grid.length - 1);
    else if (event.key === "+" || event.key === "=") this.nearer(1.5);
    else if (event.key === "-") this.nearer(1 / 1.5);
    else if (event.key === "Escape" || event.key === "0") this.reset();
    else return;
    event.preventDefault();
  }

  step(by) {
    if (!this.grid.length) return;
    const start = before(this.grid, this.view.x[0] - 1e-12) + 1;
    this.stop(this.at === undefined ? start : this.at + by);
  }

  /** The cursor to a place of the grid, and the view to the cursor. */
  stop(index) {
    this.at = Math.min(Math.max(index, 0), this.grid.length - 1);
    const x = this.grid[this.at];
    if (x < this.view.x[0] || x > this.view.x[1]) {
      const half = (this.view.x[1] - this.view.x[0]) / 2;
      this.look([x - half, x + half]);
    }
    this.keyboard = true;
    this.chart.setCursor({ left: this.chart.valToPos(x, "x"), top: this.chart.over.clientHeight / 2 });
    this.keyboard = false;
  }

  moved() {
    const { left, top, idx } = this.chart.cursor;
    const inside = left >= 0 && idx !== null && idx !== undefined && this.grid.length;
    if (inside && !this.keyboard) this.at = idx;
    this.options.hovered(inside ? this.grid[this.at] : null, { keyboard: this.keyboard, left, top });
  }

  selected() {
    const { left, top, width, height } = this.chart.select;
    if (width < 5 && height < 5) return;
    const over = this.chart.over;
    const xs = width < 5 ? [0, over.clientWidth] : [left, left + width];
    const ys = height < 5 || height >= over.clientHeight ? null : [top + height, top];
    this.chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.look(xs.map((at) => this.chart.posToVal(at, "x")), ys?.map((at) => this.chart.posToVal(at, "y")));
  }

  /**
   * What `options.paint` draws is kept as a picture where it is slow to draw. While the view moves the picture is moved
   * with it, and only what is quick is drawn anew; at rest all is.
   */
  paint() {
    const { ctx, bbox } = this.chart;
    const moving = this.still !== null && this.picture;
    const to = { x: this.mapping("x"), y: this.mapping("y") };
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    if (moving) this.movePicture(ctx, to);
    else if (this.options.isSlow()) this.takePicture(ctx, to);
    else this.picture = null;
    if (!this.picture || moving) this.options.paint(ctx, to, { x: this.view.x, moving });
    ctx.restore();
  }

  takePicture(ctx, to) {
    const canvas = new OffscreenCanvas(ctx.canvas.width, ctx.canvas.height);
    this.options.paint(canvas.getContext("2d"), to, { x: this.view.x, moving: false });
    this.picture = { canvas, view: this.view };
    ctx.drawImage(canvas, 0, 0);
  }

  movePicture(ctx, to) {
    const { canvas, view } = this.picture;
    const { left, top, width, height } = this.chart.bbox;
    const [x, right, bottom, y] = [...view.x.map(to.x), ...view.y.map(to.y)].map(Math.round);
    ctx.imageSmoothingEnabled = false; // quicker
    ctx.drawImage(canvas, left, top, width, height, x, y, right - x, bottom - y);
  }

  /** From values to canvas pixels; faster than uPlot's own where thousands are drawn. */
  mapping(axis) {
    const [low, high] = this.view[axis];
    const [from, to] = [low, high].map((value) => this.chart.valToPos(value, axis, true));
    if (!this.options.log[axis]) return (value) => from + ((value - low) / (high - low)) * (to - from);
    const [base, span] = [Math.log(low), Math.log(high / low)];
    return (value) => (value > 0 ? from + ((Math.log(value) - base) / span) * (to - from) : NaN);
  }

  resize() {
    const { width, height } = this.place.getBoundingClientRect();
    if (width > 50 && height > 50) this.chart.setSize({ width: Math.floor(width), height: Math.floor(height) });
  }

  chartOptions() {
    const { log, names } = this.options;
    const axis = (name, more) => ({
      label: name || undefined, labelSize: 20, labelGap: 0, font: "12px system-ui", labelFont: "12px system-ui", gap: 4,
      stroke: () => ink("quiet"), grid: { stroke: () => ink("grid"), width: 1 },
      ticks: { stroke: () => ink("grid"), size: 4 }, values: (_, splits) => splits.map(compact), ...more,
    });
    const { width, height } = this.place.getBoundingClientRect();
    return {
      width: Math.floor(width) || 400,
      height: Math.floor(height) || 260,
      ms: 1,
      legend: { show: false },
      padding: [8, 12, 0, 0],
      cursor: {
        y: false,
        points: { show: false },
        drag: { x: true, y: true, uni: 30, dist: 5, setScale: false },
        bind: { dblclick: () => () => this.reset() },
      },
      scales: {
        x: { time: false, distr: log.x ? 3 : 1, range: () => this.view.x },
        y: { distr: log.y ? 3 : 1, range: () => this.view.y },
      },
      axes: [axis(names.x, { size: 28, space: 60 }), axis(names.y, { size: 48, space: 34 })],
      series: [{}, { paths: () => null, points: { show: false } }],
      hooks: {
        ready: [(chart) => { this.chart = chart; this.apply(); }],
        setCursor: [() => this.chart && this.moved()],
        setSelect: [() => this.selected()],
        draw: [(chart) => { this.chart = chart; this.paint(); }],
      },
    };
  }
}

Plot.drag = "zoom"; // or pan: what dragging does in every figure

/** [low, high] with a little room; on a log axis what is above 0. */
function roomy([low, high], log) {
  if (!(low <= high)) return log ? [1, 10] : [0, 1];
  if (log) return low === high ? [low / 2, high * 2] : [low / (high / low) ** 0.03, high * (high / low) ** 0.03];
  const room = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * 0.04;
  return [low - room, high + room];
}

/** Widens `span` by numbers from place `from` to `to`, those of a log axis if they are above 0. */
function widen(span, values, log, from = 0, to = values.length - 1) {
  for (let i = from; i <= to; i += 1) {
    const value = values[i];
    if (value === null || !Number.isFinite(value) || (log && value <= 0)) continue;
    if (value < span[0]) span[0] = value;
    if (value > span[1]) span[1] = value;
  }
  return span;
}
