"""The entry points start themselves again with faster settings: once, visibly, and never against the user."""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from core import platform

PROGRAM = """
import json, os, sys
from core import platform
print("before", flush=True)
platform.tune(wanted="tune=false" not in sys.argv)
names = (*platform.MALLOC, "XLA_FLAGS")
print(json.dumps([sys.argv[1:], {name: os.environ.get(name) for name in names}, "jax" in sys.modules]))
"""
flags = [f"{name}={value}" for name, value in platform.FLAGS.items()]
linux = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64", reason="tune() is for Linux on x86-64"
)


def run(tmp_path, *arguments, module=True, environ=None):
    """Runs PROGRAM as a user would; returns (output lines, what it saw, stderr)."""
    (tmp_path / "entry.py").write_text(PROGRAM)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_", "XLA_", "JAX", "LD_PRELOAD"))}
    root = pathlib.Path(platform.__file__).parents[1]
    environ = {**kept, "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}", "JAX_PLATFORMS": "cpu", **(environ or {})}
    how = ["-m", "entry"] if module else ["entry.py"]
    command = [sys.executable, "-W", "error", *how, *arguments]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    return lines[:-1], json.loads(lines[-1]), done.stderr


@linux
@pytest.mark.parametrize("module", [True, False])
def test_starts_again_once_with_the_same_command_line(tmp_path, module):
    before, (arguments, environ, jax_imported), stderr = run(tmp_path, "a=b c", "--flag", module=module)
    assert before == ["before", "before"]
    assert arguments == ["a=b c", "--flag"]
    assert environ["GLIBC_TUNABLES"] == platform.MALLOC["GLIBC_TUNABLES"]
    assert environ["XLA_FLAGS"].split() == flags
    assert not jax_imported, "deciding must not cost the import of JAX"
    assert stderr.count("\n") == 1
    assert "XLA_FLAGS=" in stderr and "JAXCADE_TUNE=0" in stderr


@linux
@pytest.mark.parametrize("how", ["JAXCADE_TUNE", "argument", "accelerator"])
def test_switched_off(tmp_path, how):
    arguments = ["tune=false"] if how == "argument" else []
    environ = {"JAXCADE_TUNE": {"JAXCADE_TUNE": "0"}, "accelerator": {"JAX_PLATFORMS": "cuda,cpu"}}.get(how, {})
    before, (_, seen, _), stderr = run(tmp_path, *arguments, environ=environ)
    assert before == ["before"]
    assert not any(seen.values())
    assert stderr == ""


@linux
def test_what_the_user_set_stays(tmp_path):
    own = "--xla_force_host_platform_device_count=2"
    before, (_, environ, _), _ = run(tmp_path, environ={"XLA_FLAGS": own, "MALLOC_TOP_PAD_": "5"})
    assert before == ["before", "before"]
    assert environ["XLA_FLAGS"].split() == [own, *flags]
    assert environ["MALLOC_TOP_PAD_"] == "5"
    assert environ["MALLOC_MMAP_MAX_"] is None


@pytest.mark.parametrize(
    ("environ", "jaxlib", "glibc", "names"),
    [
        ({}, "0.10.2", True, {*platform.MALLOC, "XLA_FLAGS"}),
        ({}, "0.11.2", True, {*platform.MALLOC, "XLA_FLAGS"}),
        ({}, "0.13.0", True, {*platform.MALLOC}),  # a jaxlib that may not know the flag
        ({}, "", False, set()),
        ({"LD_PRELOAD": "libjemalloc.so.2"}, "0.10.2", True, {"XLA_FLAGS"}),
        ({"XLA_FLAGS": " ".join(f"{name}=other" for name in platform.FLAGS)}, "0.10.2", True, {*platform.MALLOC}),
        ({**platform.MALLOC, "XLA_FLAGS": " ".join(flags)}, "0.10.2", True, set()),
    ],
)
def test_missing_settings(environ, jaxlib, glibc, names):
    assert set(platform.missing_settings(environ, jaxlib=jaxlib, glibc=glibc)) == names


@pytest.mark.parametrize("chosen", ["--one", "--other"])
def test_a_flag_that_the_user_chose_stays_and_the_others_are_added(monkeypatch, chosen):
    monkeypatch.setattr(platform, "FLAGS", {"--one": "1", "--other": "1"})
    settings = platform.missing_settings({"XLA_FLAGS": f"{chosen}=own"}, jaxlib="0.10.2", glibc=False)
    rest = [f"{name}=1" for name in platform.FLAGS if name != chosen]
    assert settings["XLA_FLAGS"].split() == [f"{chosen}=own", *rest]


@linux
def test_the_flag_is_known_to_this_jaxlib():
    """An unknown flag would end every run at its first line."""
    settings = platform.missing_settings({}, jaxlib=importlib.metadata.version("jaxlib"), glibc=False)
    if not settings:
        pytest.skip(f"no flag is set for jaxlib {importlib.metadata.version('jaxlib')}")
    environ = {**os.environ, **settings, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=environ, timeout=60, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("platforms", "plugin", "device", "expected"),
    [
        ("cpu", True, True, False),
        ("cuda,cpu", False, False, True),
        ("", True, True, True),
        ("", True, False, False),
        ("", False, True, False),
    ],
)
def test_has_accelerator(monkeypatch, platforms, plugin, device, expected):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: ["xla_cuda12"] if plugin else [])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("glob.glob", lambda pattern: [pattern] if device else [])
    assert platform.has_accelerator({"JAX_PLATFORMS": platforms}) == expected


CACHED = """
import jax, logging
from core import platform
print(platform.cache())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((8, 8))).block_until_ready()
print("/jax/compilation_cache/cache_hits" in hits)
"""


def test_cache_is_used_by_the_next_process_silently(tmp_path):
    kept = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environ = {**kept, "XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    environ["PYTHONPATH"] = str(pathlib.Path(platform.__file__).parents[1])
    done = [
        subprocess.run(
            [sys.executable, "-c", CACHED], env=environ, capture_output=True, text=True, timeout=60, check=True
        )
        for _ in range(2)
    ]
    folders, hits = zip(*(run.stdout.split() for run in done), strict=True)
    assert folders[0] == folders[1] and pathlib.Path(folders[0]).is_relative_to(tmp_path)
    assert hits == ("False", "True")
    assert done[1].stderr == ""


@pytest.fixture
def updates(monkeypatch):
    """What `cache()` would have set, as (name, value)."""
    made = []
    monkeypatch.setattr(jax.config, "update", lambda *update: made.append(update))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    return made


def test_cache_leaves_the_users_own_folder(monkeypatch, updates):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert platform.cache() == pathlib.Path("/elsewhere")
    assert not updates


def test_cache_leaves_the_users_own_least_seconds(monkeypatch, updates, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    name = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
    monkeypatch.setenv(name, "3")
    platform.cache()
    assert name.lower() not in dict(updates)
    monkeypatch.delenv(name)
    platform.cache()
    assert dict(updates)[name.lower()] == 0.2


def test_cache_does_without_a_folder(monkeypatch, updates, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert platform.cache() is None
    assert not updates


def test_cache_folder_depends_on_the_features_of_the_cpu(monkeypatch, updates, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for flags in ("avx2", "avx2 avx512f"):
        monkeypatch.setattr(platform, "_cpu_lines", lambda flags=flags: [f"flags: {flags}"])
        platform.cache()
    assert len({value for name, value in updates if name == "jax_compilation_cache_dir"}) == 2


def test_cpu_has_a_name_and_a_count():
    assert " cores)" in platform.cpu()
