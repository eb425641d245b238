// Puts the report together: verdicts, curves, the tables, runs as points, media.

const themes = []; // what is drawn again when the theme changes
const LATER = ["differences", "seeds", "runs", "protocols", "environments", "left_out"]; // tables behind all others
const SECTIONS = {
  differences: "What differs", seeds: "Seeds", runs: "Runs", protocols: "Protocols", environments: "Environments",
  left_out: "Left out", verdicts: "Verdicts", method: "Method", summary: "Summary", points: "Points", parallel: "Settings",
  "profile-curves": "Profiles",
};
const SENTENCES = 8; // verdicts that are told above their table, which has all

/** Calls `work` once when `node` is near the window, or printed. */
function later(node, work) {
  const watch = new IntersectionObserver(([entry]) => entry.isIntersecting && go(), { rootMargin: "400px" });
  const go = () => {
    watch.disconnect();
    printing.removeEventListener("change", go);
    work();
  };
  printing.addEventListener("change", go);
  watch.observe(node);
}

/** The sections in their order; tables that this page does not know go before those of LATER. */
function sections() {
  const views = report.tables.map((table) => new TableView(table));
  const nodes = (isOne) => views.filter(({ name }) => isOne(name)).map(({ node }) => node);
  for (const { node, table } of views.filter(({ name }) => name === "verdicts")) {
    node.querySelector("h2").after(verdictSentences(table));
  }
  return [
    ...nodes((name) => name === "verdicts"),
    report.curves.length ? curvesSection() : null,
    report.profiles.length ? profilesSection() : null,
    ...report.media.length ? [mediaSection()] : [],
    ...nodes((name) => name !== "verdicts" && !LATER.includes(name)),
    pointsSection(),
    parallelSection(),
    ...LATER.flatMap((own) => nodes((name) => name === own)),
  ].filter(Boolean);
}

/** How many pairs of shown groups are better, worse or not known, and sentences for the first of them. */
function verdictSentences({ columns, rows }) {
  const at = Object.fromEntries(columns.map((name, i) => [name.trim(), i]));
  const index = new Map(report.groups.map((name, i) => [name, i]));
  const kind = (row) => row[at.verdict].split(/[:,]/, 1)[0];
  const isDecided = (row) => ["better", "worse", "higher", "lower"].includes(kind(row));
  const name = (group) => (index.has(group) ? groupName(index.get(group)) : group);
  const sentence = (row) => el("li", {}, name(row[at.group]),
    el("span", { class: verdictClass(row[at.verdict]) }, ` ${row[at.verdict]} `), isDecided(row) ? "than " : "against ",
    name(row[at.against]), ` on ${row[at.task]}, ${row[at.metric]}${figures(row)}`);
  const figures = (row) => {
    const pick = (column) => row[at[column]] ?? null;
    if (pick("difference") === null) return "";
    const chance = pick("P(better)") === null ? "" : `, P(better) ${shown(pick("P(better)"))}`;
    const difference = [pick("difference"), pick("95 % interval")].map(shown).filter(Boolean).join(" ");
    return `: ${difference}${chance}, n ${pick("n")} and ${pick("n against")}`;
  };
  const [counted, list] = [el("p", { role: "status" }), el("ul", { class: "sentences" })];
  const tell = () => {
    const open = rows.filter((row) => [at.group, at.against].every((i) => groups.shows(index.get(row[i]) ?? -1)));
    const counts = new Map();
    for (const row of open) counts.set(kind(row), (counts.get(kind(row)) ?? 0) + 1);
    const first = [...open].sort((a, b) => isDecided(b) - isDecided(a)).slice(0, SENTENCES);
    const rest = open.length > first.length ? `; ${first.length} of ${open.length} told here, all in the table` : "";
    counted.textContent = `${[...counts].map(([told, count]) => `${count} ${told}`).join(", ") || "no pair"}${rest}.`;
    list.replaceChildren(...first.map(sentence));
  };
  groups.listeners.push(tell);
  tell();
  return el("div", {}, counted, list);
}

/** Blocks of images and videos side by side, and what is said of them. */
function mediaSection() {
  const blocks = report.media.map(({ title, items, notes }) => {
    const videos = [];
    const figures = items.map(({ group, name, caption, src: place }) => {
      const src = place.startsWith("data:") ? place : report.beside + place;
      const isVideo = /\.(mp4|webm)$/i.test(src) || src.startsWith("data:video/");
      const text = `${name}: ${caption}`;
      const index = report.groups.indexOf(group); // -1: real images
      const shownAs = isVideo
        ? el("video", { src, controls: true, muted: true, loop: true, playsinline: true, preload: "metadata", "aria-label": text })
        : el("img", { src, alt: text, loading: "lazy" });
      if (isVideo) videos.push(shownAs);
      return el("figure", { "data-group": group }, shownAs,
        el("figcaption", {}, index < 0 ? name : groupName(index, name), `: ${caption}`));
    });
    groups.listeners.push(() => figures.forEach((figure, i) => {
      const group = report.groups.indexOf(items[i].group);
      figure.hidden = group >= 0 && !groups.shows(group);
    }));
    return el("div", { class: "block" }, el("h3", {}, title),
      videos.length > 1 ? el("button", { type: "button", onclick: () => playTogether(videos) }, "Play all from the start") : null,
      el("div", { class: "media" }, ...figures),
      notes.length ? el("ul", { class: "notes" }, ...notes.map((note) => el("li", {}, note))) : null);
  });
  return el("section", { id: "media", "aria-labelledby": "media-title" }, el("h2", { id: "media-title" }, "Samples and videos"), ...blocks);
}

function playTogether(videos) {
  for (const video of videos) {
    video.muted = true;
    video.currentTime = 0;
    video.play().catch(() => undefined); // a file that is not there: its place shows so
  }
}

/** Automatic, light, dark. */
function themeSwitch(button) {
  const order = ["auto", "light", "dark"];
  let theme = order[0];
  const changed = () => {
    document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    button.setAttribute("aria-label", theme === "auto" ? "Theme: as the system" : `Theme: ${theme}`);
    inks.clear();
    for (const redraw of themes) redraw();
  };
  button.addEventListener("click", () => {
    theme = order[(order.indexOf(theme) + 1) % order.length];
    changed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  printing.addEventListener("change", changed);
}

/** Sections get their height when they are near the window, which moves what lies below: for a second, or until the reader
 * scrolls, it is followed. */
function arrive(section) {
  const end = performance.now() + 1000;
  let left = false;
  for (const name of ["wheel", "touchstart", "keydown", "pointerdown"]) {
    addEventListener(name, () => { left = true; }, { once: true, passive: true });
  }
  const follow = () => {
    if (left || performance.now() > end) return;
    section.scrollIntoView();
    requestAnimationFrame(follow);
  };
  requestAnimationFrame(follow);
}

/** For the links at the top. */
function sectionName(section) {
  const title = section.querySelector("h2").textContent;
  return SECTIONS[section.id.replace("section-", "")] ?? (title.length > 30 ? `${title.slice(0, 29)}…` : title);
}

async function start() {
  report = await unpack();
  groupList(document.getElementById("groups"));
  const made = sections();
  document.getElementById("report").append(...made);
  const every = [document.getElementById("summary"), ...made, document.getElementById("method")];
  document.getElementById("sections").append(...every.map((section) =>
    el("a", { href: `#${section.id}`, onclick: () => arrive(section) }, sectionName(section))));
  themeSwitch(document.getElementById("theme"));
  document.getElementById("loading").remove();
  document.documentElement.dataset.usable = Math.round(performance.now()); // for benchmarks
}

start().catch((error) => {
  document.getElementById("loading").textContent = `This page cannot be shown: ${error.message}`;
  throw error;
});
