"""What holds for every test: a CPU, W&B without a server, nothing taken from the caller's environment."""

import gc
import importlib.metadata
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

# Compiling takes most of a test's time, and a half to a fifth of it with XLA's older emitters and in one piece.
_COMPILE = {"--xla_cpu_use_fusion_emitters": "false", "--xla_cpu_parallel_codegen_split_count": "1"}

import jax  # noqa: E402
import yaml  # noqa: E402

from core import platform  # noqa: E402

# Hydra reads the files of conf/ anew for every command line: libyaml is quicker at it.
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# A [B] that meets a [B, 1] becomes [B, B] without a word, the classic wrong loss: here it raises.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def _wandb_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """W&B's run folders, caches and settings lie in the tests' own folder."""
    folder: pathlib.Path = tmp_path_factory.mktemp("wandb")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ[name] = str(folder)


def pytest_configure(config: pytest.Config) -> None:
    """Programs are compiled with few optimisations, also in the processes that a test starts.

    Not for slow tests, which train for minutes. A test that reads a program has that one compiled as a user's.
    """
    if config.option.markexpr != "slow":
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        jax.config.update("jax_disable_most_optimizations", True)
        if importlib.metadata.version("jaxlib").startswith("0.10."):  # XLA ends the process at a flag it doesn't know
            os.environ["XLA_FLAGS"] = " ".join(f"{name}={value}" for name, value in _COMPILE.items())


@pytest.fixture(scope="session", autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of compiled programs, the smallest too: for all tests of a worker and the processes that they start.

    JAX writes into it without a lock: two workers at once might read half a program.
    """
    folder = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    platform.cache()
    gc.freeze()  # what was imported stays, and need not be looked through again and again
    gc.set_threshold(20_000)
    return folder
