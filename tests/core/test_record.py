"""The record survives a kill, goes back to a checkpoint, and is strict JSON."""

import json

import numpy as np
import pytest

from core import record, types


def _write(folder, steps):
    rows = record.Record(folder, "frames", print)
    for step in steps:
        rows.write(step=step, examples=4 * step, seconds=0.5 * step, scalars={"loss/td": 1 / step})
    rows.close()
    return folder / "metrics.jsonl"


def _steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_row_is_in_the_file_at_once_with_its_columns_first(tmp_path):
    rows = record.Record(tmp_path, "images", print)
    rows.write(step=3, examples=96, seconds=1.25, scalars={"loss/gan": np.float32(0.5), "count": 7})
    line = (tmp_path / "metrics.jsonl").read_text()  # before close
    assert line == '{"step": 3, "images": 96, "seconds": 1.25, "loss/gan": 0.5, "count": 7.0}\n'
    rows.close()


def test_what_is_not_finite_becomes_null_so_that_any_parser_reads_it(tmp_path):
    rows = record.Record(tmp_path, "frames", print)
    scalars = {"a": float("nan"), "b": np.float32(np.inf), "c": -float("inf"), "d": np.int32(2)}
    rows.write(step=1, examples=4, seconds=0.0, scalars=scalars)
    rows.close()

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert {name: row[name] for name in scalars} == {"a": None, "b": None, "c": None, "d": 2.0}


@pytest.mark.parametrize("name", ["step", "frames", "seconds"])
def test_a_metric_cannot_take_the_name_of_a_column(tmp_path, name):
    rows = record.Record(tmp_path, "frames", print)
    with pytest.raises(ValueError, match=f"metric {name}"):
        rows.write(step=1, examples=4, seconds=0.0, scalars={name: 1.0})
    rows.close()


def test_rewind_keeps_the_checkpoint_and_what_came_before(tmp_path):
    path = _write(tmp_path, range(1, 8))
    assert record.rewind(path, 5) == record.Removed(rows=2, steps=2)
    assert _steps(path) == [1, 2, 3, 4, 5]
    before = path.stat().st_ino
    assert record.rewind(path, 5) == record.Removed(rows=0, steps=0)
    assert path.stat().st_ino == before  # nothing to remove: not even rewritten
    assert record.rewind(path, 0) == record.Removed(rows=5, steps=5)
    assert path.read_text() == ""
    assert record.rewind(tmp_path / "none.jsonl", 5).rows == 0


@pytest.mark.parametrize("torn", [b'{"step": 4, "fra', b'{"step": 4}', b"\x00\x00\n", b"7\n"])
def test_a_line_torn_by_a_kill_goes_and_the_next_row_is_whole(tmp_path, torn):
    path = _write(tmp_path, [1, 2, 3])
    with path.open("ab") as file:
        file.write(torn)
    assert record.rewind(path, 100).rows == 1
    _write(tmp_path, [4])
    assert _steps(path) == [1, 2, 3, 4]


def test_read_goes_on_from_an_offset_and_leaves_a_line_that_is_still_being_written(tmp_path):
    path = _write(tmp_path, [1, 2])
    (first, offset), (second, end) = record.read(path)
    assert (first["step"], second["step"]) == (1, 2)
    assert [row["step"] for row, _ in record.read(path, offset=offset)] == [2]
    with path.open("a") as file:
        file.write('{"step": 3')
        file.flush()
        assert list(record.read(path, offset=end)) == []
        file.write("}\n")
    assert [row for row, _ in record.read(path, offset=end)] == [{"step": 3}]


def test_media_are_files_named_by_what_they_show_and_when(tmp_path):
    rows = record.Record(tmp_path, "frames", print)
    still = types.Image(pixels=np.zeros((8, 8, 3), np.uint8))
    film = types.Video(frames=np.zeros((4, 32, 32, 3), np.uint8), frames_per_second=10.0)
    written = rows.keep({"eval/play": film, "samples σ=1": still}, 400)
    rows.close()
    assert written == {
        "eval/play": tmp_path / "media/eval/play-400.mp4",
        "samples σ=1": tmp_path / "media/samples___1-400.png",
    }
    assert all(path.stat().st_size > 0 for path in written.values())


def test_a_picture_that_cannot_be_written_costs_a_line_and_not_the_run(tmp_path):
    said = []
    rows = record.Record(tmp_path, "frames", said.append)
    assert rows.keep({"broken": types.Image(pixels=np.zeros((8, 8, 5), np.uint8))}, 4) == {}
    rows.close()
    assert len(said) == 1
    assert "broken-4.png: not written" in said[0]
