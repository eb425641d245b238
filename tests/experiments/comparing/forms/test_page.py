"""What goes into the page: arrays that come back, texts that stay texts, a policy that fits its scripts."""

import base64
import gzip
import hashlib
import json
import os
import pathlib
import re
import struct
import sys
from typing import Any

import numpy as np
import pytest

from experiments import compare
from experiments.comparing import report, scoring
from experiments.comparing.forms import page, tables
from experiments.comparing.runs import reading
from tests.experiments.comparing import folders


def unpacked(text: str) -> Any:
    """What the page's scripts make of it."""
    raw = gzip.decompress(base64.b64decode(text))
    (length,) = struct.unpack("<Q", raw[:8])
    arrays = raw[8 + length :]

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "array" not in value:
            return {key: filled(item) for key, item in value.items()}
        kind, start, count = value["array"]
        found = np.frombuffer(arrays, {"steps": "<i4", "float32": "<f4", "float64": "<f8"}[kind], count, start)
        return np.cumsum(found, dtype=np.int64) if kind == "steps" else found

    return filled(json.loads(raw[8 : 8 + length]))


@pytest.mark.parametrize(
    "array, kind",
    [
        (np.asarray([100, 200, 5, -7]), "steps"),
        (np.asarray([0.1, 0.25, np.nan, 7.0]), "float32"),
        (np.asarray([3e9, 3e9 + 1, 3e9 + 2]), "float64"),  # float32 would draw them as one value
        (np.asarray([1e300, 1.5, np.nan]), "float64"),
        (np.asarray([np.nan, np.nan]), "float32"),
        (np.asarray([]), "float32"),
        (np.asarray([2**40, 2**40 + 1]), "float64"),
    ],
)
def test_arrays_come_back(array, kind):
    text = page.packed({"first": np.asarray([1.5]), "inner": [{"own": array}], "name": "é\u2028<"})
    found = unpacked(text)
    np.testing.assert_allclose(
        found["inner"][0]["own"], array, rtol=0, atol=1e-6 * np.ptp([0.0, *array[np.isfinite(array)]])
    )
    assert (found["first"], found["name"]) == (1.5, "é\u2028<")
    assert {"steps": "i4", "float32": "f4", "float64": "f8"}[kind] in str(page._as_bytes(array)[1].dtype.str)


@pytest.fixture
def runs(tmp_path: pathlib.Path) -> pathlib.Path:
    config = folders.settings("experiment=dqn/cartpole", "tracker=none")
    for batch in (8, 16):
        for seed in range(3):
            changes = {"learner.batch": batch, "seed": seed}
            folders.write(tmp_path / "runs" / f"{batch}-{seed}", config, [1.0, seed + batch / 3], **changes)
    return tmp_path / "runs"


def test_the_page_has_every_table_and_curve(runs: pathlib.Path):
    read = [reading.read(folder, None) for folder in sorted(runs.iterdir())]
    found = report.make([run for run in read if isinstance(run, reading.Run)], [], scoring.Asked())
    every = tables.tables(found)
    text = page.render(found, every, command="compare <b>", files=["report.json", "runs.csv"])
    assert "compare &lt;b&gt;" in text and 'href="report.json"' in text
    (data,) = re.findall(r'<script type="text/plain" id="data">([^<]*)</script>', text)
    told = unpacked(data)
    assert [table["name"] for table in told["tables"]] == [table.name for table in every]
    assert json.loads(json.dumps([table.rows for table in every])) == [table["rows"] for table in told["tables"]]
    assert [table["file"] for table in told["tables"] if table["file"]] == ["runs.csv"]
    for curve, own in zip(found.curves, told["curves"], strict=True):
        band = curve.bands["frames"]
        np.testing.assert_array_equal(own["bands"]["frames"]["x"], band.x)
        np.testing.assert_array_equal(own["bands"]["frames"]["n"], band.n)
        np.testing.assert_allclose(own["bands"]["frames"]["low"]["iqm"], band.low["iqm"], rtol=1e-6)
        assert list(told["groups"])[own["group"]] == curve.group and len(own["lines"]) == 3
    assert told["names"] == ["batch=8", "batch=16"]
    (style,), (script,) = (
        re.findall(r"<style>(.*?)</style>", text, re.S),
        re.findall(r"<script>(.*?)</script>", text, re.S),
    )
    for kind, content in (("style", style), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in text


def test_the_page_lies_where_out_says(runs: pathlib.Path, tmp_path: pathlib.Path, monkeypatch, capsys):
    def run(*typed: str) -> None:
        monkeypatch.setattr(sys, "argv", ["compare.py", f"runs={runs}", *typed])
        compare.main()

    own = tmp_path / "own"
    for name in ("mine #1.html", "other.HTM"):
        run(f"out='{own}/{name}'", "group=[learner.batch]")
        folder = own / pathlib.Path(name).stem
        beside = {path.name for path in folder.iterdir()}
        assert {"report.json", "report.md", "tables.tex", "verdicts.csv", "runs.csv"} <= beside
        assert f"written: {own}/{name}, and in {folder} report.json, " in capsys.readouterr().out
    assert {path.name for path in own.iterdir()} == {"mine #1.html", "mine #1", "other.HTM", "other"}
    text = (own / "mine #1.html").read_text()
    assert 'href="mine%20%231/report.json"' in text
    (data,) = re.findall(r'<script type="text/plain" id="data">([^<]*)</script>', text)
    assert unpacked(data)["beside"] == "mine%20%231/"
    run(f"out={own}", "group=[learner.batch]")
    (own / "precious.csv").write_text("1,2\n")
    run(f"out={own}", "group=[seed]")  # no verdict between single seeds' groups has a table of its own now
    names = {path.name for path in own.iterdir()}
    assert {"report.html", "mine #1.html", "precious.csv"} <= names
    listed = json.loads((own / "report.json").read_text())["files"]
    assert {name for name in names if name.endswith(".csv")} == {name for name in listed if name.endswith(".csv")} | {
        "precious.csv"
    }
    assert 'href="report.json"' in (own / "report.html").read_text()


def test_a_folder_whose_name_is_no_text(runs: pathlib.Path, tmp_path: pathlib.Path, monkeypatch):
    os.rename(os.fsencode(runs / "8-0"), os.fsencode(runs) + b"/8-\xff0")
    monkeypatch.setattr(sys, "argv", ["compare.py", f"runs={runs}", f"out={tmp_path}/out"])
    compare.main()
    assert (tmp_path / "out" / "report.html").read_bytes().decode().count("<script>") == 1
    assert "its name is not UTF-8" in (tmp_path / "out" / "left_out.csv").read_text()
    json.loads((tmp_path / "out" / "report.json").read_text())
