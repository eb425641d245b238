"""Published peaks of NVIDIA's cards, in FLOP/s of dense matrix products."""

SOURCE = "NVIDIA's data sheets of the A100, H100 and H200: tensor cores, half of what is told 'with sparsity'"
# By a part of the name that the driver tells; the first that fits. float32 is TF32, JAX's default for products there.
PEAKS = {
    "H100 PCIe": {"bfloat16": 756e12, "float32": 378e12},
    "H100 NVL": {"bfloat16": 835e12, "float32": 417e12},
    "H100": {"bfloat16": 989e12, "float32": 494e12},
    "H200 NVL": {"bfloat16": 835e12, "float32": 417e12},
    "H200": {"bfloat16": 989e12, "float32": 494e12},
    "A100": {"bfloat16": 312e12, "float32": 156e12},
}


def peak(kind: str, compute: str) -> float | None:
    """FLOP/s of a device by `device_kind`; None for one that `PEAKS` lacks."""
    found = next((peaks for name, peaks in PEAKS.items() if name.lower() in kind.lower()), None)
    return None if found is None else found[compute]


def share(kind: str, compute: str, flops_per_second: float) -> dict[str, float | str]:
    """`share_of_peak`, or in its place the reason why there is none."""
    top = peak(kind, compute)
    if top is None:
        return {"share_of_peak": f"not available: no published peak of {kind} in experiments/benchmarks/gpu/cards.py"}
    return {"share_of_peak": flops_per_second / top}
