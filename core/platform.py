"""What helps the whole process on the machine at hand: malloc settings, XLA's flags, the compilation cache.

Entry points call `tune()` before they import anything slow, then `cache()`. Measured gains: docs/performance.md.
"""

import glob
import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import sys
from collections.abc import Mapping

# glibc hands XLA's temporaries back to the kernel after every call and faults them in again at the next one.
# `hugetlb=1` asks for transparent huge pages; the rest keeps freed memory in the heap, which only ever grows.
MALLOC = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",  # 16 GiB
    "MALLOC_TOP_PAD_": "67108864",  # 64 MiB
    "MALLOC_ARENA_MAX": "1",  # one heap for all threads: each of its own would keep what it freed, 270 MB in all
}
FLAGS = {
    # Convolutions go to Eigen instead of YNNPACK.
    "--xla_cpu_experimental_ynn_fusion_type": "-individual_convolution",
}
JAXLIBS = ("0.10.", "0.11.", "0.12.")  # where the flags are known: an unknown one ends the process


def tune(*, wanted: bool = True) -> None:
    """Starts this process again, once, with the environment that makes JAX fast on a CPU; says so in one line.

    Returns without doing anything on other systems than Linux on x86-64, beside an accelerator, with
    `JAXCADE_TUNE=0`, when `wanted` is false, and when all is set. A variable or flag that you set yourself stays.
    Whatever the process did before the call is lost, so make it first; the command line is kept to the letter.
    """
    marker, off = "JAXCADE_TUNED", os.environ.get("JAXCADE_TUNE", "1").lower() in ("0", "false", "no", "off")
    if off or not wanted or os.environ.get(marker) or not _tunable():
        return
    settings = missing_settings(os.environ, jaxlib=_version("jaxlib"), glibc=platform.libc_ver()[0] == "glibc")
    if not settings:
        return
    names = " ".join(f"{name}={value}" for name, value in settings.items())
    print(
        f"jaxcade: for speed on this CPU, set {names} (JAXCADE_TUNE=0 or tune=false leaves them alone)", file=sys.stderr
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **settings, marker: "1"})


def missing_settings(environ: Mapping[str, str], *, jaxlib: str, glibc: bool) -> dict[str, str]:
    """The variables to set, given those that are; a user's choice of malloc or of a flag is left whole."""
    settings = {}
    chosen = any(name in environ for name in (*MALLOC, "LD_PRELOAD"))  # a preloaded library may be another malloc
    if glibc and not chosen:
        settings |= MALLOC
    flags = environ.get("XLA_FLAGS", "")
    added = [f"{name}={value}" for name, value in FLAGS.items() if name not in flags]
    if jaxlib.startswith(JAXLIBS) and added:
        settings["XLA_FLAGS"] = " ".join([flags, *added]).strip()
    return settings


def has_accelerator(environ: Mapping[str, str]) -> bool:
    """Whether JAX will use something else than the CPU, found out without starting it."""
    if platforms := environ.get("JAX_PLATFORMS", ""):
        return platforms.split(",")[0] != "cpu"
    plugin = any(importlib.metadata.entry_points(group="jax_plugins")) or importlib.util.find_spec("libtpu")
    devices = ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*", "/dev/kfd", "/dev/dxg")
    return bool(plugin) and any(glob.glob(pattern) for pattern in devices)


def cache() -> pathlib.Path | None:
    """Keeps compiled programs between runs, in a folder of the user's cache; returns it.

    Where they are set, JAX's own variables decide: `JAX_COMPILATION_CACHE_DIR` the folder,
    `JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS` from which compile time on a program is kept. None where no such folder
    can be made.
    The folder is named by the CPU and jaxlib: XLA compiles for the very features of the CPU, and a program made
    for another one can end in an illegal instruction.
    """
    import jax  # here, so that `tune` comes before the seconds that this takes

    if own := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return pathlib.Path(own)
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    key = hashlib.sha256("\n".join((_version("jaxlib"), *_cpu_lines())).encode()).hexdigest()[:12]
    folder = pathlib.Path(root) / "jaxcade" / f"xla-{key}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:  # which JAX reads itself
        # A start is many programs of half a second.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return folder


def cpu() -> str:
    """The CPU's name with what a table must say of it: `AMD EPYC (family 26, 2 cores)`."""
    lines = dict(line.split(": ", 1) for line in _cpu_lines() if ": " in line)
    name = lines.get("model name") or platform.processor() or platform.machine()
    family = f"family {lines['cpu family']}, " if "cpu family" in lines else ""
    return f"{name} ({family}{cores()} cores)"


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tunable() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64" and not has_accelerator(os.environ)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cpu_lines() -> list[str]:
    """What names the first CPU and its features, as `name: value`, without what changes from one moment to the next."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return [f"model name: {platform.processor()}", platform.machine()]
    kept = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
    pairs = (re.split(r"\s*:\s*", line, maxsplit=1) for line in text.splitlines())
    return [f"{pair[0]}: {pair[1]}" for pair in pairs if len(pair) == 2 and pair[0] in kept]
