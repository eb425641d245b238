"""How quick the page of `experiments.compare` is in Debian's chromium, without a display.

    python -m experiments.benchmarks.browser compare/report.html [...]

prints a line for each page. Frames are those that the browser's own trace says were drawn.
"""

import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

SECONDS = 3.0  # of panning, and of hovering
_STEPS = 180


def measure(page: Path) -> dict[str, float]:
    """Of one page: its bytes, seconds until it can be used, frames a second while panning and while hovering.

    Usable: unpacked, with its tables, and the browser idle again. Panning and hovering are in its first figure, with
    all groups and all single seeds shown. Raises RuntimeError where there is no chromium or no playwright.
    """
    chromium = shutil.which("chromium")
    try:
        playwright = importlib.import_module("playwright.sync_api")
    except ModuleNotFoundError as error:
        raise RuntimeError("playwright is not installed; python -m pip install playwright") from error
    if chromium is None:
        raise RuntimeError("no chromium on the path; Debian: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1600, "height": 1000})
        tab.goto(page.absolute().as_uri())
        tab.wait_for_selector("html[data-usable]", state="attached", timeout=120_000)
        tab.evaluate("new Promise((done) => requestIdleCallback(done))")
        usable = tab.evaluate("performance.now()") / 1_000
        tab.locator("#curves .figure canvas").first.wait_for()
        tab.locator("#curves .figure").first.scroll_into_view_if_needed()
        tab.wait_for_timeout(1_000)
        hover = _frames(browser, tab, lambda step, box: tab.mouse.move(*_point(box, step)))
        tab.get_by_label("drag", exact=True).select_option("pan")
        tab.locator("#curves .plot").first.focus()
        for _ in range(3):
            tab.keyboard.press("+")
        pan = _frames(browser, tab, lambda step, box: tab.mouse.move(*_point(box, step)), pressed=True)
        browser.close()
    return {"bytes": page.stat().st_size, "usable_seconds": usable, "pan_fps": pan, "hover_fps": hover}


def _frames(browser: Any, tab: Any, move: Any, *, pressed: bool = False) -> float:
    """Frames a second that the trace says were drawn while the mouse moved to and fro."""
    box = tab.locator("#curves .figure .u-over").first.bounding_box()
    tab.mouse.move(*_point(box, 0))
    if pressed:
        tab.mouse.down()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        categories = ["devtools.timeline", "disabled-by-default-devtools.timeline.frame", "cc", "viz"]
        browser.start_tracing(page=tab, path=path, categories=categories)
        began = tab.evaluate("performance.now()")
        step = 0
        while tab.evaluate("performance.now()") - began < SECONDS * 1_000:
            step += 1
            move(step, box)
        lasted = (tab.evaluate("performance.now()") - began) / 1_000
        events = json.loads(browser.stop_tracing())["traceEvents"]
    if pressed:
        tab.mouse.up()
    return len([event for event in events if event["name"] == "DrawFrame"]) / lasted


def _point(box: dict[str, float], step: int) -> tuple[float, float]:
    """To and fro between a quarter and three quarters of the figure's width."""
    share = abs((step % _STEPS) / (_STEPS / 2) - 1)
    return box["x"] + box["width"] * (0.25 + 0.5 * share), box["y"] + box["height"] / 2


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, json.dumps(measure(Path(name))))
