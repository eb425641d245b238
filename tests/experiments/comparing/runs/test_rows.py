"""Reading a metrics.jsonl: quickly where it is regular, and to the same end where it is not."""

import json
import math
import os
import pathlib
import random
import threading
import time

import numpy as np
import pytest

from experiments.comparing.runs import rows

HEAD = '{"step": 1, "frames": 100, "seconds": 1.5'


def read(folder: pathlib.Path, content: str | bytes, *wanted: str) -> rows.Rows:
    path = folder / "metrics.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return rows.read(path, wanted or ("*",))


def line_by_line(lines: list[str]) -> dict[str, list[tuple[int, float]]]:
    """By hand: a column is (number of the row, value)."""
    found: dict[str, list[tuple[int, float]]] = {}
    number = 0
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if not isinstance(row, dict) or type(row.get("frames")) is not int or row["frames"] < 0:
            continue
        for name, value in row.items():
            if name in ("step", "frames", "seconds"):
                continue
            found.setdefault(name, [])
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                own = math.nan if value is None or abs(value) > 1e308 else float(value)
                found[name].append((number, own))
        number += 1
    return found


def test_any_mixture_of_lines_is_read_as_line_by_line(tmp_path: pathlib.Path):
    draw = random.Random(0)
    odd = [
        "",
        "{",
        "[1]",
        "7",
        '"frames"',
        '{"frames": true}',
        '{"frames": -1, "step": 2}',
        '{"frames": "3"}',
        "\x00\x01",
    ]
    for share in (0.0, 0.002, 0.3):
        lines = []
        for number in range(2_000):
            row: dict = {"step": number, "frames": 10 * number, "seconds": number / 3, "a": draw.random()}
            if draw.random() < 0.2:
                row["eval/b"] = draw.choice([1, None, 2.5, -0.0, 1e300])
            if number > 1_500:
                row["late"] = number
            if draw.random() < share:
                row["a"] = draw.choice([float("nan"), float("inf"), True, "high", [1], 10**400, None])
            lines.append(draw.choice(odd) if draw.random() < share else json.dumps(row))
        found = read(tmp_path, "\n".join(lines) + "\n")
        expected = line_by_line(lines)
        assert found.names == tuple(sorted(expected))
        for name, (at, values) in found.columns.items():
            own = expected[name]
            assert at.tolist() == [row for row, _ in own]
            assert values.tobytes() == np.array([value for _, value in own], np.float64).tobytes(), name
        bad = sum(bool(line.strip()) for line in lines) - len(found.x)
        assert (f"{bad} of 2000 lines" in found.problem) == bool(bad)


def test_only_what_is_asked_for_is_kept_and_columns_of_the_same_rows_share_them(tmp_path: pathlib.Path):
    lines = [f'{HEAD}, "a": 1, "b": 2, "eval/c": {n}}}' for n in range(100)]
    found = read(tmp_path, "\n".join(lines), "a", "eval/*")
    assert found.names == ("a", "b", "eval/c") and list(found.columns) == ["a", "eval/c"]
    assert found.columns["a"][0] is found.columns["eval/c"][0]


@pytest.mark.parametrize(
    "line, told",
    [
        ('{"step": 1, "frames": 9223372036854775808}', "1 of 2 lines cannot be read (line 2)"),
        ('{"step": -4, "frames": 5}', "1 of 2 lines cannot be read (line 2)"),
        ('{"step": 1, "frames": 1e2}', "1 of 2 lines cannot be read (line 2)"),
        ('{"step": 1, "frames": 5, "\\ud800": 1}', "1 of 2 lines cannot be read (line 2)"),
        ('{"step": 1, "images": 5}', "1 of 2 lines cannot be read (line 2)"),  # the run counts frames
        ("[" * 100_000, "1 of 2 lines cannot be read (line 2)"),
        ('{"a":' * 100_000, "1 of 2 lines cannot be read (line 2)"),
        ('{"frames": ' + "9" * 5_000 + "}", "1 of 2 lines cannot be read (line 2)"),
        ("\xff\xfe", "1 of 2 lines cannot be read (line 2)"),
        ("   ", ""),
    ],
)
def test_lines_that_are_no_rows_are_counted(tmp_path: pathlib.Path, line: str, told: str):
    found = read(tmp_path, f'{HEAD}, "a": 2}}\n'.encode() + line.encode("latin-1") + b"\n")
    assert found.x.tolist() == [100] and found.columns["a"][1].tolist() == [2.0]
    assert found.problem == ("metrics.jsonl: " + told) * bool(told)


def test_of_a_repeated_key_the_last_counts_and_steps_may_be_missing(tmp_path: pathlib.Path):
    found = read(tmp_path, '{"frames": 5, "a": 1, "a": 2}\n{"step": null, "frames": 6, "a": 1e999, "a": 3}\n')
    assert (found.x.tolist(), found.steps.tolist(), found.columns["a"][1].tolist()) == ([5, 6], [0, 0], [2.0, 3.0])
    assert np.isnan(found.seconds).all()


def test_a_line_of_50_mb_and_one_beyond_all_measure(tmp_path: pathlib.Path, monkeypatch):
    long = f'{HEAD}, "text": "{"x" * (50 << 20)}", "a": 2}}\n'
    assert read(tmp_path, long + HEAD + ', "a": 3}\n', "a").columns["a"][1].tolist() == [2.0, 3.0]
    monkeypatch.setattr(rows, "_LONGEST", 1 << 20)
    found = read(tmp_path, f'{long}{HEAD}, "a": 3}}\n', "a")
    assert found.columns["a"][1].tolist() == [3.0] and "1 of 2 lines cannot be read (line 1)" in found.problem


def test_a_great_many_rows(tmp_path: pathlib.Path):
    lines = (f'{{"step": {n}, "frames": {4 * n}, "seconds": {n}, "a": {n}.5}}\n' for n in range(200_000))
    with (tmp_path / "metrics.jsonl").open("w") as file:
        file.writelines(lines)
    found = rows.read(tmp_path / "metrics.jsonl", ("a",))
    assert len(found.x) == 200_000 and found.columns["a"][1][-1] == 199_999.5 and found.problem == ""


def test_a_file_that_grows_while_it_is_read_is_read_up_to_some_row(tmp_path: pathlib.Path):
    path, over = tmp_path / "metrics.jsonl", threading.Event()

    def write() -> None:
        with path.open("a", buffering=97) as file:
            for number in range(10_000_000):
                file.write(f'{{"step": {number}, "frames": {number}, "seconds": 1, "a": {number}}}\n')
                if number % 100 == 0 and over.wait(1e-3):
                    return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not path.exists() or path.stat().st_size < 1 << 16:
            time.sleep(0.01)
        found = [rows.read(path, ("a",)) for _ in range(5)]
    finally:
        over.set()
        writer.join()
    for each in found:
        assert each.x.tolist() == list(range(len(each.x))) and len(each.columns["a"][0]) == len(each.x)
        assert each.problem in ("", "metrics.jsonl: the last line is torn")


def test_what_is_no_file_is_refused_at_once(tmp_path: pathlib.Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match="is not a regular file"):
            rows.read(tmp_path / name, ("*",))
