"""What holds for every test: a CPU, W&B without a server, nothing taken from the caller's environment."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import pytest

# Settings of the person at the keyboard that would change what is tested. Taken out before JAX is imported, and so for
# every process that a test starts.
_LEAKS = ("JAXCADE_", "WANDB_", "SLURM_", "HYDRA_", "XLA_", "JAX_", "LIBTPU_", "MALLOC_")
_KEPT = ("JAX_PLATFORMS",)  # JAX_PLATFORMS=cuda runs the same tests on a GPU
for _name in [name for name in os.environ if name.startswith(_LEAKS) and name not in _KEPT]:
    del os.environ[_name]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAXCADE_TUNE"] = "0"  # an entry point must not replace the process that runs the tests
os.environ["MPLBACKEND"] = "Agg"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ["WANDB_ERROR_REPORTING"] = "false"

import jax  # noqa: E402

from core import platform  # noqa: E402

# A [B] that meets a [B, 1] becomes [B, B] without a word, the classic wrong loss: here it raises.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def _wandb_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """W&B's run folders, caches and settings lie in the tests' own folder."""
    folder: pathlib.Path = tmp_path_factory.mktemp("wandb")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ[name] = str(folder)


# ---- compiling is what takes the time in most tests ----


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder for JAXCADE's compiled programs, by way of XDG_CACHE_HOME."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cached(programs: pathlib.Path) -> Iterator[pathlib.Path]:
    """Programs are compiled with little care and kept: all runs of a test, and processes that it starts, share them."""
    with _compiling_quickly(programs):
        yield programs


@pytest.fixture(scope="module")
def cached_module(programs: pathlib.Path) -> Iterator[pathlib.Path]:
    """The same for what a whole module shares."""
    with _compiling_quickly(programs):
        yield programs


@contextlib.contextmanager
def _compiling_quickly(programs: pathlib.Path) -> Iterator[None]:
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_disable_most_optimizations",
    )
    before = {name: jax.config.values[name] for name in names}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(programs))
        platform.cache()
        jax.config.update("jax_disable_most_optimizations", True)
        yield
    for name, value in before.items():
        jax.config.update(name, value)
