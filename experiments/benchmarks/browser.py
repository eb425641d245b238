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
_DRAWN = "new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
# Moves the mouse over the first figure, a place a frame, to and fro between a quarter and three quarters of its width.
_MOVE = """
([seconds, pressed]) => new Promise((done) => {
  const over = document.querySelector("#curves .figure .u-over");
  const box = over.getBoundingClientRect();
  const began = performance.now();
  const send = (kind, step) => {
    const share = 0.25 + 0.5 * Math.abs(((step % 120) / 60) - 1);
    const place = { clientX: box.left + box.width * share, clientY: box.top + box.height / 2 };
    const more = { bubbles: true, view: window, button: 0, buttons: pressed ? 1 : 0 };
    over.dispatchEvent(new MouseEvent(kind, { ...place, ...more }));
  };
  send("mouseenter", 0);
  if (pressed) send("mousedown", 0);
  let step = 0;
  const next = () => {
    send("mousemove", step += 1);
    if (performance.now() - began < seconds * 1000) requestAnimationFrame(next);
    else {
      if (pressed) send("mouseup", step);
      done((performance.now() - began) / 1000);
    }
  };
  requestAnimationFrame(next);
})
"""


def measure(page: Path) -> dict[str, float]:
    """Of one page: its bytes, seconds until it can be used, frames a second while panning and while hovering.

    Usable: unpacked, with its tables, and drawn once. Panning and hovering are in its first figure, with
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
        usable = tab.evaluate(_DRAWN) / 1_000
        tab.locator("#curves .figure").first.scroll_into_view_if_needed()
        tab.locator("#curves .figure canvas").first.wait_for()
        tab.locator("#curves .figure .u-over").first.scroll_into_view_if_needed()
        tab.wait_for_timeout(1_000)
        hover = _frames(browser, tab, pressed=False)
        tab.get_by_label("drag", exact=True).select_option("pan")
        tab.locator("#curves .plot").first.focus()
        for _ in range(3):
            tab.keyboard.press("+")
        pan = _frames(browser, tab, pressed=True)
        browser.close()
    return {"bytes": page.stat().st_size, "usable_seconds": usable, "pan_fps": pan, "hover_fps": hover}


def _frames(browser: Any, tab: Any, *, pressed: bool) -> float:
    """Frames a second that the trace says were drawn while the mouse moved."""
    with tempfile.TemporaryDirectory() as folder:
        categories = ["devtools.timeline", "disabled-by-default-devtools.timeline.frame"]
        browser.start_tracing(page=tab, path=Path(folder) / "trace.json", categories=categories)
        lasted = tab.evaluate(_MOVE, [SECONDS, pressed])
        events = json.loads(browser.stop_tracing())["traceEvents"]
    return len([event for event in events if event["name"] == "DrawFrame"]) / lasted


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, json.dumps(measure(Path(name))))
