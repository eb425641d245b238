"""The device and its software: a process of the suite `gpu`, and the first one."""

import importlib.metadata
import os
import shutil
import subprocess

import jax

from experiments.benchmarks.gpu import cards, children

PACKAGES = ("jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "flax", "optax", "orbax-checkpoint", "torch")
_ASKED = "name,driver_version,memory.total,clocks.max.sm,power.limit"


def main() -> None:
    children.arguments("the device and its software").parse_args()
    children.plan(["device"])
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    children.tell(
        "device",
        platform=device.platform,
        kind=device.device_kind,
        count=jax.device_count(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=stats.get("bytes_limit", "not available: this device counts no memory"),
        peak_flops={compute: cards.peak(device.device_kind, compute) for compute in ("bfloat16", "float32")},
        peak_source=cards.SOURCE,
        packages={name: version for name in PACKAGES if (version := _version(name))},
        driver=driver(),
        xla_flags=os.environ.get("XLA_FLAGS", ""),
    )


def driver() -> str:
    """What `nvidia-smi` tells of the cards."""
    if shutil.which("nvidia-smi") is None:
        return "not available: no nvidia-smi here"
    command = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.stdout.strip() or f"not available: {done.stderr.strip()}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
