"""The suite `generative`: what is measured, in turn with whom, and by which limits; no peer is run here."""

import contextlib
import json
from pathlib import Path
from typing import Any, ClassVar

import jax
import pytest

from core import platform
from experiments.benchmarks import command, generative, generative_parts, peers, processes, timing
from experiments.config import command_line

OVERRIDES = {name: model.forms["ours"].overrides for name, model in generative.MODELS.items()}
TINY = {
    "vae": (
        "source.batch=4",
        "source.dispatch=3",
        "network.make.encoder.widths=[8]",
        "network.make.decoder.widths=[8]",
    ),
    "dcgan": ("source.batch=4", "source.batches=2", "network.width=2"),
    "dit": ("source.batch=4", "network.make.width=16", "network.make.depth=1", "sampler.steps=2"),
}
COUNTS = {"vae": 12, "dcgan": 8, "dit": 4}  # images in one call of the device


@pytest.mark.long
@pytest.mark.parametrize("name", TINY)
def test_a_model_is_measured_as_it_is_trained(name: str):
    run = generative_parts.described(command_line.compose(*OVERRIDES[name], *TINY[name]))
    start = generative_parts.begun(run)
    weights = jax.tree.leaves(start.state.params)[-1]
    draw, train = generative_parts.drawn(start, 3), generative_parts.trained(start)
    assert [train(), train()] == [COUNTS[name]] * 2  # the state that was donated has been replaced
    assert weights.is_deleted()
    assert draw() == 3


def test_experiments_say_how_a_model_is_trained():
    found = {
        name: generative_parts.described(command_line.compose(*overrides)) for name, overrides in OVERRIDES.items()
    }
    sizes = {name: (run.source.batch, run.source.dispatch) for name, run in found.items()}
    assert sizes == {"vae": (128, 25), "dcgan": (64, 1), "dcgan_128": (128, 1), "unet": (64, 1), "dit": (128, 1)}
    assert found["unet"].learner.sampler.steps == 50 and found["dit"].learner.sampler.evaluations == 35
    assert found["dit"].learner.network.make.keywords["width"] == 256
    group = generative.MODELS["unet"].forms["ours, group norm"].overrides
    assert generative_parts.described(command_line.compose(*group)).network.make.keywords["norm"] == "group"


class FakeParts:
    """Ours draws and trains 100 images a second, the form with group norm 40, and the peer 50."""

    commands: ClassVar[list[tuple[list[str], str]]] = []
    asked: ClassVar[list[tuple[str, str]]] = []

    def __init__(self, command: list[str], kind: str):
        self.commands.append((command, kind))
        self.facts: dict[str, Any] = {"batch": 128, "steps": 50, "parameters": 4_000}
        peer = kind == "malloc"
        self.facts |= {"torch": "2.13.0", "layout": "torch.channels_last"} if peer else {}
        self.who = "peer" if peer else "group" if "network.make.norm=group" in command else "ours"

    def seconds(self, name: str, seconds: float) -> float:
        self.asked.append((self.who, name))
        return {"ours": 0.01, "group": 0.025, "peer": 0.02}[self.who]


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(FakeParts, "commands", [])
    monkeypatch.setattr(FakeParts, "asked", [])
    monkeypatch.setattr(processes, "parts", lambda command, kind: contextlib.nullcontext(FakeParts(command, kind)))
    monkeypatch.setattr(peers, "python", lambda folder, suite, stack: tmp_path / suite)
    monkeypatch.setattr(platform, "cpu", lambda: "AMD EPYC")


@pytest.mark.usefixtures("faked")
def test_the_contestants_of_a_model_take_turns(tmp_path: Path):
    wanted = command.Wanted(suite="generative", rounds=2, peers=True, only=("unet",), overrides=("source.batch=9",))
    found = generative.run(wanted)
    one_round = [(who, part) for part in ("train", "draw") for who in ("ours", "group", "peer")]
    assert FakeParts.asked == one_round * 2
    (ours, kind), (group, _), (peer, malloc) = FakeParts.commands
    assert (kind, malloc) == ("all", "malloc")
    assert (
        ours[-3:] == ["experiment=diffusion/ddpm_unet", "source.batch=64", "source.batch=9"]
        and len(group) == len(ours) + 1
    )
    module = "experiments.benchmarks.foreign.torch_images"
    assert peer == [str(tmp_path / "generative"), "-m", module, "unet", "128", "16", "50"]
    targets = {target.name: (target.values, target.limit, target.met) for target in found.targets}
    assert targets == {
        f"unet, {part}: {who} / diffusers": (pytest.approx((times, times)), limit, met)
        for part in ("training", "sampling")
        for who, times, limit, met in (("ours", 2.0, 1.0, True), ("ours, group norm", 0.8, 0.8, True))
    }
    rows = {(row.name, row.unit): row.median for row in found.rows}
    assert rows["unet, training: diffusers", "images/s"] == pytest.approx(50)
    assert rows["unet: ours, group norm", "parameters"] == 4_000
    assert rows["unet: diffusers, 2.13.0, torch.channels_last", "parameters"] == 4_000


@pytest.mark.usefixtures("faked")
def test_every_model_is_measured_without_peers():
    found = generative.run(command.Wanted(suite="generative", rounds=1))
    assert {row.name.split(",")[0] for row in found.rows if row.unit == "images/s"} == set(generative.MODELS)
    assert not found.targets and "target" not in found.table()
    assert all(kind == "all" for _, kind in FakeParts.commands)


@pytest.mark.usefixtures("faked")
def test_limits_are_those_of_the_kind_of_cpu(monkeypatch: pytest.MonkeyPatch):
    values = {("dit", "train", "ours"): [100.0], ("dit", "train", "PyTorch"): [100.0]}
    (on_amd,) = generative._targets(values)
    monkeypatch.setattr(platform, "cpu", lambda: "Intel Xeon")
    (elsewhere,) = generative._targets(values)
    assert (on_amd.limit, on_amd.met, on_amd.aim) == (1.3, False, None)
    assert (elsewhere.limit, elsewhere.met, elsewhere.aim) == (0.9, True, 1.0)


def test_peers_are_installed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    installed: list[str] = []
    monkeypatch.setattr(peers.venv, "create", lambda folder, with_pip: Path(folder).mkdir())
    monkeypatch.setattr(peers.subprocess, "run", lambda command, check: installed.append(command[-2:]))
    with contextlib.ExitStack() as stack:
        folder = tmp_path / "peers"
        for suite in ("generative", "generative", "dqn", "generative"):
            assert peers.python(str(folder), suite, stack) == folder / "bin" / "python"
    assert installed[0] == list(peers.REQUIREMENTS["generative"])
    assert len(installed) == 2 and "torch" not in " ".join(installed[1])  # the suite dqn found it there


def test_what_a_process_tells_before_it_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["generative_parts", "--drawn", "3", *OVERRIDES["vae"], *TINY["vae"]])
    monkeypatch.setattr(platform, "cache", lambda: None)
    told: list[tuple[list[str], Any]] = []
    monkeypatch.setattr(timing, "serve", lambda parts, facts: told.append((list(parts), facts)))
    generative_parts.main()
    ((parts, facts),) = told
    assert parts == ["draw", "train"] and json.loads(json.dumps(facts)) == facts
    assert (facts["batch"], facts["steps"]) == (4, 1)
    assert facts["parameters"] == 784 * 8 + 8 + 8 * 40 + 40 + 20 * 8 + 8 + 8 * 784 + 784


@pytest.mark.parametrize(
    "suite, only, told",
    [
        ("dqn", "vae", "only=vae: suite=dqn has nothing to choose from"),
        ("generative", "gan", "only=gan: suite=generat"),
    ],
)
def test_a_model_that_is_not_there_is_told(suite: Any, only: str, told: str):
    with pytest.raises(ValueError, match=told):
        command.Wanted(suite=suite, only=(only,))
