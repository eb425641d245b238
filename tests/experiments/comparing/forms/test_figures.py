"""Figures and `curves.csv`: their numbers, what stands in them, and that they are the same bytes again."""

import csv
import locale
import os
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import process

import numpy as np
import pytest

from experiments import compare
from experiments.comparing.forms import figures, page, tables
from experiments.comparing.numbers import statistics
from tests.experiments.comparing import folders


@pytest.fixture(scope="module")
def base():
    return folders.settings("experiment=dqn/atari", "source.game=pong", "tracker=none")


def _command(monkeypatch, *typed):
    monkeypatch.setattr(sys, "argv", ["compare.py", *typed])
    compare.main()


def written(found, out):
    with figures.written(found, out) as names:
        return names


def _texts(path):
    """What the figure says."""
    return ["".join(node.itertext()) for node in ElementTree.parse(path).iter() if node.tag.endswith("}text")]


def test_the_csv_has_every_place_of_every_band(base, tmp_path):
    for seed, values in enumerate([[1.0, 2.0, 3.0], [3.0, 4.0, 8.0]]):
        folders.write(tmp_path / "runs" / str(seed), base, values, seed=seed)
    found = folders.compared(*sorted((tmp_path / "runs").iterdir()))
    written(found, tmp_path)
    rows = list(csv.DictReader((tmp_path / "curves.csv").read_text().splitlines()))
    own = [row for row in rows if row["axis"] == "frames"]
    assert [(row["x"], row["n"]) for row in own] == [("100", "2"), ("200", "2"), ("300", "2")]
    assert [float(row["mean"]) for row in own] == [2.0, 3.0, 5.5]
    interval = statistics.mean_interval(np.asarray([3.0, 8.0]))
    assert interval is not None
    np.testing.assert_allclose([float(own[2]["mean low"]), float(own[2]["mean high"])], interval)
    assert {row["axis"] for row in rows} == {"frames", "updates", "hours"} and own[0]["median"] == "2.0"


def test_a_figure_says_who_is_in_it_and_is_drawn_alike_again(base, tmp_path):
    folders.write(tmp_path / "runs" / "0", base, [1.0, 2.0], seed=0)
    short = folders.write(tmp_path / "runs" / "1", base, [3.0, 5.0], seed=1, budget=900)
    short.joinpath("error.txt").write_text("out of <memory>\n")
    found = folders.compared(*sorted((tmp_path / "runs").iterdir()), group=("lag",), published=("dqn",))
    ((title, name),) = written(found, tmp_path)
    assert (title, name) == ("eval/episode_return pong", "curves-eval-episode-return-pong.svg")
    first = (tmp_path / name).read_bytes()
    written(found, tmp_path)
    assert (tmp_path / name).read_bytes() == first
    told = " ".join(_texts(tmp_path / name))
    assert "lag=1, n = 2" in told and "1 of 2 runs are not done" in told
    assert "failed at 200 of 900 frames: out of <memory>" in told and "runs/1" in told


def test_a_process_beside_draws_the_same_bytes(base, tmp_path, monkeypatch):
    folders.write(tmp_path / "run", base, [1.0, 2.0], seed=0)
    found = folders.compared(tmp_path / "run", published=("rainbow",))
    ((_, name),) = written(found, tmp_path)
    here = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    monkeypatch.setattr(figures.beside, "cores", lambda: 2)
    with figures.drawer(figures.MANY - 1) as none:
        assert none is None
    with figures.drawer(figures.MANY) as pool:
        assert pool is not None
        monkeypatch.setattr(figures.drawing, "_draw", None)  # in this process
        with figures.written(found, tmp_path, pool) as names:
            assert [name for _, name in names] == [name]
        assert (tmp_path / name).read_bytes() == here
    monkeypatch.undo()
    for ended in (False, True):  # while it draws, and before
        (tmp_path / name).unlink()
        with figures.beside.pool(1) as pool:
            broken = pool.submit(os._exit, 1)
            if ended:
                assert isinstance(broken.exception(), process.BrokenProcessPool)
            with figures.written(found, tmp_path, pool):
                pass
        assert (tmp_path / name).read_bytes() == here


def test_profiles_have_a_figure_and_resumed_runs_a_tick(base, tmp_path):
    keys = ("source.game", "source.environments.game", "evaluators.episodes.environments.game")
    places = []
    for game in ("pong", "breakout"):
        for lag in (0, 1):
            own = {**dict.fromkeys(keys, game), "lag": lag}
            places.append(folders.write(tmp_path / f"{game}-{lag}", base, [1.0, 9.0], protocol={}, **own))
    with (places[0] / "provenance.jsonl").open("w") as file:
        file.write('{"step": 0}\n{"step": 1}\n')
    found = folders.compared(*places, group=("lag",))
    names = dict(written(found, tmp_path))
    told = _texts(tmp_path / names["Performance profiles"])
    assert {"lag=0", "lag=1", "human-normalised score"} <= set(told) and told.count("2 games") == 0
    assert names["Performance profiles"] == "profiles.svg"
    ticked = {game: _texts(tmp_path / names[f"eval/episode_return {game}"]) for game in ("pong", "breakout")}
    assert "a run was resumed" in ticked["pong"] and "a run was resumed" not in ticked["breakout"]
    drawn = (tmp_path / names["eval/episode_return pong"]).read_text()
    assert drawn.count("stroke-width: 1.2") == 2 + 1  # its mark, used in the panel and in the legend


def test_published_curves_are_dashed_where_ours_reach(base, tmp_path):
    folders.write(tmp_path / "runs" / "0", base, [1.0, 2.0], every=1_000_000)
    found = folders.compared(tmp_path / "runs" / "0", published=("dqn", "btr"))
    written(found, tmp_path)
    text = (tmp_path / "curves-eval-episode-return-pong.svg").read_text()
    assert text.count("stroke-dasharray: 3.7,1.6") == 4  # two curves, and two in the legend
    told = " ".join(_texts(tmp_path / "curves-eval-episode-return-pong.svg"))
    assert "Dopamine DQN: training scores" in told and "sticky 0.25" in told


def test_names_and_numbers_of_every_kind_are_drawn(base, tmp_path):
    odd = ["$\\frac{1}$", "_hidden", "<script>&\x07", "w" * 300, "名前", "nolegend"]
    for number, name in enumerate(odd):
        values = [[1e308, -1e308], [0.0, 0.0], [None, None], [5.0], [1e-320, 1e-310], [1.0, None, 2.0]][number]
        folders.write(tmp_path / "runs" / str(number), base, values, **{"learner.loss": name})
    found = folders.compared(*sorted((tmp_path / "runs").iterdir()), group=("learner.loss",))
    written(found, tmp_path)
    (path,) = tmp_path.glob("curves-*.svg")
    told = "\n".join(_texts(path))
    assert "learner.loss=$\\frac{1}$, n = 1" in told and "learner.loss=_hidden" in told and "<script>&\ufffd" in told
    assert told.count("w") > 300 and "名前" in told


def test_many_tasks_share_a_figure_and_an_old_one_goes(base, tmp_path, monkeypatch):
    keys = ("source.game", "source.environments.game", "evaluators.episodes.environments.game")
    games = ["pong", "breakout", "qbert", "seaquest", "alien", "amidar", "assault"]
    for game in games:
        folders.write(tmp_path / "runs" / game, base, [1.0, 2.0], protocol={}, **dict.fromkeys(keys, game))
    compared = lambda what: _command(monkeypatch, f"runs={what}", f"out={tmp_path}/out")
    compared(f"[{tmp_path}/runs/pong,{tmp_path}/runs/qbert]")
    assert len(list((tmp_path / "out").glob("curves-*.svg"))) == 2
    compared(tmp_path / "runs")
    (path,) = (tmp_path / "out").glob("curves-*.svg")
    assert set(games) <= set(_texts(path))
    assert f"![eval/episode_return]({path.name})" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.skipif(bool(sys.flags.utf8_mode), reason="Python reads and writes UTF-8 whatever the system's encoding is")
def test_files_are_utf_8_on_a_system_of_ascii(base, tmp_path):
    folders.write(tmp_path / "run", base, {"eval/größe": [1.0, 2.0]})
    found = folders.compared(tmp_path / "run", metrics=("eval/g*",))
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "C")
        written(found, tmp_path)
        text = page.render(found, tables.tables(found))
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    assert "größe" in (tmp_path / "curves.csv").read_text("utf-8") and "Unpacking …" in text


def test_two_titles_never_share_a_file(base, tmp_path):
    named = dict[str, str]()
    names = [figures._file(title, named) for title in ("a/b", "a b", "A/B", "a/b")]
    assert len({name.lower() for name in names[:3]}) == 3 and names[0] == names[3] == "curves-a-b.svg"
