"""`experiments.compare` on runs that were really trained, and on folders of every other kind."""

import contextlib
import csv
import json
import os
import pathlib
import shlex
import shutil
import sys

import numpy as np
import pytest
from scipy import stats

from core import stopping
from experiments import compare, train, training
from experiments.comparing.parts import pairs
from experiments.comparing.runs import cache
from experiments.config import command_line, saved
from tests.experiments.comparing import folders

RETURN = folders.METRIC


def run(monkeypatch: pytest.MonkeyPatch, out: pathlib.Path, *typed: str) -> dict:
    """Types the command; returns its report.json."""
    monkeypatch.setattr(sys, "argv", ["compare.py", *typed, f"out={out}"])
    compare.main()
    return json.loads((out / "report.json").read_text())


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *typed: str) -> str:
    monkeypatch.setattr(sys, "argv", ["compare.py", *typed])
    with pytest.raises(SystemExit) as ended:
        compare.main()
    assert ended.value.code == 2
    return capsys.readouterr().err


def cells(found: dict, which: str = "last", metric: str = RETURN) -> dict[str, dict]:
    """By group, where there is one task."""
    return {cell["group"]: cell for cell in found["cells"] if (cell["which"], cell["metric"]) == (which, metric)}


# ---- real runs ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two seeds; and as if they had been copied while they trained, the first without the end of its record."""
    sweep = tmp_path_factory.mktemp("trained")
    for seed in (0, 1):
        settings = command_line.compose("experiment=dqn/cartpole", "+debug=tiny", "tracker=none", f"seed={seed}")
        training.train(settings, sweep / str(seed), stop=stopping.Stop())
    shutil.copytree(sweep / "0", sweep / "2", ignore=shutil.ignore_patterns("checkpoints"))
    record = sweep / "2" / "metrics.jsonl"
    record.write_bytes(record.read_bytes()[: record.stat().st_size * 7 // 10])
    (sweep / "2" / saved.FAILURE).write_text("OSError: the disk is full\n\nTraceback …\n")
    return sweep


def rows_of(folder: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_sweep_that_was_trained(trained: pathlib.Path, tmp_path: pathlib.Path, monkeypatch, capsys):
    found = run(monkeypatch, tmp_path / "report", f"sweep={trained}")
    assert list(cells(found)) == ["all runs"] and found["tasks"] == ["CartPole-v1"] and found["differences"] == []
    cell = cells(found)["all runs"]
    last = [[row[RETURN] for row in rows_of(trained / str(seed)) if RETURN in row][-1] for seed in (0, 1)]
    assert cell["values"] == [[seed, str(trained / str(seed)), last[seed]] for seed in (0, 1)]
    ((folder, why),) = cell["missing"]
    assert folder == str(trained / "2") and why.startswith("failed at") and why.endswith("OSError: the disk is full")
    assert {member["folder"]: member["state"] for member in found["members"]}[str(trained / "1")] == "done"
    printed = capsys.readouterr().out
    assert "# 3 runs in 1 groups" in printed and "2 done, 1 failed" in printed and "the disk is full" in printed


def test_a_run_that_failed_goes_on_by_the_command_that_its_row_tells(
    trained: pathlib.Path, tmp_path: pathlib.Path, monkeypatch
):
    folder = tmp_path / "failed"
    shutil.copytree(trained / "0", folder)
    (folder / saved.FAILURE).write_text("OSError: the disk is full\n")
    newest = max(path for path in (folder / "checkpoints").iterdir() if path.name.isdecimal())
    rows = (folder / "metrics.jsonl").read_text()
    last = json.loads(rows.splitlines()[-1])
    (folder / "metrics.jsonl").write_text(rows + json.dumps(last | {"step": last["step"] + 7}) + "\n")
    found = run(monkeypatch, tmp_path / "report", f"runs={folder}")
    (member,) = found["members"]
    assert member["retry"] == f"python -m experiments.train resume={folder}"
    monkeypatch.setattr(sys, "argv", ["train.py", *shlex.split(member["retry"])[3:]])
    with contextlib.suppress(SystemExit):
        train.main()
    (member,) = run(monkeypatch, tmp_path / "report", f"runs={folder}")["members"]
    assert (member["state"], member["retry"], len(member["resumed"])) == ("done", "", 1)
    assert member["lost_steps"] == last["step"] + 7 - int(newest.name) and member["hours"] > 0
    attempts = [json.loads(line) for line in (folder / "provenance.jsonl").read_text().splitlines()]
    layers = (4 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 2  # of CartPole's network
    assert [each["parameters"] for each in attempts] == [layers, layers]
    with (tmp_path / "report" / "runs.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["resumed"], row["steps lost"]) == ("1", str(member["lost_steps"]))


def test_a_reader_that_leaves_before_the_end_is_no_error(trained: pathlib.Path, tmp_path: pathlib.Path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        found = run(monkeypatch, tmp_path / "report", f"runs={trained}")
    assert len(found["members"]) == 3


def test_trained_runs_at_a_number_of_frames(trained: pathlib.Path, tmp_path: pathlib.Path, monkeypatch):
    found = run(monkeypatch, tmp_path / "report", f"runs={trained}", "at=320", "metric=[eval/*_return,loss/td]")
    assert set(found["metrics"].items()) == {(RETURN, "higher"), ("loss/td", "lower")}
    first = next(row[RETURN] for row in rows_of(trained / "0") if RETURN in row and row["frames"] >= 320)
    member = next(member for member in found["members"] if member["folder"] == str(trained / "0"))
    assert member["values"][RETURN]["at"] == first
    assert cells(found, "at")["all runs"]["summary"]["n"] == 3  # the one that failed had been there
    assert [told for told in cells(found, "at")["all runs"]["warnings"] if told.startswith("seed 0 more than once")]


# ---- folders ----


@pytest.fixture(scope="module")
def base():
    return folders.settings("experiment=dqn/cartpole", "tracker=none")


@pytest.fixture
def two(base, tmp_path: pathlib.Path) -> dict[int, list[float]]:
    """Five seeds of two batches in tmp_path/runs: their last returns."""
    random = np.random.default_rng(0)
    scores = {8: [*(100 + random.normal(size=5))], 16: [*(103 + random.normal(size=5))]}
    for batch, values in scores.items():
        for seed, value in enumerate(values):
            changes = {"learner.batch": batch, "seed": seed, "source.seed": seed}
            folders.write(tmp_path / "runs" / f"{batch}-{seed}", base, [200.0, value], **changes)
    return scores


def test_numbers_are_those_of_the_rows(two, tmp_path: pathlib.Path, monkeypatch):
    found = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs")
    assert found["keys"] == ["learner.batch"] and list(found["labels"]) == ["learner.batch=8", "learner.batch=16"]
    for batch, values in two.items():
        cell = cells(found)[f"learner.batch={batch}"]
        interval = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
        assert cell["summary"]["mean"] == pytest.approx(np.mean(values))
        assert cell["summary"]["mean_interval"] == pytest.approx(interval)
        assert cells(found, "best")[f"learner.batch={batch}"]["summary"]["mean"] == 200
    (verdict,) = found["verdicts"]
    welch = stats.ttest_ind(two[16], two[8], equal_var=False)
    assert (verdict["second"], verdict["told"]) == ("learner.batch=16", "better")
    assert verdict["result"]["p"] == pytest.approx(welch[1])
    lower = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs", "better=lower")
    assert lower["verdicts"][0]["told"] == "worse" and cells(lower, "best")["learner.batch=8"]["summary"]["mean"] < 105


def test_every_form_tells_the_same(two, tmp_path: pathlib.Path, monkeypatch):
    found = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs")
    mean = cells(found)["learner.batch=8"]["summary"]["mean"]
    with (tmp_path / "report" / "scores-eval-episode-return-last.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["mean"]) == mean
    assert [float(rows[0][f"95 % interval {end}"]) for end in ("low", "high")] == cells(found)["learner.batch=8"][
        "summary"
    ]["mean_interval"]
    for file in ("report.md", "tables.tex"):
        assert f"{mean:.4g}" in (tmp_path / "report" / file).read_text()
    with (tmp_path / "report" / "seeds.csv").open() as file:
        assert len([row for row in csv.DictReader(file) if row["value"] == "last"]) == 10


def test_another_group_changes_no_number(base, two, tmp_path: pathlib.Path, monkeypatch):
    before = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs")
    folders.write(tmp_path / "runs" / "third", base, [1.0, 2.0], **{"learner.batch": 32})
    after = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs")
    assert len(after["labels"]) == 3
    assert {name: cell for name, cell in cells(after).items() if name in cells(before)} == cells(before)


def test_unfinished_runs_are_named_and_apart_unless_asked_for(base, two, tmp_path: pathlib.Path, monkeypatch, capsys):
    short = folders.write(tmp_path / "runs" / "short", base, [50.0], budget=200, seed=9, **{"learner.batch": 8})
    found = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs")
    cell = cells(found)["learner.batch=8"]
    assert cell["summary"]["n"] == 5 and cell["missing"] == [
        [str(short), "running at 100 of 200 frames: last row 0 min ago"]
    ]
    assert "all runs have reached at=100" in found["notes"][0] and "1 of 11 runs" in found["notes"][0]
    assert str(short) in capsys.readouterr().out
    counted = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs", "unfinished=counted")
    assert cells(counted)["learner.batch=8"]["summary"]["n"] == 6
    at = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs", "at=100")
    assert cells(at, "at")["learner.batch=8"]["summary"]["n"] == 6
    assert not [told for told in cells(at, "at")["learner.batch=8"]["warnings"] if "lie at" in told]
    beyond = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs", "at=101")
    assert cells(beyond, "at")["learner.batch=8"]["missing"][0][0] == str(short)
    assert cells(beyond, "at")["learner.batch=8"]["warnings"] == ["first values from there on lie at up to 200"]


def test_unlike_protocols_are_not_averaged_unless_forced(base, tmp_path: pathlib.Path, monkeypatch):
    for seed, sticky in enumerate([0.0, 0.0, 0.25, 0.25]):
        told = {"sticky": sticky, "evaluators": {"episodes": {"epsilon": 0.01}}}
        folders.write(tmp_path / "runs" / str(seed), base, [float(seed)], seed=seed, protocol=told)
    found = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs")
    assert [cell["summary"]["mean"] for cell in found["cells"] if cell["which"] == "last"] in ([0.5, 2.5], [2.5, 0.5])
    (note,) = found["notes"]
    assert "2 protocols, not averaged together (sticky: 0 / 0.25" in note or "(sticky: 0.25 / 0" in note
    assert "protocols=any" in note
    forced = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs", "protocols=any")
    assert cells(forced)["all runs"]["summary"]["mean"] == 1.5
    assert "though their protocols differ" in forced["notes"][0]


def test_the_same_rows_by_unlike_protocols_are_no_copies(base, tmp_path: pathlib.Path, monkeypatch):
    for sticky in (0.0, 0.25):
        folders.write(tmp_path / f"runs/{sticky}", base, [1.0, 2.0], protocol={"sticky": sticky})
    found = run(monkeypatch, tmp_path / "out", f"runs={tmp_path}/runs")
    assert len(found["members"]) == 2 and not found["left_out"]


def test_groups_of_unlike_protocols_get_no_verdict(base, tmp_path: pathlib.Path, monkeypatch):
    for seed in range(6):
        changes = {"seed": seed, "lag": seed % 2}
        folders.write(tmp_path / "runs" / str(seed), base, [float(seed)], protocol={"cap": seed % 2}, **changes)
    (verdict,) = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs")["verdicts"]
    assert verdict["result"] is None and "protocols differ in cap" in verdict["told"]
    (verdict,) = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs", "protocols=any")["verdicts"]
    assert verdict["result"]["p"] > 0


def test_seeds_are_paired_where_both_have_them(base, tmp_path: pathlib.Path, monkeypatch):
    scores = {0: {0: 1.0, 1: 5.0, 2: 9.0, 7: 100.0}, 1: {0: 2.0, 1: 6.1, 2: 9.9, 8: -100.0}}
    for lag, values in scores.items():
        for seed, value in values.items():
            folders.write(tmp_path / "runs" / f"{lag}-{seed}", base, [value], seed=seed, lag=lag)
    (plain,) = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs")["verdicts"]
    assert (plain["only_first"], plain["only_second"], plain["result"]["test"]) == (["7"], ["8"], "Welch")
    (paired,) = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs", "paired=true")["verdicts"]
    assert (paired["told"], paired["result"]["test"]) == ("better", "paired t")
    assert paired["result"]["difference"] == pytest.approx(1.0)


def test_games_have_a_pivot_and_human_normalised_figures(tmp_path: pathlib.Path, monkeypatch):
    base = folders.settings("experiment=dqn/atari", "source.game=pong", "tracker=none")
    keys = ("source.game", "source.environments.game", "evaluators.episodes.environments.game")
    for game, middle in (("pong", 0.0), ("breakout", 30.0)):
        for seed in range(3):
            changes = {**dict.fromkeys(keys, game), "seed": seed, "source.seed": seed}
            told = {"game": game, "sticky": 0.0}
            folders.write(tmp_path / "runs" / f"{game}{seed}", base, [middle + seed], protocol=told, **changes)
    found = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs", "group=[learner,source.game]")
    by_task = {cell["task"]: cell for cell in found["cells"] if cell["which"] == "last"}
    assert by_task["pong"]["human_normalised"] == pytest.approx((1 + 20.7) / (14.6 + 20.7))
    (suite,) = [each for each in found["suites"] if each["which"] == "last"]
    normal = [(1 + 20.7) / (14.6 + 20.7), (31 - 1.7) / (30.5 - 1.7)]
    assert suite["games"] == ["breakout", "pong"] and suite["figures"]["median"][0] == pytest.approx(np.mean(normal))
    assert "3 seeds a game: bootstrap intervals" in suite["figures"]["warnings"][0]
    (profile,) = found["profiles"]
    below = profile["tau"].index(0.5)  # breakout's seeds are at 0.98 to 1.05, pong's at 0.59 to 0.64
    assert profile["share"][below] == 1 and profile["share"][profile["tau"].index(1.0)] == pytest.approx(2 / 6)
    assert profile["share"][-1] == 0 and profile["games"] == ["breakout", "pong"]
    assert (tmp_path / "report" / "pivot-eval-episode-return-last.csv").read_text().startswith("group,breakout,pong\n")


def test_groups_are_compared_over_the_games_that_both_have(tmp_path: pathlib.Path, monkeypatch, capsys):
    base = folders.settings("experiment=dqn/atari", "source.game=pong", "tracker=none")
    keys = ("source.game", "source.environments.game", "evaluators.episodes.environments.game")
    for batch, games in ((8, ("pong", "breakout", "freeway")), (16, ("pong", "breakout", "boxing"))):
        for game in games:
            for seed in range(3):
                changes = {**dict.fromkeys(keys, game), "seed": seed, "source.seed": seed, "learner.batch": batch}
                told, values = {"game": game, "sticky": 0.0}, [batch + 3.0 * seed]
                folders.write(tmp_path / "runs" / f"{batch}{game}{seed}", base, values, protocol=told, **changes)
    found = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs", "group=[learner.batch,source.game]")
    (contest,) = found["contests"]
    assert (contest["first"], contest["second"], contest["games"]) == (
        "learner.batch=8",
        "learner.batch=16",
        ["breakout", "pong"],
    )
    assert (contest["only_first"], contest["only_second"]) == (["freeway"], ["boxing"])
    assert contest["mean"][0] == pytest.approx((8 / (30.5 - 1.7) + 8 / (14.6 + 20.7)) / 2)
    assert contest["improvement"][0] == 1 and contest["told"] == "better"
    (first,) = csv.DictReader((tmp_path / "report" / "games-verdicts.csv").read_text().splitlines())
    assert first["games on one side"] == "boxing (learner.batch=16); freeway (learner.batch=8)"
    assert len(found["profiles"]) == 2 and found["profiles"][0]["apart"] == ["freeway"]
    # Two games are on both sides: 8 apart with a spread of 3, by Welch's test of three seeds each.
    p = stats.ttest_ind([8.0, 11, 14], [16.0, 19, 22], equal_var=False).pvalue  # pyright: ignore[reportAttributeAccessIssue]
    assert [verdict["result"]["p"] for verdict in found["verdicts"]] == pytest.approx([p, p])
    assert [verdict["holm"] for verdict in found["verdicts"]] == pytest.approx([2 * p, 2 * p])
    assert (
        "2 of 2 pairs are told apart, each tested by itself; 0 of them with Holm's correction"
        in capsys.readouterr().out
    )


def test_metrics_that_only_some_runs_have(base, tmp_path: pathlib.Path, monkeypatch):
    folders.write(tmp_path / "runs" / "0", base, {RETURN: [1.0], "eval/fid": [3.0]}, lag=0)
    folders.write(tmp_path / "runs" / "1", base, {RETURN: [2.0]}, lag=1)
    folders.write(tmp_path / "runs" / "2", base, {"loss/td": [2.0]}, lag=1, seed=4)
    found = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs", "metric=eval/*")
    assert found["metrics"] == {"eval/episode_return": "higher", "eval/fid": "lower"} and found["others"] == ["loss/td"]
    assert list(cells(found, metric="eval/fid")) == ["lag=0"]
    assert cells(found)["lag=1"]["missing"] == [
        [str(tmp_path / "runs" / "2"), "the value is not finite, or there is none"]
    ]
    assert f"no value of these metrics in {tmp_path / 'runs' / '2'}" in found["notes"]


def test_folders_that_are_numbers_and_numbers_beyond_64_bits(base, tmp_path: pathlib.Path, monkeypatch):
    for seed in (0, 1):
        folders.write(tmp_path / str(seed), base, [1.0, 2.0], seed=10**30 + seed, **{"learner.batch": 10**400 + seed})
    monkeypatch.chdir(tmp_path)
    found = run(monkeypatch, tmp_path / "7", "runs=[0,1]")
    assert sorted(member["folder"] for member in found["members"]) == [str(tmp_path / "0"), str(tmp_path / "1")]
    assert {str(10**30), str(10**30 + 1)} == {member["seed"] for member in found["members"]}
    assert len(found["labels"]) == 2
    monkeypatch.setattr(sys, "argv", ["compare.py", "sweep=0", "out=5"])
    compare.main()
    assert (tmp_path / "5" / "report.html").exists()


def test_metrics_with_names_alike_have_a_table_each(base, tmp_path: pathlib.Path, monkeypatch):
    folders.write(tmp_path / "run", base, {"eval/a-b": [1.0, 2.0], "eval/a_b": [3.0, 4.0]})
    run(monkeypatch, tmp_path / "out", f"runs={tmp_path}/run", "metric=eval/a*")
    values = []
    for name in ("", "-2"):
        with (tmp_path / "out" / f"scores-eval-a-b-last{name}.csv").open() as file:
            values += [float(row["mean"]) for row in csv.DictReader(file)]
    assert values == [2.0, 4.0]


def test_a_distance_alone_stands_beside_its_cost_precision_and_recall(base, tmp_path: pathlib.Path, monkeypatch):
    scores = {"eval/fid": [9.0, 8.0], "eval/precision": [0.5, 0.6], "eval/recall": [0.1, 0.2]}
    folders.write(tmp_path / "run", base, scores, unit="images")
    found = run(monkeypatch, tmp_path / "out", f"runs={tmp_path}/run", "metric=eval/fid")
    assert list(found["metrics"]) == ["eval/fid"]
    with (tmp_path / "out" / "costs.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert {"8.0", "0.6", "0.2"} <= set(row.values())


def test_a_last_value_that_is_not_finite_is_none(base, tmp_path: pathlib.Path, monkeypatch):
    folders.write(tmp_path / "runs" / "0", base, [1.0, None])
    found = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs")
    assert cells(found)["all runs"]["summary"] is None and cells(found)["all runs"]["warnings"] == [
        "no run has a value"
    ]
    assert cells(found, "best")["all runs"]["summary"]["mean"] == 1.0


def test_broken_folders_copies_and_repeated_seeds_are_told(base, two, tmp_path: pathlib.Path, monkeypatch, capsys):
    shutil.copytree(tmp_path / "runs" / "8-0", tmp_path / "runs" / "8-0b")
    folders.write(tmp_path / "runs" / "broken", base, [1.0]).joinpath("config.yaml").write_text("{")
    folders.write(tmp_path / "runs" / "again", base, [1.0, 7.0], seed=1, **{"learner.batch": 8, "source.seed": 1})
    found = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs")
    why = {pathlib.Path(each["folder"]).name: each["reason"] for each in found["left_out"]}
    assert why["8-0b"].startswith("a copy of ") and why["broken"].startswith("config.yaml: cannot be read")
    assert "Left out: 2 folders" in capsys.readouterr().out
    assert any(told.startswith("seed 1 more than once") for told in cells(found)["learner.batch=8"]["warnings"])


def test_names_from_strangers_are_no_markup_and_no_formula(base, tmp_path: pathlib.Path, monkeypatch):
    odd = "<script>alert(1)</script>|*x*_y_ `z` [a](http://b)"
    config = {**base, "choices": {**base["choices"], "learner": odd}}
    folders.write(tmp_path / "runs" / "a", config, [1.0], **{"learner.loss": odd})
    folders.write(tmp_path / "runs" / "b", base, [1.0], **{"learner.loss": "=1+cmd()"})
    run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs", "group=[learner.loss]")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "<script>" not in text and r"\|\*x\*" in text and r"\[a\](http" in text
    tex = (tmp_path / "report" / "tables.tex").read_text()
    assert r"\textless{}script\textgreater{}" in tex and r"\_y\_" in tex
    folders.write(tmp_path / "runs" / "c", config, [1.0], **{"source.id": "=1+cmd()"})
    run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs", "group=[learner]")
    assert "'=1+cmd()" in (tmp_path / "report" / "seeds.csv").read_text()
    for file in (tmp_path / "report").glob("*.csv"):
        cells_of = [cell for row in csv.reader(file.read_text().splitlines()) for cell in row]
        assert cells_of and not any(cell.startswith("=") for cell in cells_of), file


def test_with_and_without_what_is_kept_the_report_is_the_same(base, two, tmp_path: pathlib.Path, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED", -1.0)
    typed = f"runs={tmp_path}/runs"
    found = [run(monkeypatch, tmp_path / "report", typed, *more) for more in (["cache=false"], [], [])]
    assert len(list((tmp_path / "runs").glob(f"*/{cache.FILE}"))) == 10
    for each in found:
        del each["written"], each["command"]
    assert found[0] == found[1] == found[2]


def test_of_too_many_groups_each_is_compared_with_the_best(base, two, tmp_path: pathlib.Path, monkeypatch):
    for lag in range(3):
        folders.write(tmp_path / "runs" / f"lag{lag}", base, [float(lag)], lag=lag + 5)
    every = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs")
    monkeypatch.setattr(pairs, "MOST", 9)
    few = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs")
    assert len(every["verdicts"]) == 10 and len(few["verdicts"]) == 4
    (best,) = {each["first"] for each in few["verdicts"]}
    assert "learner.batch=16" in best and any("5 groups make more than 9 pairs" in note for note in few["notes"])


def test_environments_that_differ_are_told(base, tmp_path: pathlib.Path, monkeypatch):
    for seed, revision in enumerate(["abc", "def"]):
        origin = {"git": {"revision": revision, "dirty": False}, "hardware": {"host": revision, "cpu": "one"}}
        folders.write(tmp_path / "runs" / str(seed), base, [1.0], seed=seed, origin=origin)
    found = run(monkeypatch, tmp_path / "report", f"runs={tmp_path}/runs")
    ((key, values),) = [(each["key"], each["values"]) for each in found["environments"]]
    assert key == "git.revision" and values[str(tmp_path / "runs" / "1")] == "def"


def test_files_of_another_tool_or_page_stay(base, tmp_path: pathlib.Path, monkeypatch, capsys):
    folders.write(tmp_path / "run", base, [1.0])
    for name, text in (("a", '{"files": ["train.csv"], "media": [{}]}'), ("b", "{"), ("c", "[]"), ("d", None)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.csv").write_text("1,2\n")
        os.mkfifo(folder / "report.json") if text is None else (folder / "report.json").write_text(text)
        for out in (f"{folder}", f"{folder}.html"):
            told = refused(monkeypatch, capsys, f"runs={tmp_path}/nowhere", f"out={out}")
            assert told == f"out: {folder} holds a report.json that compare did not write; name another folder\n"
        assert {path.name for path in folder.iterdir()} == {"train.csv", "report.json"}
    monkeypatch.setattr(sys, "argv", ["compare.py", f"runs={tmp_path}/run", f"out={tmp_path}/page.html"])
    compare.main()
    told = refused(monkeypatch, capsys, f"runs={tmp_path}/run", f"out={tmp_path}/page")
    assert told == f"out: {tmp_path}/page holds the files of the page ../page.html; name another\n"
    monkeypatch.setattr(sys, "argv", ["compare.py", f"runs={tmp_path}/run", f"out={tmp_path}/page.html"])
    compare.main()


def test_mistakes_are_told_before_anything_is_written(base, tmp_path: pathlib.Path, monkeypatch, capsys):
    folders.write(tmp_path / "runs" / "0", base, [1.0])
    monkeypatch.chdir(tmp_path)
    told = lambda *typed: refused(monkeypatch, capsys, *typed)
    assert told() == "runs: missing; runs=[<folder or pattern>,...] or sweep=<folder> says what to compare\n"
    assert told("runs=rnus").startswith("runs=rnus: no such folder; did you mean runs?")
    assert told("runs=runs", "metric=eval/episode_retur").endswith(f"did you mean {RETURN}?\n")
    assert told("runs=runs", "group=[learner.bach]").startswith(
        "group=learner.bach: no run has such a setting; did you"
    )
    assert told("runs=runs", "reach=nan") == "reach=nan: must be a finite score\n"
    assert told("runs=runs", "at=0") == "at=0: must be at least 1 frame or image\n"
    for name in ("report.md", "fid.SVG", "fid.png", "fid.pdf"):
        assert told("runs=runs", f"out={name}").startswith(f"out={name}: names the page (.html) or a folder")
    (tmp_path / "runs" / "page.html").mkdir()
    assert "runs/page.html is a folder" in told("runs=runs", "out=runs/page.html")
    (tmp_path / "runs" / "page.html").rmdir()
    assert "metrics.jsonl is a file; name a folder" in told("runs=runs", "out=runs/0/metrics.jsonl/report.html")
    assert "metrics.jsonl is a file; name a folder" in told("runs=runs", "out=runs/0/metrics.jsonl/a/b")
    assert told("runs=runs", "protocols=all").startswith("protocols=all: should be 'apart' or 'any'")
    (tmp_path / "runs" / "0" / "metrics.jsonl").unlink()
    assert "no run that can be read\n" in told("runs=runs")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
