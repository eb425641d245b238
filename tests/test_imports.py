"""The house's rules about imports (ARCHITECTURE: rooms and doors), held by reading the source."""

import ast
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Room -> the rooms whose code it may import.
DOORS = {
    "core": {"core"},
    "agents": {"core", "agents"},
    "generative": {"core", "generative"},
    "experiments": {"core", "agents", "generative", "slurm", "experiments"},
    "slurm": {"core", "slurm"},
}
# Library -> the only place that may import it, as the beginning of a path.
PRIVATE = {"hydra": "experiments/config/", "omegaconf": "experiments/config/", "wandb": "core/tracking.py"}
NEVER = ("jax.experimental", "jax.pmap", "hydra._internal")
# What has no other name: path -> names.
EXCEPT = {
    "core/distributed.py": (
        "jax.experimental.multihost_utils",
        *("multihost_utils.process_allgather", "multihost_utils.reached_preemption_sync_point"),
    )
}
# Declared and imported under another name.
PLUGINS = {"imageio-ffmpeg", "pillow", "scikit-learn"}

SOURCES = sorted(path.relative_to(ROOT) for room in DOORS for path in (ROOT / room).rglob("*.py"))
# What runs in the environments of other projects is no module.
MODULES = [path for path in SOURCES if "foreign" not in path.parts]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_keep_to_their_doors(path: pathlib.Path):
    assert violations(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    "path, source",
    [
        ("core/loop.py", "from agents import dqn"),
        ("core/loop.py", "def late():\n    import experiments.config.build"),
        ("agents/dqn.py", "from generative import vae"),
        ("generative/vae.py", "import agents"),
        ("slurm/jobs.py", "import experiments.training"),
        ("slurm/jobs.py", "from agents import dqn"),
        ("core/loop.py", "from slurm import jobs"),
        ("experiments/launching/sweep.py", "import hydra"),
        ("agents/dqn.py", "import hydra.utils"),
        ("core/checkpoints/checkpoint.py", "from omegaconf import OmegaConf"),
        ("experiments/train.py", "import wandb"),
        ("core/mesh.py", "from jax.experimental import shard_map"),
        ("core/mesh.py", "from jax import experimental"),
        ("core/mesh.py", "import jax\njax.experimental.enable_x64()"),
        ("core/mesh.py", "import jax\nstep = jax.pmap(len)"),
        ("experiments/config/overrides.py", "from hydra._internal.utils import get_args_parser"),
        ("core/mesh.py", "from . import types"),
        ("core/utils.py", ""),
    ],
)
def test_a_breach_is_seen(path: str, source: str):
    assert violations(pathlib.Path(path), source)


def test_dependencies_are_declared_and_used():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {_canonical(re.split(r"[\[<>=~! ]", line)[0]) for line in project["dependencies"]}
    owners = importlib.metadata.packages_distributions()
    imported = {name.split(".")[0] for path in MODULES for name in _imports((ROOT / path).read_text())}
    foreign = imported - sys.stdlib_module_names - set(DOORS)
    needed = {_canonical(owners[name][0]) if name in owners else name for name in foreign}
    assert needed - declared == set(), "imported, but not among pyproject.toml's dependencies"
    assert declared - needed - PLUGINS == set(), "among pyproject.toml's dependencies, but imported nowhere"


def test_the_lock_names_every_dependency_and_no_address():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin)] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    missing = {_canonical(re.split(r"[\[<>=~! ]", line)[0]) for line in wanted} - {
        _canonical(pin.split("==")[0]) for pin in pins
    }
    assert missing == set()


_IMPORT_ALL = """
import importlib, os, pathlib, sys
root, modules = sys.argv[1], sys.argv[2:]
opened = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        opened.append(os.path.abspath(os.fsdecode(arguments[0])))
sys.addaudithook(watch)
for module in modules:
    importlib.import_module(module)
installed = (".venv", "__pycache__", ".egg-info")  # libraries look through what is installed
late = {"imageio_ffmpeg", "matplotlib", "pooch", "sklearn", "wandb"}  # slow, or for what few runs do
late &= sys.modules.keys()
print([*late] + [name for name in opened if name.startswith(root + os.sep) and not name.endswith(".py")
       and not any(part in name for part in installed)])
"""


def test_importing_starts_no_device_reads_no_file_and_takes_nothing_slow():
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
    # A platform that does not exist: whatever asks JAX for a device, an array or a key raises.
    environment = os.environ | {"JAX_PLATFORMS": "no_such_platform"}
    command = [sys.executable, "-c", _IMPORT_ALL, str(ROOT), *modules]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def violations(path: pathlib.Path, source: str) -> list[str]:
    """What the file `path` (relative to the root) with the text `source` does against the rules, as sentences."""
    room = path.parts[0]
    found = [f"{path}: name a module for what it holds"] if path.name == "utils.py" else []
    for name in _imports(source):
        top = name.split(".")[0]
        if top == "":
            found.append(f"{path}: imports by a relative path")
        if top in DOORS and top not in DOORS[room]:
            found.append(f"{path}: {room} imports {name}")
        if top in PRIVATE and not path.as_posix().startswith(PRIVATE[top]):
            found.append(f"{path}: {name} is for {PRIVATE[top]} alone")
    used = {*_imports(source), *_attributes(source)}
    found += [f"{path}: {name}" for name in used if name.startswith(NEVER) and name not in EXCEPT.get(str(path), ())]
    return found


def _imports(source: str) -> Iterator[str]:
    """Every name that `source` imports anywhere: `from a import b` gives a.b; a relative import begins with a dot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def _attributes(source: str) -> Iterator[str]:
    """Every `name.attribute` that `source` uses."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
