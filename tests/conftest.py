"""What holds for every test: a CPU, W&B without a server, nothing taken from the caller's environment."""

import os
import pathlib

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


@pytest.fixture(scope="session", autouse=True)
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Compiling takes most of a test's time. Programs are compiled with few optimisations, and kept in this folder.

    That holds for the processes that a test starts, too, but not for slow tests. A test that reads a program has
    that one compiled as a user's.
    """
    folder = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    if request.config.option.markexpr != "slow":  # which train for minutes
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        jax.config.update("jax_disable_most_optimizations", True)
    platform.cache()
    return folder
