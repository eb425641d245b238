"""Compiled programs are kept between the runs of these tests, and away from the user's own."""

import pathlib

import jax
import pytest


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder for JAXCADE's compiled programs, by way of XDG_CACHE_HOME."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cached(programs: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Runs inside this process, and processes that it starts, share `programs`."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_disable_most_optimizations",
    )
    before = {name: jax.config.values[name] for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(programs))
    jax.config.update("jax_disable_most_optimizations", True)  # compiling is what takes the time here
    yield programs
    for name, value in before.items():
        jax.config.update(name, value)
