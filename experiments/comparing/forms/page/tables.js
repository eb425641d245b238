// Tables: sorted, filtered, with columns hidden, and rows of hidden groups hidden.

const PAGE = 50; // rows at first
const GROUP_COLUMNS = new Set(["group", "against"]);

class TableView {
  constructor(table) {
    Object.assign(this, table, { table, filter: "", sort: null, hidden: new Set(), most: PAGE });
    this.groupColumns = this.columns.flatMap((name, i) => (GROUP_COLUMNS.has(name.trim()) ? [i] : []));
    this.numeric = this.columns.map((_, i) => this.rows.every((row) => typeof row[i] !== "string"));
    this.index = new Map(report.groups.map((name, i) => [name, i]));
    this.texts = new Map(); // row -> what the filter looks through
    this.head = el("thead");
    this.body = el("tbody");
    this.count = el("span", { class: "quiet", role: "status" });
    this.more = el("span", { class: "row" });
    this.node = this.section();
    this.draw();
    groups.listeners.push(() => this.groupColumns.length && this.draw());
  }

  section() {
    const id = `table-${this.name}`;
    const filter = search("Filter rows", (text) => {
      this.filter = text;
      this.draw();
    });
    const columns = el("details", { class: "menu" }, el("summary", {}, "Columns"),
      el("div", {}, ...this.columns.map((name, i) => checkbox(name.trim(), true, (on) => {
        if (on) this.hidden.delete(i);
        else this.hidden.add(i);
        this.draw();
      }))));
    const file = this.file && el("a", { href: report.beside + encodeURIComponent(this.file), class: "file" }, this.file);
    const table = el("table", { "aria-labelledby": id }, this.head, this.body);
    return el("section", { id: `section-${this.name}`, "aria-labelledby": id },
      el("h2", { id }, this.title),
      el("div", { class: "tools" }, filter, columns, this.count, this.more, file),
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-labelledby": id }, table));
  }

  draw() {
    const open = this.rows.filter((row) => this.ofShownGroups(row));
    const found = this.filter ? open.filter((row) => this.text(row).includes(this.filter)) : open;
    const rows = this.sorted(found).slice(0, this.most);
    this.drawHead();
    this.body.replaceChildren(...rows.map((row) => this.row(row)));
    const parts = [`${rows.length} of ${this.rows.length} rows`];
    if (open.length < this.rows.length) parts.push(`${this.rows.length - open.length} of hidden groups`);
    if (found.length < open.length) parts.push(`${open.length - found.length} filtered out`);
    if (rows.length < found.length) parts.push(`${found.length - rows.length} further down`);
    this.count.textContent = parts.join(", ");
    this.drawMore(rows.length, found.length);
  }

  ofShownGroups(row) {
    return this.groupColumns.every((i) => {
      const group = this.index.get(row[i]);
      return group === undefined || groups.shows(group);
    });
  }

  text(row) {
    if (!this.texts.has(row)) this.texts.set(row, row.map(shown).join("\n").toLowerCase());
    return this.texts.get(row);
  }

  /** Numbers by size, intervals by their lower end, nothing last. */
  sorted(rows) {
    if (!this.sort) return rows;
    const { column, sign } = this.sort;
    const key = (row) => (Array.isArray(row[column]) ? row[column][0] : row[column]);
    const order = (a, b) => {
      if (typeof a === "number" && typeof b === "number") return a - b;
      return String(a).localeCompare(String(b), "en", { numeric: true });
    };
    const empty = (value) => value === null || value === "";
    return [...rows].sort((one, two) => {
      const [a, b] = [key(one), key(two)];
      if (empty(a) || empty(b)) return empty(a) - empty(b);
      return sign * order(a, b);
    });
  }

  drawHead() {
    const focused = this.head.contains(document.activeElement) && document.activeElement.dataset.column;
    const cells = this.shownColumns().map((i) => {
      const sign = this.sort?.column === i ? this.sort.sign : 0;
      const mark = el("span", { class: "mark", "aria-hidden": "true" }, { 1: "▲", "-1": "▼", 0: "" }[sign]);
      const button = el("button", { type: "button", "data-column": i, onclick: () => this.sortBy(i) },
        this.columns[i].trim(), mark);
      return el("th", {
        scope: "col", "aria-sort": { 1: "ascending", "-1": "descending" }[sign], class: this.numeric[i] ? "number" : null,
      }, button);
    });
    this.head.replaceChildren(el("tr", {}, ...cells));
    if (focused) this.head.querySelector(`[data-column="${focused}"]`)?.focus();
  }

  /** Up, down, and as the report has it. */
  sortBy(column) {
    const sign = this.sort?.column === column ? this.sort.sign : 0;
    this.sort = sign === -1 ? null : { column, sign: sign ? -1 : 1 };
    this.draw();
  }

  shownColumns() {
    return this.columns.flatMap((_, i) => (this.hidden.has(i) ? [] : [i]));
  }

  row(cells) {
    return el("tr", {}, ...this.shownColumns().map((i) => {
      const group = this.groupColumns.includes(i) ? this.index.get(cells[i]) : undefined;
      const text = shown(cells[i]);
      const kind = typeof cells[i] === "string" ? this.kindOf(i, text) : "number";
      return el("td", { class: kind }, group === undefined ? text : groupName(group));
    }));
  }

  kindOf(column, text) {
    if (this.columns[column].trim() === "verdict") return verdictClass(text);
    return text.length > 60 ? "long" : null;
  }

  drawMore(there, all) {
    const button = (text, most) => el("button", { type: "button", onclick: () => {
      this.most = most;
      this.draw();
    } }, text);
    const parts = [];
    if (there < all) parts.push(button(`Show ${Math.min(10 * PAGE, all - there)} more`, this.most + 10 * PAGE));
    if (there < all) parts.push(button(`Show all ${all}`, Infinity));
    if (this.most > PAGE && all > PAGE) parts.push(button(`Show ${PAGE}`, PAGE));
    this.more.replaceChildren(...parts);
  }
}

function verdictClass(text) {
  return ["verdict", /^(better|worse)/.exec(text)?.[0]].filter(Boolean).join(" ");
}
