"""The page in Debian's chromium: what a reader does with it, what it must never do, and how it looks to a measure."""

import dataclasses
import io
import pathlib
import re
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from PIL import Image
from playwright import sync_api

from core import media as core_media
from core import types
from experiments.comparing import report
from experiments.comparing.forms import media, page, tables
from experiments.comparing.parts import curves, published
from tests.experiments.comparing import folders

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine; Debian: apt-get install chromium"
)
HOSTILE = ("</script><script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>", "${7*7}", "{{7*7}}")


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def written(found: report.Report, folder: pathlib.Path, **more) -> pathlib.Path:
    (folder / "report.html").write_text(page.render(found, tables.tables(found), **more), errors="replace")
    return folder / "report.html"


@pytest.fixture(scope="module")
def base():
    return folders.settings("experiment=dqn/cartpole", "tracker=none")


@pytest.fixture(scope="module")
def found(base, tmp_path_factory: pytest.TempPathFactory) -> report.Report:
    """Two batches × two learning rates × three seeds; one failed, one went on after a kill, with another's devices."""
    root, random = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    places = []
    for number, (batch, rate) in enumerate([(8, 1e-4), (8, 1e-2), (16, 1e-4), (16, 1e-2)]):
        for seed in range(3):
            values = {
                folders.METRIC: [*(10.0 * number + np.arange(1, 31) + random.normal(size=30))],
                "eval/loss": [*np.exp(-np.arange(30) / 10.0)],
            }
            changes = {"learner.batch": batch, "optimizer.learning_rate": rate, "seed": seed, "source.seed": seed}
            origin = {"hardware": {"devices": {"kinds": {"H100": 4}}}}
            places.append(folders.write(root / f"{number}-{seed}", base, values, origin=origin, **changes))
    (places[-1] / "error.txt").write_text("OSError: the disk is full\n")
    with (places[0] / "provenance.jsonl").open("a") as file:
        file.write('{"step": 12, "hardware": {"devices": {"kinds": {"H100": 2}}}}\n')
    return folders.compared(*places, metrics=("eval/*",))


@pytest.fixture(scope="module")
def place(found, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return written(found, tmp_path_factory.mktemp("report"))


@pytest.fixture
def opened(browser, place) -> Iterator[sync_api.Page]:
    with watched(browser, place) as tab:
        yield tab


class watched:
    """A tab with the page in it; at its end there must have been no message, no error and no request."""

    def __init__(self, browser: sync_api.Browser, place: pathlib.Path, *, media: Sequence[str] = (), **context):
        self.place, self.media, self.told = place, {(place.parent / name).as_uri() for name in media}, list[str]()
        self.context = browser.new_context(**{"viewport": {"width": 1600, "height": 1000}, **context})

    def __enter__(self) -> sync_api.Page:
        tab = self.context.new_page()
        tab.on("console", lambda message: self.told.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: self.told.append(str(error)))
        tab.on("request", lambda request: self.told.append(request.url))
        tab.goto(self.place.as_uri())
        tab.wait_for_selector("html[data-usable]", state="attached", timeout=20_000)
        return tab

    def __exit__(self, *error):
        self.context.close()
        if error[0] is None:
            assert [each for each in self.told if each not in self.media] == [self.place.as_uri()]


def figure(tab: sync_api.Page) -> sync_api.Locator:
    tab.locator("#curves").scroll_into_view_if_needed()
    first = tab.locator(".figure").first
    first.locator("canvas").wait_for()
    return first


def at_cursor(tab: sync_api.Page, where: str | re.Pattern) -> None:
    sync_api.expect(tab.locator(".readout caption").first).to_have_text(where)


def until(tab: sync_api.Page, condition: str) -> None:
    """Playwright's own wait_for_function evaluates a text in the page, which its policy forbids."""
    for _ in range(200):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(condition)


def readout(tab: sync_api.Page) -> tuple[str, dict[str, list[str]]]:
    rows = tab.locator(".figure").first.locator(".readout tbody tr")
    cells = rows.evaluate_all(
        "rows => rows.map(row => [row.dataset.group, ...[...row.cells].slice(1).map(c => c.textContent)])"
    )
    return tab.locator(".readout caption").first.inner_text(), {name: rest for name, *rest in cells}


def view(tab: sync_api.Page) -> list[float]:
    return [float(each) for each in str(tab.locator(".figure .plot").first.get_attribute("data-view")).split()]


def expected(found: report.Report, x: float, *, axis: str = "frames", statistic: str = "mean") -> dict[str, list[str]]:
    rows = {}
    for curve in found.curves:
        if curve.metric == folders.METRIC:
            band = curve.bands[axis]
            (at,) = np.flatnonzero(band.x == x)
            interval = (float(band.low[statistic][at]), float(band.high[statistic][at]))
            rows[curve.group] = [
                tables.shown(float(band.center[statistic][at])),
                tables.shown(interval),
                f"n = {band.n[at]}",
            ]
    return rows


def test_the_figures_at_the_cursor_are_the_reports(opened: sync_api.Page, found):
    box = figure(opened).locator(".u-over").bounding_box()
    assert box is not None
    opened.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 50)
    at_cursor(opened, re.compile("^frames "))
    where, rows = readout(opened)
    x = float(where.removeprefix("frames ").replace(",", ""))
    assert 1_000 < x < 2_000 and {name: cells[:3] for name, cells in rows.items()} == expected(found, x)
    opened.get_by_label("over seeds").select_option("iqm")
    opened.locator(".figure .plot").first.focus()
    opened.keyboard.press("End")
    at_cursor(opened, "frames 3,000")
    told = {name: cells[:3] for name, cells in readout(opened)[1].items()}
    assert told == expected(found, 3_000, statistic="iqm")
    spoken = opened.locator(".figure [aria-live]").first.inner_text()
    assert spoken.startswith("frames 3,000; ") and told[next(iter(found.labels))][0] in spoken
    opened.keyboard.press("ArrowLeft")
    at_cursor(opened, "frames 2,900")


def test_axes_zoom_and_reset(opened: sync_api.Page, found):
    plot = figure(opened).locator(".u-over")
    whole = view(opened)
    box = plot.bounding_box()
    assert box is not None and whole[0] < 100 and whole[1] > 3_000
    drag = lambda begin, end: (
        opened.mouse.move(box["x"] + box["width"] * begin, box["y"] + 100),
        opened.mouse.down(),
        opened.mouse.move(box["x"] + box["width"] * end, box["y"] + 105, steps=5),
        opened.mouse.up(),
    )
    drag(0.25, 0.5)
    near = view(opened)
    assert near[0] == pytest.approx(whole[0] + 0.25 * (whole[1] - whole[0]), rel=0.02) and near[1] < 1_700
    assert near[3] - near[2] < whole[3] - whole[2]  # y follows what is there
    opened.get_by_label("drag").select_option("pan")
    drag(0.5, 0.25)
    assert view(opened)[0] == pytest.approx(near[0] + 0.25 * (near[1] - near[0]), rel=0.02)
    plot.dblclick()
    assert view(opened) == whole
    opened.keyboard.press("+")
    assert view(opened)[1] - view(opened)[0] == pytest.approx((whole[1] - whole[0]) / 1.5)
    opened.keyboard.press("Shift+ArrowRight")
    opened.keyboard.press("Escape")
    assert view(opened) == whole
    opened.get_by_label("x-axis").select_option("device hours")
    assert view(opened)[1] < 1
    assert readout(opened)[1] != {} and "device hours" in readout(opened)[0]
    opened.get_by_label("x-axis").select_option("frames")
    opened.get_by_label("log x").first.check()
    opened.get_by_label("log y").first.check()
    assert 0 < view(opened)[0] < 100 and view(opened)[2] > 0
    opened.get_by_label("Smoothing window").fill("20")
    opened.get_by_label("single seeds").uncheck()
    assert figure(opened).locator("canvas").is_visible()


def test_a_hidden_group_goes_from_curves_and_tables_and_changes_no_number(opened: sync_api.Page, found):
    figure(opened)
    first = next(iter(found.labels))
    before = readout(opened)[1]
    scores = opened.locator("#section-scores-eval-episode-return-last tbody tr")
    texts = scores.all_text_contents()
    colours = lambda: (
        opened.locator(".readout").first.locator("line").evaluate_all("all => all.map(e => e.className.baseVal)")
    )
    known = colours()
    opened.locator(f"#groups li[data-group='{first}'] input").uncheck()
    assert readout(opened)[1] == {name: cells for name, cells in before.items() if name != first}
    assert scores.all_text_contents() == texts[1:] and colours() == known[1:]
    assert "1 of hidden groups" in opened.locator("#section-scores-eval-episode-return-last [role=status]").inner_text()
    opened.get_by_label("Filter groups").fill("batch=16")
    assert len(readout(opened)[1]) == 2 and scores.count() == 2
    opened.get_by_label("Filter groups").fill("")
    opened.get_by_role("button", name="All", exact=True).click()
    assert readout(opened)[1] == before and scores.all_text_contents() == texts


def test_tables_are_sorted_filtered_and_narrowed(opened: sync_api.Page):
    table = opened.locator("#section-runs")
    column = lambda number: table.locator(f"tbody td:nth-child({number})").all_text_contents()
    seeds = column(4)
    head = table.locator("th", has_text="seed").locator("button")
    head.focus()
    opened.keyboard.press("Enter")
    assert column(4) == sorted(seeds) and table.locator("th[aria-sort=ascending]").inner_text().startswith("seed")
    opened.keyboard.press("Enter")
    assert column(4) == sorted(seeds, reverse=True)
    opened.keyboard.press("Enter")
    assert column(4) == seeds and table.locator("th[aria-sort]").count() == 0
    table.get_by_label("Filter rows").fill("the disk is full")
    assert len(column(1)) == 1 and "11 filtered out" in table.locator("[role=status]").inner_text()
    width = table.locator("th").count()
    table.locator("summary").click()
    table.get_by_role("checkbox", name="state").uncheck()
    assert (
        table.locator("th").count() == width - 1 and table.locator("tbody tr").first.locator("td").count() == width - 1
    )
    scores = opened.locator("#section-scores-eval-episode-return-last")
    scores.locator("th button", has_text="mean").click()
    means = [float(text) for text in scores.locator("tbody td:nth-child(5)").all_text_contents()]
    assert means == sorted(means) and len(means) == 4


def test_runs_as_points_and_through_their_settings(opened: sync_api.Page, found):
    points = opened.locator("#points")
    points.scroll_into_view_if_needed()
    points.locator("canvas").wait_for()
    assert points.get_by_label("log x").is_checked()  # a learning rate
    points.locator(".plot").focus()
    opened.keyboard.press("Home")
    first = points.locator("[aria-live]").inner_text()
    assert str(found.members[0].folder.parent) in first and "optimizer.learning_rate 0.0001" in first
    points.get_by_label("x", exact=True).select_option("hours")
    assert "12 runs" in points.locator("[aria-live]").inner_text()
    box = points.locator(".u-over").bounding_box()
    assert box is not None
    lines = opened.locator("#parallel")
    lines.scroll_into_view_if_needed()
    lines.locator("path").first.wait_for()
    assert lines.locator("path.in").count() == 12 and lines.locator(".ruler").count() == 3
    ruler = lines.locator(".handle").first.bounding_box()
    assert ruler is not None
    middle = ruler["x"] + ruler["width"] / 2
    opened.mouse.move(middle, ruler["y"] + 2)
    opened.mouse.down()
    opened.mouse.move(middle, ruler["y"] + ruler["height"] / 2, steps=3)
    opened.mouse.up()
    assert lines.locator("path.in").count() == 6 and "6 of 12 runs" in lines.locator("[role=status]").inner_text()
    lines.get_by_role("button", name="Clear ranges").click()
    lines.locator("path.in").nth(11).wait_for(state="attached")


def test_ranges_are_set_and_cleared_by_keys(opened: sync_api.Page):
    lines = opened.locator("#parallel")
    lines.scroll_into_view_if_needed()
    lines.locator("path").first.wait_for()
    told = lines.locator("[role=status]")
    axis = lines.get_by_role("slider", name="Kept of learner.batch")
    assert axis.get_attribute("aria-valuetext") == "all"
    lines.locator("summary").focus()
    for _ in range(20):
        opened.keyboard.press("Tab")
        if opened.evaluate("document.activeElement.dataset.axis") == "learner.batch":
            break
    pressed = [
        ("ArrowUp", "8", 6),
        ("ArrowUp", "16", 6),
        ("ArrowUp", "16", 6),
        ("ArrowDown", "8", 6),
        ("Shift+ArrowUp", "8 to 16", 12),
        ("Shift+ArrowDown", "8", 6),
        ("Escape", "all", 12),
        ("End", "16", 6),
        ("Home", "8", 6),
    ]
    for key, kept, count in pressed:
        opened.keyboard.press(key)
        sync_api.expect(told).to_contain_text(f"learner.batch: {kept}. {count} of 12 runs")
        assert lines.locator("path.in").count() == count and axis.get_attribute("aria-valuetext") == kept
    opened.keyboard.press("ArrowLeft")
    assert opened.evaluate("document.activeElement.dataset.axis") == "optimizer.learning_rate"
    opened.keyboard.press("PageDown")
    sync_api.expect(told).to_contain_text("optimizer.learning_rate: 0.01. 3 of 12 runs")
    for _ in range(2):
        opened.keyboard.press("ArrowRight")
    score = str(opened.evaluate("document.activeElement.dataset.axis"))
    for _ in range(3):
        opened.keyboard.press("ArrowUp")  # of values that lie close together the third alone
    sync_api.expect(told).to_contain_text(re.compile(f"^{score}: .*[01] of 12 runs"))


def test_a_seam_is_drawn_where_a_run_was_resumed(opened: sync_api.Page, found):
    (curve,) = [
        each for each in found.curves if each.metric == folders.METRIC and each.group == next(iter(found.labels))
    ]
    (line,) = [each for each in curve.lines if each.seams["frames"]]
    assert line.seams["frames"] == (1_300.0,)
    value = line.values[np.flatnonzero(line.axes["frames"] == 1_300)[0]]
    box = figure(opened).locator(".u-over").bounding_box()
    left, right, low, high = view(opened)
    assert box is not None
    x = box["x"] + box["width"] * (1_300 - left) / (right - left)
    y = box["y"] + box["height"] * (high - value) / (high - low)

    def coloured() -> int:
        """Of the 11 pixels about the seam, those in the group's own colour."""
        shot = opened.screenshot(clip={"x": round(x) - 1, "y": round(y) - 5, "width": 3, "height": 11})
        pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), np.int64)
        return int((np.abs(pixels - [0, 114, 178]).max(axis=2) < 60).any(axis=1).sum())

    assert coloured() >= 9
    opened.get_by_label("single seeds").uncheck()  # and with them where they were resumed
    opened.wait_for_timeout(300)
    assert coloured() < 9


def test_print_shows_all_on_white_without_controls(browser, place):
    with watched(browser, place, color_scheme="dark") as tab:
        assert tab.locator(".tools").first.is_visible() and tab.locator("#parallel path").count() == 0
        tab.emulate_media(media="print", color_scheme="dark")
        tab.locator("#parallel path").first.wait_for(state="attached")  # sections far below are drawn, too
        hidden = ".tools, aside, .top nav, button, .skip"
        assert not any(each.is_visible() for each in tab.locator(hidden).all())
        assert tab.locator(".figure").count() == tab.locator(".figure canvas").count() > 0
        heights = "nodes => nodes.map(node => getComputedStyle(node).maxHeight)"
        assert {*tab.locator(".scroll, .readout").evaluate_all(heights)} == {"none"}
        colours = tab.evaluate(
            "[document.body, document.querySelector('td')].map(node => getComputedStyle(node).color)"
        )
        assert all(sum(map(int, re.findall(r"\d+", each)[:3])) < 150 for each in colours)
        assert [each for each in tab.evaluate(_CONTRAST) if each[2] < each[3]] == []
        tab.emulate_media(media="screen", color_scheme="dark")
        assert tab.locator(".tools").first.is_visible()


_CONTRAST = (pathlib.Path(__file__).parent / "contrast.js").read_text()


def test_smoothing_averages_over_a_window_about_each_place(opened: sync_api.Page):
    x, y = [0.0, 1.0, 2.0, 4.0, 5.0, 6.0, 8.0], [1.0, 3.0, 2.0, 8.0, None, 5.0, 7.0]
    code = "([x, y]) => [...smoothed(new Float64Array(x), new Float64Array(y.map((v) => v ?? NaN)), 0.25)]"
    told = opened.evaluate(code, [x, y])
    fine = np.linspace(-1, 1, 2_001)  # a quarter of 8 to both sides together
    window = lambda at: np.trapezoid(np.interp(at + fine, x[:4], y[:4]), fine) / 2  # type: ignore[arg-type]
    assert told[:4] == pytest.approx([1.0, window(1.0), window(2.0), 8.0], rel=1e-5)
    assert np.isnan(told[4]) and told[5:] == [5.0, 7.0]


def test_what_a_figure_tells_below_it(base, browser, tmp_path: pathlib.Path):
    """Runs that are not done, thinning, an axis that rows lack, a published curve with its protocol."""
    long = [*np.sin(np.arange(3_000) / 50)]
    first = folders.write(tmp_path / "runs" / "first", base, long, seed=0, lag=0)
    short = folders.write(tmp_path / "runs" / "short", base, [1.0, 2.0], seed=0, lag=1, budget=1_000)
    origin = {"hardware": {"devices": {"kinds": {"H100": 1}}}}
    other = folders.write(tmp_path / "runs" / "other", base, long[:50], seed=0, lag=2, origin=origin)
    found = folders.compared(first, short, other, group=("lag",))
    thin = [dataclasses.replace(curve, **_thinned(curve)) for curve in found.curves]
    paper = published.Published(
        metric=folders.METRIC,
        task="CartPole-v1",
        name="dqn",
        label="paper",
        protocol="sticky 0.25",
        source="a table",
        axis="frames",
        x=np.array([0, 300_000]),
        mean=np.array([0.0, 40.0]),
        std=None,
        runs=1,
        beside=(),
    )
    several = dataclasses.replace(paper, label="several", std=np.array([1.0, 90.0]), runs=5)
    found = dataclasses.replace(found, curves=tuple(thin), published=(paper, several))
    with watched(browser, written(found, tmp_path)) as tab:
        own = figure(tab)
        told = own.locator(".notes-of-figure").inner_text()
        assert f"{short} running at 200 of 1,000 frames" in told and "1 run is not done" in told
        assert "Thinned for drawing, extremes stay: 1,552 of 3,052 rows" in told
        top = view(tab)[3]
        own.get_by_label("paper: sticky 0.25 (a table)").check()
        assert view(tab)[3] > 40 > top
        own.get_by_label("several: sticky 0.25; shaded: its standard deviation over runs (a table)").check()
        assert view(tab)[3] > 52  # room for a third more of the lines' range
        tab.get_by_label("x-axis").select_option("device hours")
        assert "Without device hours in their rows: lag=0, lag=1" in own.locator(".notes-of-figure").inner_text()


def _thinned(curve: curves.Curve) -> dict:
    """Every second point of long lines, as if the report were too large."""
    half = lambda line: dataclasses.replace(
        line, axes={name: x[::2] for name, x in line.axes.items()}, values=line.values[::2]
    )
    return {"lines": tuple(half(line) if line.rows == 3_000 else line for line in curve.lines)}


def test_media_beside_the_page_are_shown_and_played_together(base, browser, tmp_path: pathlib.Path):
    """Lag 0 was judged by two protocols, lag 2 has no film, and there is no room for lag 1's picture."""
    places = []
    for name, lag, sticky in (("a", 0, 0.0), ("b", 0, 0.25), ("c", 1, 0.0), ("d", 2, 0.0)):
        place = folders.write(tmp_path / "runs" / name, base, [1.0, sticky], lag=lag, protocol={"sticky": sticky})
        (place / "media").mkdir()
        places.append(place)
        if lag < 2:
            shades = np.arange(0, 200, 10, dtype=np.uint8)[:, None, None, None]
            film = types.Video(frames=np.broadcast_to(shades, (20, 32, 32, 3)), frames_per_second=10)
            core_media.write_mp4(place / "media" / "play-200.mp4", film)
    Image.new("RGB", (8, 8), "red").save(places[0] / "media" / "view-200.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(
        places[2] / "media" / "view-200.png"
    )
    found = folders.compared(*places, group=("lag",))
    out = tmp_path / "a #1"
    blocks, _ = media.blocks(found, out, "beside", limit=20_000)
    names = [item["src"] for block in blocks for item in block["items"]]
    page_of = written(found, tmp_path, media=blocks, beside="a%20%231/")
    with watched(browser, page_of, media=[f"a #1/{name}" for name in names]) as tab:
        section = tab.locator("#media")
        section.scroll_into_view_if_needed()
        until(tab, "document.querySelector('#media img')?.naturalWidth === 8")
        section.get_by_role("button", name="Play all from the start").click()
        until(tab, "[...document.querySelectorAll('video')].every((each) => each.currentTime > 0 && !each.paused)")
        shown = section.locator("figcaption").all_text_contents()
        films = [f"{m.group} (protocol {m.protocol}): seed 0, 200 frames" for m in found.members[:3]]
        assert len(set(films)) == 3 and shown == [*films, "lag=0: seed 0, 200 frames"]
        assert section.locator("h3").all_inner_texts() == ["CartPole-v1: play", "CartPole-v1: view", "Left out"]
        told = section.locator("li").all_inner_texts()
        assert told[:2] == ["lag=2: has none", "lag=2: has none"]
        assert told[2].startswith("lag=1: left out") and told[3].startswith("1 files of ") and len(told) == 4
        tab.locator("#groups li[data-group='lag=0'] input").uncheck()
        assert section.locator("figure:visible").count() == 1


def test_higher_and_lower_are_told_as_decided(base, browser, tmp_path: pathlib.Path):
    places = [
        folders.write(tmp_path / f"{lag}{seed}", base, {"grad/norm": [10.0 * (lag == 9) + seed]}, lag=lag, seed=seed)
        for lag in range(10)
        for seed in range(3)
    ]
    with watched(browser, written(folders.compared(*places, metrics=("grad/norm",)), tmp_path)) as tab:
        told = [" ".join(each.split()) for each in tab.locator(".sentences li").all_inner_texts()]
    assert len(told) == 8 and all(each.startswith("lag=9 higher than lag=") for each in told)


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_width(browser, place, scheme):
    with watched(
        browser, place, color_scheme=scheme, reduced_motion="reduce", viewport={"width": 390, "height": 844}
    ) as tab:
        for width in (390, 1600):
            tab.set_viewport_size({"width": width, "height": 900})
            tab.locator("#groups summary").evaluate("summary => { summary.parentElement.open = true }")
            tab.locator("#points").scroll_into_view_if_needed()
            figure(tab)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        for theme in ("auto", "light", "dark"):
            assert tab.locator("#theme").inner_text() == f"Theme: {theme}"
            measured = tab.evaluate(_CONTRAST)
            assert len(measured) > 200
            assert [each for each in measured if each[2] < each[3]] == []
            tab.locator("#theme").click()
        # All 8 colours of lines on the page's own background.
        lines = tab.evaluate("Array.from({length: 8}, (_, i) => ink(`c${i}`))")
        assert len(set(lines)) == 8


def test_performance_profiles_are_curves(browser, tmp_path: pathlib.Path):
    base, random = folders.settings("experiment=dqn/atari", "tracker=none"), np.random.default_rng(0)
    keys = ("source.game", "source.environments.game", "evaluators.episodes.environments.game")
    places = []
    for game, most in (("pong", 20.0), ("breakout", 30.0)):
        for lag in (0, 1):
            for seed in range(3):
                values = [float(most * (0.5 + 0.4 * lag + 0.3 * random.normal()))]
                own = {**dict.fromkeys(keys, game), "lag": lag, "seed": seed}
                places.append(folders.write(tmp_path / game / f"{lag}-{seed}", base, values, protocol={}, **own))
    found = folders.compared(*places, group=("lag",))
    with watched(browser, written(found, tmp_path)) as tab:
        section = tab.locator("#profile-curves")
        section.scroll_into_view_if_needed()
        section.locator("canvas").wait_for()
        assert "Over 2 games" in section.inner_text() and "breakout, pong" in section.inner_text()
        rows = lambda: section.locator("tbody tr").evaluate_all(
            "rows => rows.map(r => [...r.cells].slice(1).map(c => c.textContent))"
        )
        at = [int(np.flatnonzero(each.tau == 1.0)[0]) for each in found.profiles]
        told = [
            [tables.shown(float(each.share[i])), tables.shown((float(each.low[i]), float(each.high[i])))]
            for each, i in zip(found.profiles, at, strict=True)
        ]
        assert rows() == told and told[0] != told[1]
        section.locator(".plot").focus()
        tab.keyboard.press("Home")
        sync_api.expect(section.locator("[aria-live]")).to_contain_text("above 0; lag=0: 1, [1, 1]; lag=1: 1, [1, 1]")
        tab.locator("#groups input[type=checkbox]").first.uncheck()
        assert len(rows()) == 1


def test_links_at_the_top_lead_to_their_sections(opened: sync_api.Page):
    for name, section in (("Runs", "#section-runs"), ("Points", "#points"), ("Verdicts", "#section-verdicts")):
        opened.locator("#sections").get_by_role("link", name=name, exact=True).click()
        opened.wait_for_timeout(1_200)  # for a second the section is followed
        box = opened.locator(section).bounding_box()
        assert box is not None and 0 <= box["y"] < 600
    assert opened.evaluate("document.querySelectorAll('section').length") == opened.locator("#sections a").count()


@pytest.mark.long
def test_everything_is_reached_by_keyboard(opened: sync_api.Page):
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert opened.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    reached = set()
    for _ in range(120):
        opened.keyboard.press("Tab")
        reached.add(opened.evaluate("document.activeElement.closest('section, aside, header')?.id || 'top'"))
    assert {"groups", "curves", "section-verdicts"} <= reached
    assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert opened.locator("main, nav, aside, header").count() == 4


def test_names_of_strangers_stay_text(base, browser, tmp_path: pathlib.Path):
    places = []
    for number, text in enumerate(HOSTILE):
        for seed in (0, 1):
            folder = tmp_path / "runs" / f"{number}{seed}{text.replace('/', '|')}"
            changes = {"lag": f"<b>{text}", "seed": seed, "source.id": text}
            places.append(
                folders.write(folder, base, {f"eval/{text}": [1.0, 2.0], "eval/javascript:": [1.0]}, **changes)
            )
        (places[-1] / "error.txt").write_text(f"{text}\n")
    found = folders.compared(*places, metrics=("eval/*",), group=("lag",))
    blocks = [{"title": HOSTILE[0], "task": HOSTILE[1], "items": [], "notes": [HOSTILE[2]]}]
    place = written(found, tmp_path, command=" ".join(HOSTILE), media=blocks, files=["report.md", HOSTILE[1]])
    assert "hacked=1</script>" not in place.read_text() and "<img" not in place.read_text()
    with watched(browser, place) as tab:
        figure(tab)
        tab.locator("#points").scroll_into_view_if_needed()
        tab.wait_for_timeout(200)
        shown = tab.evaluate("document.body.innerText")
        for text in HOSTILE:
            assert text in shown and f"lag=<b>{text}" in tab.locator("#groups").inner_text()
        assert tab.evaluate("window.hacked") is None and tab.locator("img").count() == 0
        assert tab.locator("script").count() == 2 and tab.locator("a[href^='javascript']").count() == 0
        assert (
            tab.locator(".facts a", has_text="<img").get_attribute("href")
            == "%3Cimg%20src%3Dx%20onerror%3Dwindow.hacked%3D1%3E"
        )


def test_the_policy_stops_what_the_page_does_not_have(browser, place, tmp_path):
    """A script, a style or a request that got in would not run: the same page with each of them."""
    text = place.read_text()
    worse = tmp_path / "worse.html"
    worse.write_text(
        text.replace("<main", "<script>window.hacked=1</script><img src='http://localhost:1/x' alt=''><main", 1)
    )
    context = browser.new_context()
    tab, told, asked = context.new_page(), list[str](), list[str]()
    tab.on("console", lambda message: told.append(message.text))
    tab.on("requestfinished", lambda request: asked.append(request.url))
    tab.goto(worse.as_uri())
    tab.wait_for_selector("html[data-usable]", state="attached")
    assert (
        tab.evaluate("window.hacked") is None and len([each for each in told if "Content Security Policy" in each]) == 2
    )
    assert asked == [worse.as_uri()]
    context.close()
