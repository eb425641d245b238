"""Where a number came from: code, hardware and package versions. Nothing here ever fails; what is unknown is None."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax

PACKAGES = (
    *("jaxcade", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint"),
    *("numpy", "gymnasium", "ale-py", "hydra-core", "wandb"),
)


def gather(*, devices: bool = True) -> dict[str, Any]:
    """Everything below, for the tracker and for tables. `devices=False` leaves JAX's devices unstarted."""
    return {
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "git": git(),
        "hardware": {"host": platform.node(), **hardware(), "devices": accelerators() if devices else None},
        "packages": {"python": platform.python_version(), **packages()},
    }


def git(folder: str | os.PathLike | None = None) -> dict[str, Any] | None:
    """The revision that `folder` (default: this code) is at, and whether anything in it differs from that revision.

    None outside a repository or without git; a repository with no commit yet has the revision None.
    """
    folder = pathlib.Path(folder or __file__).resolve()
    status = _git(folder, "status", "--porcelain")
    if status is None:
        return None
    return {
        "revision": _git(folder, "rev-parse", "--verify", "--quiet", "HEAD"),
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "--verify", "--quiet", "HEAD"),
        "dirty": bool(status),
    }


def hardware() -> dict[str, Any]:
    """The CPU's name, its cores, those that this process may use, and the memory in bytes."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu(), "cores": os.cpu_count(), "usable_cores": usable, "memory_bytes": _memory()}


def accelerators() -> dict[str, Any] | None:
    """JAX's devices, all processes together. Starts them where nothing has yet."""
    try:
        kinds = [device.device_kind for device in jax.devices()]
        return {
            "platform": jax.default_backend(),
            "kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
            "processes": jax.process_count(),
        }
    except Exception:  # a missing driver, a coordinator that does not answer: said by whoever needs the devices
        return None


def packages(names: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Installed versions by distribution name; None where a package is not installed."""
    versions: dict[str, str | None] = dict.fromkeys(names)
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _git(folder: pathlib.Path, *arguments: str) -> str | None:
    where = folder if folder.is_dir() else folder.parent
    try:
        done = subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):  # no git, no such folder, a file system that does not answer
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str | None:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine() or None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system, or one without these names
        return None
