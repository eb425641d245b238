"""The suite `gpu`: its time, its record and its parts at their smallest; what it is for needs a GPU."""

import argparse
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from core import platform
from experiments.benchmarks import command, dqn, dqn_parts, generative, generative_parts, results, timing
from experiments.benchmarks.gpu import bitwise, cards, children, equal, playing, speed, suite, wheels
from experiments.config import build, command_line


def part(program: str, *, estimate: float = 0.1, limit: float = 30.0, needs: tuple[str, ...] = ()) -> suite.Part:
    """A process that runs `program`."""
    return suite.Part(
        shows="a test",
        command=lambda small: [sys.executable, "-c", program],
        estimate=estimate,
        limit=limit,
        needs=needs,
    )


def told(item: str, **found: Any) -> str:
    return f"print({json.dumps(json.dumps({'item': item, **found}))}, flush=True);"


def planned(*items: str) -> str:
    return f"print({json.dumps(json.dumps({'plan': items}))}, flush=True);"


def measured(monkeypatch: pytest.MonkeyPatch, out: Path, **given: Any) -> tuple[suite.Found, dict[str, Any]]:
    wanted = command.Wanted(suite="gpu", small=False, out=str(out), **given)
    found = suite.run(wanted)
    return found, json.loads(out.read_text())


def by_name(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in content["parts"]}


def test_a_part_that_fails_is_recorded_and_the_next_one_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    out = tmp_path / "to" / "gpu.json"
    peek = f"import json; parts = json.load(open({str(out)!r}))['parts'];"
    seen = "print(json.dumps({'item': 'seen', 'names': [p['name'] + ' ' + p['status'] for p in parts]}))"
    parts = {
        "fails": part(planned("a", "b") + told("a", milliseconds=2.0) + "raise ValueError('no such card')"),
        "half": part(planned("c", "d") + told("c", error="OSError: gone") + told("d", milliseconds=1.0)),
        "nothing": part(planned("e") + told("e", error="OSError: gone")),
        "absent": part("", needs=("json", "no_such_module_anywhere")),
        "peeks": part(peek + seen),
    }
    monkeypatch.setattr(suite, "PARTS", parts)
    found, content = measured(monkeypatch, out)
    states = {name: each["status"] for name, each in by_name(content).items()}
    assert states == {
        "fails": "failed",
        "half": "done",
        "nothing": "failed",
        "absent": "not available",
        "peeks": "done",
    }
    assert "ValueError: no such card" in by_name(content)["fails"]["reason"]
    assert by_name(content)["fails"]["found"] == [{"item": "a", "milliseconds": 2.0}], "what it had found stays"
    # the file was there while a later part ran
    (seen_by_then,) = by_name(content)["peeks"]["found"]
    assert seen_by_then["names"] == ["fails failed", "half done", "nothing failed", "absent not available"]
    left_out = "\n".join(content["left_out"])
    assert "fails: b: not reached" in left_out and "half: c: OSError: gone" in left_out
    assert "absent: not available: no module named no_such_module_anywhere here" in left_out
    assert "half: d" not in left_out and "fails: failed: ended with status 1: ValueError" in found.table()
    assert content["settings"]["suite"] == "gpu" and content["machine"]["cpu"]


def test_parts_that_do_not_fit_are_left_out_and_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    parts = {
        "hangs": part(planned("a", "b") + told("a", x=1) + "import time; time.sleep(60)", limit=0.8),
        "long": part(told("c"), estimate=100),
        "short": part(told("d"), estimate=1),
    }
    monkeypatch.setattr(suite, "PARTS", parts)
    began = time.monotonic()
    found, content = measured(monkeypatch, tmp_path / "gpu.json", minutes=0.5)
    assert time.monotonic() - began < 15
    states = by_name(content)
    assert states["hangs"]["status"] == "out of time" and states["hangs"]["missing"] == ["b"]
    assert states["hangs"]["found"] == [{"item": "a", "x": 1}]
    assert states["long"]["status"] == "left out" and states["short"]["status"] == "done"
    assert "takes about 100 s, and" in states["long"]["reason"] and "only=[long]" in states["long"]["reason"]
    lines = content["left_out"]
    assert [line.split(":")[0] for line in lines] == ["hangs", "hangs", "long"]
    assert all(line in found.table() for line in lines)


def test_the_suites_own_limit_ends_a_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(suite, "PARTS", {"hangs": part("import time; time.sleep(60)"), "next": part("", estimate=1)})
    _, content = measured(monkeypatch, tmp_path / "gpu.json", minutes=0.02)
    assert [each["status"] for each in content["parts"]] == ["out of time", "left out"]


def test_a_part_ends_with_the_processes_and_files_it_made():
    program = (
        "import subprocess, sys, json, time, tempfile; "
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "made = tempfile.mkdtemp(); "
        "print(json.dumps({'item': 'pid', 'pid': p.pid, 'made': made}), flush=True); time.sleep(60)"
    )
    heard: list[children.Found] = []
    with pytest.raises(children.OutOfTime):
        children.run([sys.executable, "-c", program], limit=1.0, heard=heard.append)
    (found,) = heard
    assert not Path(found["made"]).exists(), "what it wrote for itself is gone, too"
    status = Path(f"/proc/{found['pid']}/stat")
    for _ in range(50):
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("it still runs")


def test_an_interrupted_suite_keeps_what_it_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(suite, "PARTS", {"first": part(told("a", x=1) + "import time; time.sleep(60)")})
    write = results.write

    def writes(wanted: Any, found: suite.Found) -> Any:
        if found.outcomes[0].found and found.outcomes[0].status == "running":
            os.kill(os.getpid(), signal.SIGTERM)
        return write(wanted, found)

    monkeypatch.setattr(results, "write", writes)
    with pytest.raises(KeyboardInterrupt):
        suite.run(command.Wanted(suite="gpu", small=False, out=str(tmp_path / "gpu.json")))
    (kept,) = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert kept["found"] == [{"item": "a", "x": 1}] and kept["reason"] == "the suite was ended meanwhile"


def test_sizes_follow_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    sizes: list[bool] = []

    def asked(small: bool) -> Sequence[str]:
        sizes.append(small)
        return [sys.executable, "-c", told("device", platform="cpu")]

    parts = {name: suite.Part(shows="", command=asked, estimate=0, limit=30) for name in ("machine", "other")}
    monkeypatch.setattr(suite, "PARTS", parts)
    for accelerator, small, then in (
        (False, None, [True, True]),
        (True, None, [False, True]),  # there is one, and JAX does not find it
        (True, True, [True, True]),
        (False, False, [False, False]),
    ):
        monkeypatch.setattr(platform, "has_accelerator", lambda environ, here=accelerator: here)
        sizes.clear()
        suite.run(command.Wanted(suite="gpu", small=small, out=str(tmp_path / "gpu.json")))
        assert sizes == then


def test_every_part_is_a_command_that_there_is():
    for name, each in suite.PARTS.items():
        for small in (False, True):
            module = each.command(small)[2]
            assert Path(*module.split(".")).with_suffix(".py").is_file(), name
        assert 0 < each.estimate <= each.limit
    assert sum(each.limit for each in list(suite.PARTS.values())[:2]) < 480, "what matters most fits in any case"


@pytest.mark.parametrize(
    "given, told",
    [
        ({"suite": "gpu", "overrides": ("seed=1",)}, "overrides: suite=gpu takes none"),
        ({"suite": "gpu", "peers": True}, "peers: suite=gpu takes none"),
        ({"suite": "gpu", "only": ("vae",)}, "only=vae: suite=gpu has machine, equal"),
        ({"suite": "dqn", "minutes": 2.0}, "minutes: only suite=gpu has it"),
        ({"suite": "core", "small": True}, "small: only suite=gpu has it"),
    ],
)
def test_keys_that_a_suite_does_not_have_are_refused(given: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        command.Wanted(**given)


def test_what_takes_two_parts_to_tell():
    def outcome(name: str, *found: children.Found) -> suite.Outcome:
        return suite.Outcome(name=name, shows="", status="done", found=list(found))

    same = {"item": "dqn float32", "equal": True, "donated": True}
    other = {"item": "vae float32", "equal": False, "donated": True}
    told = suite.summary(
        [
            outcome("equal", same, other, {"item": "gan float32", "error": "no"}),
            outcome("dqn", {"item": "dqn 32 float32", "milliseconds": 2.0}),
            outcome("deterministic", {"item": "dqn 32 float32", "milliseconds": 3.0}),
            outcome("torch_dqn", {"item": "torch dqn 32 float32", "milliseconds": 4.0}),
        ]
    )
    assert told == {
        "updates equal to the CPU's": "1 of 2",
        "states donated": "2 of 2",
        "deterministic flags: times a DQN's update of 32": 1.5,
        "dqn 32 float32: times PyTorch's": 0.5,
    }


def test_an_update_is_compared_with_the_cpus(capsys: pytest.CaptureFixture):
    tiny = ("source.batch=4", "source.dispatch=1", "network.make.encoder.widths=[8]", "network.make.decoder.widths=[8]")
    found, exact = equal.compared(("experiment=vae/fashion_mnist", *tiny), "float32", None)
    assert found["equal"] and found["donated"] and found["aliased_bytes"] >= found["state_bytes"] > 0
    assert set(found["differences"]) == set(equal.TOLERANCE) and all(exact["update"][0].shape)
    half, _ = equal.compared(("experiment=vae/fashion_mnist", *tiny), "bfloat16", exact)
    assert half["equal"] and half["tolerance"]["update"] >= equal.FLOOR["update"]
    json.dumps([found, half])


@pytest.mark.long
@pytest.mark.parametrize("name", [name for families in equal.KINDS.values() for name in families])
def test_every_learner_can_be_compared(name: str):
    """Its files compose and fit each other, and its step takes the batch that it is given; nothing is compiled."""
    (overrides,) = [families[name] for families in equal.KINDS.values() if name in families]
    run = equal.described(*overrides, "network.compute=bfloat16")
    state = jax.eval_shape(run.learner.init, jax.random.key(0), run.source.spec)
    new, metrics = jax.eval_shape(run.learner.step, state, equal.batch(run.source.spec))
    assert jax.tree.structure(new) == jax.tree.structure(state) and metrics


@pytest.mark.long
def test_what_is_measured_at_full_size_composes():
    for kind in ("dit", "unet"):
        overrides = (*generative.MODELS[kind].forms["ours"].overrides, "network.compute=bfloat16")
        assert generative_parts.described(command_line.compose(*overrides)).learner.network.compute == "bfloat16"
        small = generative_parts.described(command_line.compose(*overrides, *speed.shrunk(kind)))
        jax.eval_shape(small.learner.init, jax.random.key(0), small.source.spec)
    for families in equal.KINDS.values():
        for overrides in families.values():
            build.check(command_line.compose(*overrides, "network.compute=bfloat16", "tracker=none"))
    for sizes in (playing.FULL, playing.SMALL):
        build.check(command_line.compose(*dqn.SETTING, *playing.RUN, *sizes, fits=True))
    for kind in bitwise.RUNS:
        for small in (True, False):
            given = argparse.Namespace(kind=kind, small=small)
            build.check(bitwise.settings(given, Path("/data of mine")))


def test_another_update_is_told(monkeypatch: pytest.MonkeyPatch):
    step, calls = equal.stepped, []

    def wrong(before: Any, program: Any, own: Any, rows: Any) -> Any:
        made, facts = step(before, program, own, rows)
        calls.append(program)
        if len(calls) == 2:  # the device's, not the CPU's
            made["update"] = [array * 1.05 for array in made["update"]]
        return made, facts

    monkeypatch.setattr(equal, "stepped", wrong)
    tiny = ("source.batch=4", "source.dispatch=1", "network.make.encoder.widths=[8]", "network.make.decoder.widths=[8]")
    found, _ = equal.compared(("experiment=vae/fashion_mnist", *tiny), "float32", None)
    assert not found["equal"] and found["differences"]["update"] == pytest.approx(0.05, rel=1e-3)


def test_distances():
    assert equal.distance([np.array([3.0, 4.0])], [np.array([3.0, 4.0])]) == 0.0
    assert equal.distance([np.array([3.0]), np.array([4.0])], [np.array([0.0]), np.array([4.0])]) == pytest.approx(0.75)
    assert not equal.distance([np.array([np.nan])], [np.array([1.0])]) <= 1.0, "NaN is equal to nothing"


def test_a_games_update_is_counted_and_timed(monkeypatch: pytest.MonkeyPatch):
    """2.18 GFLOP at batch 32: a target's and a network's pass forward, and backward without the input's gradient."""
    asked: list[Any] = []
    monkeypatch.setattr(
        dqn_parts, "updating", lambda run, batches: {f"scan {b}": asked.append(b) or part for b in batches}
    )

    def part() -> int:
        time.sleep(0.002)
        return 2

    found = speed.of_dqn("dqn", 32, "float32", small=True, seconds=0.0)
    assert asked == [32] and 1 <= found["milliseconds"] < 20
    assert found["flops"] == pytest.approx(2.2e9, rel=0.03)
    assert found["share_of_peak"].startswith("not available: no published peak of cpu")


def test_the_state_of_a_model_of_images_goes_over_from_step_to_step():
    class Program:
        def __call__(self, state: Any, rows: Any) -> tuple[Any, Any]:
            return state + rows, {}

    part = speed.repeated(Program(), jnp.zeros(()), jnp.ones(()), times=3)  # pyright: ignore[reportArgumentType]
    assert [part(), part()] == [3, 3] and timing.median_seconds(part, 0.0) > 0


def test_shares_of_the_published_peaks():
    names = {
        "NVIDIA H100 80GB HBM3": 989e12,
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA H200": 989e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
    }
    assert {name: cards.peak(name, "bfloat16") for name in names} == names
    assert cards.share("NVIDIA H200", "float32", 247e12) == {"share_of_peak": 0.5}
    assert "no published peak of NVIDIA T4" in str(cards.share("NVIDIA T4", "float32", 1.0))


def test_carried_packages_stay_reachable_and_flags_are_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", f"/carried{os.pathsep}/more")
    assert children.environment()["PYTHONPATH"].split(os.pathsep)[1:] == ["/carried", "/more"]
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert children.environment()["JAX_PLATFORMS"] == "cuda,cpu"
    assert "deterministic" not in children.environment().get("XLA_FLAGS", "")
    assert children.environment(deterministic=True)["XLA_FLAGS"].endswith(children.FLAGS)


def test_digests_and_verdicts():
    tree = {"a": jnp.arange(3.0), "key": jnp.zeros(2)}
    assert bitwise.digest(tree) == bitwise.digest({"a": jnp.arange(3.0), "key": jnp.zeros(2)})
    assert bitwise.digest(tree) != bitwise.digest({"a": jnp.arange(3.0) + 1e-6, "key": jnp.zeros(2)})
    right = {"state": {"params": "1", "step": "2"}, "metrics": "3", "steps": 4}
    assert bitwise.verdict(right, right)["bitwise"]
    assert bitwise.verdict(right, right | {"metrics": "x"})["bitwise"] is False
    assert bitwise.verdict(right, right | {"state": {"params": "x", "step": "2"}})["differing"] == ["params"]


@pytest.mark.long
@pytest.mark.parametrize("name", ["machine", "bitwise", "playing"])
def test_a_part_goes_to_its_end_on_a_cpu(name: str):
    heard: list[children.Found] = []
    children.run(suite.PARTS[name].command(True), limit=240, heard=heard.append)
    plan, *found = heard
    assert [each["item"] for each in found] == plan["plan"]
    assert not any("error" in each for each in found)
    assert all(each.get("bitwise", True) for each in found)


def sized(folder: Path, **megabytes: float) -> list[Path]:
    """Files of these sizes that take no room."""
    wheels_ = []
    for name, size in megabytes.items():
        path = folder / f"{name}-1.0-py3-none-any.whl"
        with open(path, "wb") as file:
            file.truncate(int(size * 1e6))
        wheels_.append(path)
    return wheels_


@pytest.mark.long
def test_what_the_parts_import_is_carried_or_is_on_the_machine():
    parts = (
        "from experiments.benchmarks.gpu import bitwise, equal, playing, speed, suite; from experiments import training"
    )
    command = [sys.executable, "-c", f"{parts}; import sys; print(*sys.modules)"]
    imported = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    owners = importlib.metadata.packages_distributions()
    ours = {owner.lower().replace("_", "-") for name in imported for owner in owners.get(name, ())}
    machine = {"jax", "jaxlib", "flax", "optax", "numpy", "scipy", "orbax-checkpoint"}
    asked = {
        re.split(r"[<>=\[]", line)[0].lower()
        for line in importlib.metadata.requires("jaxcade") or ()
        if ";" not in line
    }
    assert "zstandard" in asked & ours  # what is asked for has the names that distributions have
    brought = {"rich", "pyyaml"}  # by flax and by omegaconf
    assert asked & ours <= machine | brought | set(wheels.NEEDED)


def test_too_many_wheels_are_refused(tmp_path: Path):
    wheels.check(sized(tmp_path, small=1, larger=59))
    with pytest.raises(wheels.TooLarge, match=r"60\.5 MB of wheels, of at most 60.*the largest: larger 59\.0 MB"):
        wheels.check(sized(tmp_path, small=1.5, larger=59))


def test_what_the_machine_has_is_not_carried_and_what_is_too_large_is_not_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
):
    asked: list[tuple[str, ...]] = []
    larger = [10.0]

    def pip(*arguments: str) -> None:
        asked.append(arguments)
        folder = Path(arguments[arguments.index("--wheel-dir" if arguments[0] == "wheel" else "--dest") + 1])
        if arguments[0] == "download":
            sized(folder, numpy=55, hydra_core=1, pillow=larger[0])

    monkeypatch.setattr(wheels, "_pip", pip)
    out = tmp_path / "wheels"
    out.mkdir()
    sized(out, from_before=1)
    wheels.main(["--out", str(out)])
    assert sorted(path.name.partition("-")[0] for path in out.iterdir()) == ["hydra_core", "pillow"]
    assert "11,000,000  bytes in all, of at most 60,000,000" in capsys.readouterr().out
    built, download = asked
    assert built[-1] == "antlr4-python3-runtime" and "--only-binary=:all:" in download
    assert download[download.index("--python-version") + 1] == "3.12" and "hydra-core" in download
    larger[0] = 61.0
    with pytest.raises(SystemExit, match="62\\.0 MB of wheels"):
        wheels.main(["--out", str(tmp_path / "others")])
    assert not (tmp_path / "others").exists()


def test_wheels_lie_where_git_does_not_look():
    ignored = Path(__file__).parents[3].joinpath(".gitignore").read_text().split()
    assert f"{wheels.OUT.parts[0]}/" in ignored
