// Performance profiles: the share of runs above each human-normalised score, a figure for each set of games.

function profilesSection() {
  const figures = report.profiles.map((each) => new ProfileFigure(each));
  groups.listeners.push(() => figures.forEach((figure) => figure.change()));
  groups.pointers.push(() => figures.forEach((figure) => figure.plot?.chart.redraw(false)));
  themes.push(() => figures.forEach((figure) => figure.plot && figure.make()));
  const setLog = (on) => figures.forEach((figure) => figure.setLog(on));
  const section = el("section", { id: "profile-curves", "aria-labelledby": "profile-curves-title" },
    el("h2", { id: "profile-curves-title" }, "Performance profiles"),
    el("div", { class: "tools" }, checkbox("log x", figures[0].logX, setLog),
      el("button", { type: "button", onclick: () => figures.forEach((figure) => figure.plot?.reset()) }, "Reset zoom")),
    el("p", { class: "quiet" }, "Lines: share of runs above each human-normalised score, every game with the same weight; bands: 95 % " +
      "bootstrap intervals over seeds within games. Drag: zoom; ← → read, Esc all."),
    el("div", { class: "figures single" }, ...figures.map(({ node }) => node)));
  later(section, () => figures.forEach((figure) => figure.make()));
  return section;
}

class ProfileFigure {
  constructor({ games, curves }) {
    const most = curves.reduce((all, { tau }) => Math.max(all, ...numbers(tau)), 0);
    Object.assign(this, { curves, plot: null, x: null, logX: most > 20 }); // most of a line lies below 2
    this.canvas = el("div");
    this.live = el("p", { class: "unseen", "aria-live": "polite" });
    this.where = el("caption");
    this.table = el("tbody");
    this.node = el("article", { class: "figure" }, el("h3", {}, `Over ${games.length} games`), this.canvas, this.live,
      el("div", { class: "readout", tabindex: 0, role: "region", "aria-label": "Shares at the cursor" },
        el("table", {}, this.where, this.table)), el("p", { class: "quiet" }, games.join(", ")));
  }

  visible() {
    return this.curves.filter(({ group }) => groups.shows(group));
  }

  setLog(on) {
    this.logX = on;
    if (this.plot) this.make();
  }

  make() {
    this.plot?.destroy();
    this.canvas.replaceChildren();
    const xs = () => Float64Array.from(new Set(this.visible().flatMap(({ tau }) => Array.from(numbers(tau))))).sort();
    const usable = () => xs().filter((x) => x > 0 || !this.logX);
    this.plot = new Plot(this.canvas, {
      label: "Share of runs above a human-normalised score; arrow keys read its values",
      names: { x: "human-normalised score", y: "share of runs above it" },
      log: { x: this.logX, y: false },
      grid: usable,
      bounds: () => ({ x: roomy(widen([Infinity, -Infinity], usable(), this.logX), this.logX), y: () => [-0.02, 1.02] }),
      paint: (context, to, { x, moving }) => this.paint(new Pen(context, to, x, false), moving),
      isSlow: () => false,
      hovered: (x, { keyboard }) => {
        this.x = x;
        this.readOut(keyboard);
      },
    });
    this.readOut(false);
  }

  change() {
    this.plot?.update();
    if (this.plot) this.readOut(false);
  }

  paint(pen, moving) {
    for (const { group, tau, low, high } of moving ? [] : this.visible()) pen.interval(tau, low, high, colour(group), groups.weight(group));
    for (const { group, tau, share } of this.visible()) {
      pen.line(numbers(tau), numbers(share), { colour: colour(group), width: 2, dash: dash(group), alpha: groups.weight(group) });
    }
  }

  /** The shares at the cursor; without one at a score of 1, the human tester's. */
  readOut(aloud) {
    const told = this.visible().map(({ group, tau, share, low, high }) => {
      const at = nearest(numbers(tau), this.x ?? 1);
      return [group, shown(numbers(share)[at]), shown([numbers(low)[at], numbers(high)[at]])];
    });
    this.where.textContent = `above ${shown(this.x ?? 1)}`;
    this.table.replaceChildren(...told.map(([group, ...texts]) => el("tr", { "data-group": report.groups[group] },
      el("th", { scope: "row" }, groupName(group)), ...texts.map((text) => el("td", {}, text)))));
    if (aloud) this.live.textContent = [this.where.textContent, ...told.map(([group, ...texts]) => `${report.names[group]}: ${texts.join(", ")}`)].join("; ");
  }
}
