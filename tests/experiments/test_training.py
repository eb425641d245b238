"""One run as the command line makes it, inside this process: its folder, and how runs follow on one another."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from core import loop, stopping
from core.checkpoints import checkpoint, files
from experiments import training
from experiments.config import build, command_line, saved
from tests import runs

SIZE = 8  # frames a learner step: two games of four steps


def settings(*overrides: str) -> command_line.Config:
    return command_line.compose("experiment=dqn/cartpole", "+debug=tiny", "tracker=none", "evaluators=none", *overrides)


def train(folder: Path, *, resume: bool = False, **changes: Any) -> loop.Outcome:
    run = settings() | {"budget": 4 * SIZE, "log_every": SIZE, "resume": str(folder) if resume else None} | changes
    return training.train(run, folder, stop=stopping.Stop())


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_starts_from_the_weights_of_another_and_from_nothing_else(tmp_path: Path):
    first = train(tmp_path / "first")
    assert int(first.state.updates) > 0
    second = train(tmp_path / "second", init_from=str(tmp_path / "first"), seed=1, budget=SIZE)  # one step, no update
    assert (second.step, int(second.state.updates)) == (1, 0)
    runs.assert_same(second.state.params, first.state.params)
    runs.assert_same(second.state.target_params, first.state.target_params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(second.state.opt_state))
    again = train(tmp_path / "second", resume=True, init_from=str(tmp_path / "nowhere any more"), budget=2 * SIZE)
    assert again.step == 2  # its own checkpoint counts now


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path):
    train(tmp_path / "first", budget=SIZE)
    other, second = settings("network.make.torso.widths=[16]"), tmp_path / "second"
    with pytest.raises(build.ConfigError, match=r"params/.* is float32\[84,2\] .* and float32\[16,2\] in this"):
        train(second, init_from=str(tmp_path / "first"), learner=other["learner"])
    assert not second.exists()  # the folder is free for the next try
    assert train(second, init_from=str(tmp_path / "first"), budget=SIZE).step == 1


def test_weights_of_no_run_are_refused_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / saved.FILE).touch()
    monkeypatch.setattr(build, "run", None)
    with pytest.raises(build.ConfigError, match=r"frist: no run here \(no config.yaml\); did you mean first\?"):
        train(tmp_path / "second", init_from=str(tmp_path / "frist"))
    assert not (tmp_path / "second").exists()


def test_a_budget_within_the_warm_up_is_told_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture):
    train(tmp_path, budget=2 * SIZE)  # learning_starts=16 environment steps are two learner steps
    told = "budget=16: no update will be made, as learning begins after 16 frames; set a larger budget or a smaller"
    assert told in capsys.readouterr().out
    train(tmp_path, budget=3 * SIZE, resume=True)
    assert "no update" not in capsys.readouterr().out


def test_natures_preset_tells_at_the_start_that_it_writes_less_than_60_gb():
    """Its 200M frames: 40 times a replay of 7.08 GB, and 160 checkpoints without."""
    run = build.run(command_line.compose("experiment=dqn/nature", "tracker=none", "source.game=pong"))
    try:
        run.source.attach(run.learner)
        state = jax.eval_shape(run.learner.init, jax.random.key(0), run.source.spec)
        held = run.checkpoint
        schedule = loop.Schedule(budget=run.budget, log_every=run.log_every, checkpoint_every=held.every)
        line = schedule.told(state, run.source.unit)
    finally:
        run.source.close()
    assert line is not None and "with the replay every 5,000,000, 41 times: 7.07 GB, compressed usually less" in line
    assert float(re.findall(r"about ([\d.]+) GB written by the end", line)[0]) < 60


def test_what_does_not_fit_is_refused_without_a_trace(tmp_path: Path):
    learner = settings("learner.replay.capacity=2_000_000_000")["learner"]
    with pytest.raises(build.ConfigError, match=r"memory: the state needs .* GB on a device that has .*capacity"):
        train(tmp_path, learner=learner)
    images = settings("network=nature")["learner"]
    with pytest.raises(build.ConfigError, match=r"NatureCNN: observations of shape .* are no images"):
        train(tmp_path, learner=images)
    assert train(tmp_path, budget=SIZE).step == 1


def test_a_folder_keeps_its_run(tmp_path: Path):
    train(tmp_path, budget=SIZE)
    with pytest.raises(build.ConfigError, match="holds a run already; resume="):
        train(tmp_path, budget=SIZE)
    assert len(rows(tmp_path)) == 1


def test_rows_after_the_checkpoint_are_told_anew_and_once(tmp_path: Path):
    train(tmp_path, budget=2 * SIZE)
    saved = rows(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:  # a run that was killed: rows, then half a row
        file.write(json.dumps(saved[-1] | {"step": 3, "frames": 3 * SIZE, "loss/lost": 1.0}) + '\n{"step": 4, "fra')
    train(tmp_path, resume=True)
    assert [(row["step"], row["frames"]) for row in rows(tmp_path)] == [(k, k * SIZE) for k in (1, 2, 3, 4)]
    assert rows(tmp_path)[:2] == saved
    assert not any("loss/lost" in row for row in rows(tmp_path))
    assert [row["seconds"] for row in rows(tmp_path)] == sorted(row["seconds"] for row in rows(tmp_path))


def test_behind_a_damaged_checkpoint_the_record_goes_back_as_far_as_the_state(tmp_path: Path):
    each = settings()["checkpoint"] | {"every": SIZE}
    train(tmp_path, budget=3 * SIZE, checkpoint=each)
    newest = checkpoint.complete(tmp_path / "checkpoints")[-1]
    file = next(file for file in (newest / "source").iterdir())
    file.write_bytes(bytes(len(file.read_bytes())))  # as long as it was
    with pytest.warns(UserWarning, match=rf"skipping a damaged checkpoint: {newest}"):
        outcome = train(tmp_path, resume=True, checkpoint=each)
    assert outcome.step == 4
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4]


def test_a_run_of_the_first_version_goes_on_with_its_memory_filled_anew(tmp_path: Path):
    """Version 1: no extras, clipped rewards, `n_step` beside the capacity."""
    train(tmp_path, budget=4 * SIZE)
    text = (tmp_path / "config.yaml").read_text()
    old = re.sub(r"read:\n +_target_: core.windows.Transitions\n +n_step", "n_step", text)
    assert old != text
    (tmp_path / "config.yaml").write_text(old)
    rewrite(checkpoint.complete(tmp_path / "checkpoints")[-1], schema=1)
    assert saved.load(tmp_path)["learner"]["replay"]["read"] == settings()["learner"]["replay"]["read"]
    outcome = train(tmp_path, budget=8 * SIZE, resume=True)
    warm = 4 + 2  # learning_starts=16 environment steps are two learner steps
    assert (outcome.step, int(outcome.state.updates)) == (8, 4 * (4 - 2) + 4 * (8 - warm))
    assert int(outcome.state.replay.count) * 2 == 4 * SIZE


def test_a_checkpoint_of_a_later_version_is_refused_with_the_remedy(tmp_path: Path):
    train(tmp_path, budget=SIZE)
    path = checkpoint.complete(tmp_path / "checkpoints")[-1]
    rewrite(path, schema=files.SCHEMA + 1)
    message = rf"its schema is version {files.SCHEMA + 1}, .* update the project"
    with pytest.raises(build.ConfigError, match=message):
        train(tmp_path, resume=True)
    assert len(rows(tmp_path)) == 1 and path.exists() and (tmp_path / saved.FILE).exists()


def rewrite(path: Path, *, schema: int) -> None:
    """Gives a checkpoint another version."""
    content = json.loads((path / "manifest.json").read_text())
    del content["checksum"]
    (path / "manifest.json").write_text(files._dump(content | {"schema": schema}))


def test_a_setting_that_no_longer_exists_is_named(tmp_path: Path):
    run = settings()
    run["learner"]["momentum"] = 0.9
    with pytest.raises(build.ConfigError, match=r"^learner\.momentum: no such key"):
        train(tmp_path, learner=run["learner"])
    assert not list(tmp_path.iterdir())


def test_a_run_that_diverges_says_so_and_leaves_finite_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    without = (f"~optimizer.rule.{name}" for name in ("b1", "b2", "eps"))
    run = settings(*without, "optimizer.rule._target_=optax.sgd", "optimizer.learning_rate=1e30")
    ended = []
    monkeypatch.setattr(
        "core.tracking._Recorder.finish", lambda self, status: (self._record.close(), ended.append(status))
    )
    with pytest.raises(
        loop.Diverged, match=r"step \d+: .*loss/td.* was not finite .*optimizer\.learning_rate"
    ) as caught:
        train(tmp_path, learner=run["learner"], budget=100 * SIZE, checkpoint=run["checkpoint"] | {"every": SIZE})
    assert ended == ["diverged"]
    step = int(re.findall(r"step (\d+)", str(caught.value))[0])
    assert rows(tmp_path)[-1]["step"] <= step
    assert int(checkpoint.complete(tmp_path / "checkpoints")[-1].name) <= step
    assert not any(value is None for row in rows(tmp_path) for value in row.values())


def test_profile_true_writes_a_trace_beside_the_numbers(tmp_path: Path):
    train(tmp_path, budget=32 * SIZE, log_every=32 * SIZE, profile=True)
    assert [*(tmp_path / "profile").rglob("*.xplane.pb")]


def test_the_protocol_stands_beside_the_config(tmp_path: Path):
    train(
        tmp_path, budget=SIZE, evaluators=command_line.compose("experiment=dqn/cartpole", "+debug=tiny")["evaluators"]
    )
    text = (tmp_path / "config.yaml").read_text()
    assert "protocol:" in text and "CartPole-v1" in text.split("protocol:")[1]
    assert saved.load(tmp_path)["budget"] == SIZE
    assert saved.protocol(tmp_path)["evaluators"]["episodes"]["epsilon"] == 0


@pytest.mark.long
def test_weights_laid_over_devices_are_gathered_by_the_step_and_for_evaluations_alone(tmp_path: Path):
    runs.on_eight_devices(Path(__file__).with_name("eight_devices_run.py"), str(tmp_path))
