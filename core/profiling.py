"""A short trace of a run, on request: `profile=true`."""

import dataclasses
import pathlib
from typing import Any

import jax


@dataclasses.dataclass(kw_only=True)
class Profiler:
    """Traces `steps` learning steps after `skip` of them (compilation and first touches), then the memory.

    The trace (`<folder>/plugins/...`) opens in Perfetto or TensorBoard; `memory.prof` with pprof.
    """

    folder: pathlib.Path
    skip: int = 20
    steps: int = 10
    _seen: int = 0

    def step(self, state: Any, *, learning: bool) -> None:
        self._seen += learning
        if not learning or self._seen not in (self.skip, self.skip + self.steps):
            return
        jax.block_until_ready(state)
        if self._seen == self.skip:
            jax.profiler.start_trace(self.folder)
        else:
            jax.profiler.stop_trace()
            jax.profiler.save_device_memory_profile(self.folder / "memory.prof")

    def close(self) -> None:
        """Ends a trace that the run's end has cut short, or says why there is none."""
        if self._seen < self.skip:
            print(f"profile: nothing traced, since only {self._seen} of the first {self.skip} learning steps were made")
        if self.skip <= self._seen < self.skip + self.steps:
            jax.profiler.stop_trace()
