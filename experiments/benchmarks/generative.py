"""The suite `generative`: models of 28 x 28 grey images in training and in sampling, PyTorch's beside them.

Each is an experiment of `conf/experiment/` with that file's optimiser, average and sampler, without its data. They are
measured one after the other, the contestants of one model in turn.
"""

import contextlib
import dataclasses
import itertools
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core import platform
from experiments.benchmarks import peers, processes, results


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """One of ours, and what it must reach: times the peer's images a second, on AMD's CPUs and on others."""

    overrides: tuple[str, ...]
    amd: float
    other: float
    other_aim: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    forms: Mapping[str, Form]  # by the name in the tables
    peer: str  # of `foreign/torch_images.py`
    drawn: int  # images at a time


_DCGAN = ("experiment=gan/dcgan",)
_UNET = ("experiment=diffusion/ddpm_unet", "source.batch=64")
_DIT = ("experiment=diffusion/fashion_mnist", "network.make.width=256")
MODELS = {
    "vae": Model(
        forms={"ours": Form(overrides=("experiment=vae/fashion_mnist",), amd=1.8, other=1.4)}, peer="vae", drawn=1000
    ),
    "dcgan": Model(forms={"ours": Form(overrides=_DCGAN, amd=1.0, other=1.0)}, peer="dcgan", drawn=250),
    "dcgan_128": Model(
        forms={"ours": Form(overrides=(*_DCGAN, "source.batch=128"), amd=1.0, other=1.0)}, peer="dcgan", drawn=500
    ),
    "unet": Model(
        forms={
            "ours": Form(overrides=_UNET, amd=1.0, other=1.0),
            "ours, group norm": Form(overrides=(*_UNET, "network.make.norm=group"), amd=0.8, other=0.8),
        },
        peer="unet",
        drawn=16,
    ),
    "dit": Model(
        forms={"ours": Form(overrides=_DIT, amd=1.3, other=0.9, other_aim=1.0)},
        peer="dit",
        drawn=64,
    ),
}
PARTS = {"train": "training", "draw": "sampling"}
PEERS = {"unet": "diffusers"}  # PyTorch, if nothing else is said

Values = Mapping[tuple[str, str, str], list[float]]  # images/s by round, by model, part and contestant


def run(wanted: Any) -> results.Results:
    """Measures one model after the other, each once a round; `wanted` is a `benchmarking.Wanted`."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    notes: list[results.Row] = []
    with contextlib.ExitStack() as stack:
        python = peers.python(wanted.peers_folder, wanted.suite, stack) if wanted.peers else None
        for name in wanted.only or MODELS:
            with contextlib.ExitStack() as processes_:
                results.say(f"{name}: compiling")
                contestants = _contestants(processes_, name, wanted.overrides, python)
                notes += [_parameters(name, who, process.facts) for who, process in contestants.items()]
                for number, part, (who, process) in itertools.product(range(wanted.rounds), PARTS, contestants.items()):
                    speed = 1 / process.seconds(part, wanted.seconds)
                    values[name, part, who].append(speed)
                    results.say(f"{name}, round {number + 1} of {wanted.rounds}, {PARTS[part]}: {who} {speed:.4g}")
    return results.Results(rows=[*_rows(values), *notes], targets=_targets(values))


def _contestants(
    stack: contextlib.ExitStack, name: str, overrides: Sequence[str], python: Path | None
) -> dict[str, processes.Parts]:
    """Processes that serve `PARTS`: ours with all that a run sets, the peer with the same malloc."""
    model, found = MODELS[name], {}
    module = [sys.executable, "-m", "experiments.benchmarks.generative_parts", "--drawn", str(model.drawn)]
    for who, form in model.forms.items():
        found[who] = stack.enter_context(processes.parts([*module, *form.overrides, *overrides], "all"))
    if python is not None:
        facts = found["ours"].facts
        command = peers.torch_images(python, model.peer, batch=facts["batch"], drawn=model.drawn, steps=facts["steps"])
        found[_peer(name)] = stack.enter_context(processes.parts(command, "malloc"))
    return found


def _rows(values: Values) -> list[results.Row]:
    return [
        results.Row(name=f"{name}, {PARTS[part]}: {who}", unit="images/s", values=tuple(speeds))
        for (name, part, who), speeds in values.items()
    ]


def _parameters(name: str, who: str, facts: Mapping[str, Any]) -> results.Row:
    how = "".join(f", {facts[fact]}" for fact in ("torch", "layout") if fact in facts)
    return results.Row(name=f"{name}: {who}{how}", unit="parameters", values=(facts["parameters"],))


def _targets(values: Values) -> list[results.Target]:
    """Each form's limits, where its peer was measured."""
    targets = []
    for (name, part, who), speeds in values.items():
        form, peer = MODELS[name].forms.get(who), values.get((name, part, _peer(name)))
        if form is None or peer is None:
            continue
        amd = "AMD" in platform.cpu()
        targets.append(
            results.Target(
                name=f"{name}, {PARTS[part]}: {who} / {_peer(name)}",
                values=results.ratios(speeds, peer),
                must="at least",
                limit=form.amd if amd else form.other,
                aim=None if amd else form.other_aim,
            )
        )
    return targets


def _peer(name: str) -> str:
    return PEERS.get(name, "PyTorch")
