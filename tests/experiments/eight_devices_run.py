"""Run by test_training.py on eight simulated devices: what crosses them in a whole run with weights laid over all.

XLA writes every program that it compiles into a folder: of the step, of the loop, of checkpoints and evaluations.
"""

import os
import re
import sys
from pathlib import Path

FOLDER = Path(sys.argv[1])
os.environ["XLA_FLAGS"] += f" --xla_dump_to={FOLDER / 'xla'} --xla_dump_hlo_as_text"

import jax  # noqa: E402  after its flags

from core import stopping  # noqa: E402
from experiments import training  # noqa: E402
from experiments.benchmarks import programs  # noqa: E402
from experiments.config import command_line  # noqa: E402

compiled: list[str] = []  # programs by name


def main() -> None:
    assert jax.device_count() == 8
    jax.monitoring.register_event_duration_secs_listener(note)
    settings = command_line.compose(
        "experiment=vae/fashion_mnist",
        "source=digits",
        "+debug=tiny",
        "mesh=fsdp",
        "tracker=none",
        "network.make.encoder.widths=[64]",  # some large enough to be laid out
        "network.make.decoder.widths=[64]",
        "budget=64",
        "log_every=16",
        "checkpoint.every=32",
        "evaluators.samples.every=32",
        "evaluators.held_out.every=32",
        "evaluators.quality=null",
        "evaluators.pictures=null",
    )
    watched: list[int] = []
    settings["evaluators"]["held_out"] |= {"images": 24, "batch": 16}
    outcome = training.train(settings, FOLDER / "run", stop=Stop(watched))
    assert outcome.finished
    # Samples in one call, held-out images in two; a second time nothing compiles, nor does what gathers the weights.
    assert len(watched) == 6 and watched[2] > watched[0] and watched[3] == watched[5], watched
    moved = {}
    for text in (FOLDER / "xla").glob("*after_optimizations.txt"):
        name = re.sub(r"module_\d+\.(.*?)\..*", r"\1", text.name)
        found = [c for c in programs.crossings(text.read_text()) if max(c.elements) > 8]  # more than some scalars
        moved[name] = moved.get(name, 0) + len(found)
    gathering = {name for name, count in moved.items() if count}
    assert moved["jit_steps"] and moved["jit_whole"]
    assert gathering == {"jit_steps", "jit_whole"}, gathering  # the learner, and the weights for an evaluation


def note(event: str, duration_secs: float, **_: object) -> None:
    if event.endswith("backend_compile_duration"):
        compiled.append(event)


class Stop(stopping.Stop):
    """Writes down how much had been compiled whenever an evaluation looks at whether to stop."""

    def __init__(self, watched: list[int]):
        super().__init__()
        self._watched = watched

    def check(self) -> None:
        self._watched.append(len(compiled))
        super().check()


if __name__ == "__main__":
    main()
