"""Provenance is right where it can be known, and None, never an error, where it cannot."""

import json
import subprocess

import jax

from core import provenance


def _git(folder, *arguments):
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_git_names_the_revision_and_whether_the_tree_was_dirty(tmp_path):
    _git(tmp_path, "init", "-b", "main")
    assert provenance.git(tmp_path) == {"revision": None, "branch": None, "dirty": False}  # no commit yet
    (tmp_path / "a.py").write_text("1")
    _git(tmp_path, "add", "a.py")
    _git(tmp_path, "commit", "-m", "one")
    revision = _git(tmp_path, "rev-parse", "HEAD")
    assert provenance.git(tmp_path) == {"revision": revision, "branch": "main", "dirty": False}
    (tmp_path / "a.py").write_text("2")
    assert provenance.git(tmp_path) == {"revision": revision, "branch": "main", "dirty": True}
    _git(tmp_path, "checkout", "a.py")
    (tmp_path / "new.py").write_text("a file that git does not know changes a run, too")
    assert provenance.git(tmp_path / "a.py") == {"revision": revision, "branch": "main", "dirty": True}


def test_no_repository_and_no_git_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git() is None


def test_a_git_that_hangs_is_none(tmp_path, monkeypatch):
    def hang(*_, timeout, **__):
        assert timeout <= 5
        raise subprocess.TimeoutExpired("git", timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert provenance.git(tmp_path) is None


def test_everything_is_plain_and_names_cpu_memory_devices_and_versions():
    origin = json.loads(json.dumps(provenance.gather()))
    hardware = origin["hardware"]
    assert hardware["cpu"]
    assert hardware["cores"] >= hardware["usable_cores"] >= 1
    assert hardware["memory_bytes"] > 2**28
    assert sum(hardware["devices"]["kinds"].values()) == jax.device_count()
    assert origin["packages"]["jax"] == jax.__version__
    assert origin["packages"]["python"].startswith("3.")


def test_a_missing_package_and_missing_devices_are_none(monkeypatch):
    assert provenance.packages(("no-such-distribution", "jax"))["no-such-distribution"] is None

    def broken():
        raise RuntimeError("no driver")

    monkeypatch.setattr(jax, "devices", broken)
    assert provenance.accelerators() is None
    assert provenance.gather(devices=False)["hardware"]["devices"] is None
