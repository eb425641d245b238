"""PyTorch's update times on this machine's GPU: `torch_gpu dqn|dit|unet <batch> ... [--compute float32 bfloat16]`.

Channels last, `torch.compile`, autocast to bfloat16 or products in TF32. It tells lines of JSON, as `gpu/children.py`
reads them. Without a GPU it runs on the CPU, not compiled.
"""
# pyright: reportMissingImports=false

import argparse
import contextlib
import json

import torch

from experiments.benchmarks import timing
from experiments.benchmarks.foreign import torch_images, torch_update

TRIES = 20  # updates behind each other before the device is waited for


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("dqn", "dit", "unet"))
    parser.add_argument("batches", type=int, nargs="+")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--compute", nargs="+", choices=("float32", "bfloat16"), default=("bfloat16",))
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_device(device)
    torch.set_float32_matmul_precision("high")  # TF32, as JAX's default
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    items = {
        f"torch {given.kind} {batch} {compute}": (batch, compute)
        for compute in given.compute
        for batch in given.batches
    }
    print(json.dumps({"plan": list(items)}), flush=True)
    for name, (batch, compute) in items.items():
        try:
            torch.compiler.reset()
            found = measured(given.kind, batch, compute, device, given.seconds)
        except Exception as error:  # the next batch may do
            found = {"error": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps({"item": name, **found}), flush=True)


def measured(kind: str, batch: int, compute: str, device: str, seconds: float) -> dict[str, object]:
    """Milliseconds of an update and what they were measured with."""
    if kind == "dqn":
        network, train = torch_update.built(batch)
        modules, count = (network,), 1
    else:
        modules, train, _ = torch_images.MODELS[kind](batch, 1, 1, torch.channels_last)
        count = batch
    for module in modules if device == "cuda" else ():  # minutes of a CPU's time, and nothing asks for its figures
        module.compile()
    half = torch.autocast(device, torch.bfloat16) if compute == "bfloat16" else contextlib.nullcontext()

    def updates() -> int:
        with half:
            done = sum(train() for _ in range(TRIES if device == "cuda" else 1))
        if device == "cuda":
            torch.cuda.synchronize()
        return done

    updates()  # compiles
    updates()
    return {
        "milliseconds": 1e3 * count * timing.median_seconds(updates, seconds),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "compiled": device == "cuda",
        "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
    }


if __name__ == "__main__":
    main()
