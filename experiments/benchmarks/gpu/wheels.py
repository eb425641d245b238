"""Gathers what a machine with a GPU and no network lacks: `python -m experiments.benchmarks.gpu.wheels`.

The machine has Python 3.12 on Linux x86-64 with jax, flax, optax, orbax and torch. What the suite `gpu` imports beside
them is downloaded by pip as wheels for that Python, whichever runs this, at the versions of requirements.lock. More
than 60 MB are refused. How they are used there: docs/gpu.md.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.config import identity

LIMIT = 60_000_000  # bytes
OUT = Path("build/wheels")  # which git ignores
PYTHON, ABI = "3.12", "cp312"
PLATFORMS = tuple(f"{name}_x86_64" for name in ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014"))
NEEDED = (
    *("ale-py", "annotated-types", "gymnasium", "hydra-core", "omegaconf", "orjson", "pillow", "psutil", "pydantic"),
    "zstandard",
)
PEERS = ("diffusers==0.42.1",)  # the U-Net beside which ours is timed
FROM_SOURCE = ("antlr4-python3-runtime",)  # hydra-core's and omegaconf's; its authors publish no wheel
HAS = ("numpy", "torch")  # of what these need, what the machine has for certain and what is large


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="the folder; by itself %(default)s")
    parser.add_argument("--no-peers", action="store_true", help="without diffusers: no U-Net of PyTorch's")
    given = parser.parse_args(arguments)
    try:
        wheels = gather(given.out, needed=NEEDED if given.no_peers else (*NEEDED, *PEERS))
    except TooLarge as error:
        sys.exit(str(error))
    for wheel in wheels:
        print(f"{wheel.stat().st_size:>11,}  {wheel.name}")
    print(f"{size(wheels):>11,}  bytes in all, of at most {LIMIT:,}: {given.out}")


class TooLarge(RuntimeError):
    """More than the limit; nothing was put into the folder."""


def gather(out: Path, *, needed: Sequence[str]) -> list[Path]:
    """Fills `out` with the wheels, in place of those of an earlier call, and returns them.

    Raises: TooLarge; subprocess.CalledProcessError where pip fails (it has said why).
    """
    with tempfile.TemporaryDirectory(prefix="jaxcade-wheels-") as folder:
        lock = Path(identity.ROOT, "requirements.lock")
        _pip("wheel", "--no-deps", "--constraint", str(lock), "--wheel-dir", folder, *FROM_SOURCE)
        target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON]
        target += [part for abi in (ABI, "abi3", "none") for part in ("--abi", abi)]
        target += [part for platform in PLATFORMS for part in ("--platform", platform)]
        _pip("download", *target, "--constraint", str(lock), "--find-links", folder, "--dest", folder, *needed)
        wheels = carried(Path(folder).glob("*.whl"))
        check(wheels)
        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob("*.whl"):
            old.unlink()
        return [Path(shutil.copy2(wheel, out)) for wheel in wheels]


def carried(wheels: Iterable[Path]) -> list[Path]:
    """Without those that the machine has, by name."""
    return sorted(wheel for wheel in wheels if wheel.name.partition("-")[0].lower().replace("_", "-") not in HAS)


def check(wheels: Sequence[Path]) -> None:
    """Raises TooLarge above `LIMIT`."""
    if size(wheels) > LIMIT:
        largest = sorted(wheels, key=lambda wheel: -wheel.stat().st_size)[:5]
        named = ", ".join(f"{wheel.name.partition('-')[0]} {wheel.stat().st_size / 1e6:.1f} MB" for wheel in largest)
        raise TooLarge(
            f"{size(wheels) / 1e6:.1f} MB of wheels, of at most {LIMIT / 1e6:.0f}: leave some out (--no-peers); the "
            f"largest: {named}"
        )


def size(wheels: Iterable[Path]) -> int:
    """Bytes of all."""
    return sum(wheel.stat().st_size for wheel in wheels)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
