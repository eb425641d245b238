"""Checkpoints of a run: written whole or not at all, checked when read, a few kept, the best one beside them.

    checkpoints/000000001200/    one folder a checkpoint, named by its step (`core/checkpoints/files.py`)
    checkpoints/best/<n>/        the best by a named metric (the n-th to be so), without replay and source
    checkpoints/tmp-*            an interrupted save or removal: removed when the run goes on

A folder gets its name by a rename, once everything in it has reached the disk. Of several processes the first one lists
folders and decides, since on a shared disk the others may see an older listing.
"""

import dataclasses
import math
import os
import pathlib
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from core import distributed, watchdog
from core.checkpoints import files, folders, telling
from core.checkpoints.files import CheckpointError, Corrupt, Mismatch, SchemaError, readable
from core.checkpoints.folders import complete
from core.checkpoints.telling import expected_bytes, replay_bytes

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Corrupt",
    "Loaded",
    "Mismatch",
    "NotFinite",
    "Restored",
    "Saved",
    "SchemaError",
    "complete",
    "expected_bytes",
    "load",
    "readable",
    "replay_bytes",
]


class NotFinite(CheckpointError):
    """The state holds NaN or infinity and was not saved."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint and what it cost."""

    step: int
    path: pathlib.Path
    bytes: int  # all of it
    seconds: float
    replay_bytes: int  # the replay's share of `bytes`
    resumable: bool  # a killed run goes on from it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
    """Everything that a run needs to go on."""

    step: int
    state: Any
    source: Any  # what was saved: a nest of NumPy arrays, numbers, strings and None
    extra: dict[str, Any]
    replay_restored: bool  # False: the state has a replay, and it was not saved
    path: pathlib.Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """The part of a checkpoint that was asked for."""

    step: int
    tree: Any
    extra: dict[str, Any]  # of a best checkpoint: {"metric": its name, "value": its value}
    path: pathlib.Path


class Checkpoints:
    """The checkpoints of one run, which alone writes to `folder`. All its processes make every call."""

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        keep: int = 2,
        replay: bool = True,
        metric: str | None = "eval/episode_return",
        better: Literal["higher", "lower"] = "higher",
        log: Callable[[str], Any] = print,
    ):
        if keep < 1:
            raise ValueError(f"checkpoint.keep={keep}: must be at least 1")
        if better not in ("higher", "lower"):
            raise ValueError(f"checkpoint.better={better}: must be higher or lower")
        self.folder = pathlib.Path(folder).absolute()
        self._best_folder = self.folder / "best"
        self.metric = metric  # what `best` goes by; None: no best is kept
        self._keep, self._replay, self._better, self._log = keep, replay, better, log
        self._last: Saved | None = None  # the newest that this object has written or read
        self._told = False
        self._refilled = False  # the run goes on from a checkpoint without memory: the next one has it
        self._passed_over: list[pathlib.Path] = []  # light ones, later than what the run goes on from

    def memory(self, state: Any) -> bool:
        """Whether the run saves the replay of a state (or of its shapes)."""
        return self._replay and replay_bytes(state) > 0

    def save(self, step: int, state: Any, source: Any, *, extra: Mapping[str, Any], replay: bool = True) -> Saved:
        """Writes a checkpoint and returns when it is safe; a second save of the same step only renews `extra`.

        `state` is any pytree. Its top-level field `replay`, where there is one, is written if the run saves it and
        `replay` is true, or no checkpoint has it yet; a second save of the same step brings what the first left out.
        `source` is a nest of arrays, numbers, strings and None; `extra` is small and goes through JSON.

        Raises:
          NotFinite: the state is not healthy.
          CheckpointError: it could not be written (too little space, say); earlier checkpoints are untouched.
        """
        with distributed.together():
            if distributed.primary():
                for path in self._passed_over:
                    folders.remove(path)
        self._passed_over = []
        newest, bare = distributed.decided(
            lambda: (
                max(map(folders.number, folders.numbered(self.folder)), default=-1),
                not folders.with_memory(self.folder),
            )
        )
        with_replay = self.memory(state) and (replay or bare or self._refilled)
        if not self._replay:
            extra = {**extra, folders.ALONE: True}
        again = self._last is not None and self._last.step == step == newest
        if again and self._last is not None and (self._last.replay_bytes or not with_replay):
            with distributed.together():
                if distributed.primary():
                    files.renew(self._last.path, extra)
            return self._last
        if step <= newest and not again:
            raise CheckpointError(
                f"{self.folder}: cannot save step {step} beside the newer checkpoint of step {newest}; "
                "go on from it (resume=<run>) or choose another folder"
            )
        saved = self._write(self.folder / folders.name(step), step, state, source, extra, with_replay=with_replay)
        if distributed.primary():
            folders.prune(self.folder, self._keep, memories=self._replay)
        self._last, self._refilled = saved, self._refilled and not with_replay
        if not self._told:
            self._told = True
            self._log(telling.cost(saved, self._keep, state, memory=self.memory(state)))
        return saved

    def restore(self, abstract: Any, *, replay: Callable[[], Any] | None = None) -> Restored | None:
        """The newest checkpoint that is whole, or None where there is none at all.

        Of a run that saves memories it is the newest with one, so that the run goes on as if never stopped; where none
        has one it is the newest, whose memory is filled anew. Which it is, and why, is told.

        Nothing in the folder changes if it raises. Damaged ones are named in a warning and, once an older one
        has taken their place, set aside.

        `abstract` is a state of ShapeDtypeStructs whose shardings say where to put it. Where its replay was not saved,
        `replay()` makes the one to start with (by default the field is None).

        Raises: Mismatch, SchemaError; CheckpointError where all are damaged.
        """
        damaged: list[pathlib.Path] = []
        for name in distributed.decided(lambda: self._candidates(bool(replay_bytes(abstract)))):
            path = self.folder / name
            try:
                restored, self._last = _restore(path, abstract, replay)
            except Corrupt as error:
                damaged.append(path)
                warnings.warn(f"skipping a damaged checkpoint: {error}", stacklevel=2)
                continue
            self._refilled = not restored.replay_restored
            with distributed.together():
                if distributed.primary():
                    light = [each for each in folders.light(self.folder) if each not in damaged]
                    lost = [each for each in light if folders.number(each) > restored.step]
                    newest = max(map(folders.number, lost), default=None)
                    self._log(telling.chosen(restored, newest, wanted=self._replay, damaged=bool(damaged)))
                    self._tidy(damaged, restored.step)
                    self._passed_over = lost  # removed once the run saves: until then they serve evaluations
            return restored
        if damaged:
            raise CheckpointError(f"{self.folder}: all {len(damaged)} checkpoints are damaged: start a new run")
        with distributed.together():
            if distributed.primary():
                self._tidy([], 0)
        return None

    def latest(self) -> pathlib.Path | None:
        """The newest checkpoint that looks whole."""
        return next(iter(reversed(folders.complete(self.folder))), None)

    def best(self, value: float, step: int, state: Any) -> Saved | None:
        """Keeps the state, without its replay, if `value` is better than that of the best so far; else None.

        A value that is not finite is never better. Raises: as `save`.
        """
        sign = 1 if self._better == "higher" else -1

        def number() -> int | None:
            """Of the folder to write. Not its step: a resumed run may do better at the very step of the best so far."""
            held = self.best_value()
            if self.metric is None or not math.isfinite(value) or (held is not None and sign * value <= sign * held):
                return None
            return max(map(folders.number, folders.numbered(self._best_folder)), default=0) + 1

        if (chosen := distributed.decided(number)) is None:
            return None
        extra = {"metric": self.metric, "value": float(value)}
        saved = self._write(self._best_folder / folders.name(chosen), step, state, None, extra, with_replay=False)
        if distributed.primary():
            folders.prune(self._best_folder, keep=1, memories=False)
        return saved

    def best_value(self) -> float | None:
        """The value of the best checkpoint by this metric, None where there is none."""
        for path in reversed(folders.complete(self._best_folder)):
            extra = files.read_manifest(path).extra
            if extra["metric"] == self.metric:
                return extra["value"]
        return None

    def _candidates(self, memory: bool) -> list[str]:
        """The checkpoints to go on from, the best choice first."""
        folders.recover(self.folder)
        paths = folders.numbered(self.folder)
        if memory and self._replay:
            last = folders.light(self.folder)
            paths = last + [path for path in paths if path not in last]
        return [path.name for path in reversed(paths)]

    def _tidy(self, damaged: list[pathlib.Path], step: int) -> None:
        """Before the run goes on from `step`: removes leftovers and a later best one, sets damaged ones aside."""
        for leftover in [*self.folder.glob("tmp-*"), *self._best_folder.glob("tmp-*")]:
            shutil.rmtree(leftover)
        for bad in damaged:
            os.rename(bad, self.folder / f"tmp-damaged-{bad.name}")  # removed at the next start
        for path in folders.complete(self._best_folder):
            if files.read_manifest(path).step > step:
                folders.remove(path)

    def _write(
        self, final: pathlib.Path, step: int, state: Any, source: Any, extra: Mapping[str, Any], *, with_replay: bool
    ) -> Saved:
        began = time.perf_counter()
        watchdog.passed()
        leaves, ring = files.split(files.flatten(state))
        self._check_finite(step, leaves)
        ring = ring if with_replay else {}
        with distributed.together():
            self._make_folders(final.parent)
            expected = telling.expected_bytes(state)[1] if ring else 0
            files.check_space(final.parent, step, state=files.size_of(leaves), replay=expected)
        making = final.with_name(f"tmp-{final.name}")
        if distributed.primary():
            shutil.rmtree(making, ignore_errors=True)
        try:
            manifest = files.write(making, step=step, state=leaves, replay=ring, source=source, extra=extra)
            with distributed.together():
                if distributed.primary():
                    before = final.with_name(f"{folders.REPLACED}{final.name}")
                    if final.exists():  # of the same step, without its memory
                        os.rename(final, before)
                    os.rename(making, final)
                    files.sync(final.parent)
                    shutil.rmtree(before, ignore_errors=True)
        except Exception as error:
            if distributed.primary():
                shutil.rmtree(making, ignore_errors=True)
                folders.recover(final.parent)
            raise CheckpointError(
                f"{final}: not written ({type(error).__name__}: {error}); earlier checkpoints are untouched. "
                "Free disk space, or set checkpoint.replay=false"
            ) from error
        return Saved(
            step=step,
            path=final,
            bytes=manifest.bytes,
            seconds=time.perf_counter() - began,
            replay_bytes=manifest.replay_bytes,
            resumable=with_replay or not self.memory(state),
        )

    def _make_folders(self, place: pathlib.Path) -> None:
        """Makes `checkpoints` and `place`, not the run's folder above: where that was deleted, the run ends."""
        try:
            self.folder.mkdir(exist_ok=True)
            place.mkdir(exist_ok=True)
        except FileNotFoundError as error:
            raise CheckpointError(f"{self.folder.parent} is gone: nothing can be saved there any more") from error

    def _check_finite(self, step: int, leaves: files.Leaves) -> None:
        since = int(leaves["diverged"]) if "diverged" in leaves else -1
        reason = f"the loss or a gradient was not finite at step {since}" if since >= 0 else None
        floating = {path: leaf for path, leaf in leaves.items() if jnp.issubdtype(leaf.dtype, jnp.inexact)}
        for path, bad in jax.device_get(_not_finite(floating)).items():
            if bad:
                reason = reason or f"{path} is not finite"
        if reason:
            raise NotFinite(f"step {step} is not saved: {reason}; the last good checkpoint is {self.latest()}")


def load(folder: str | os.PathLike, abstract: Any, which: Literal["latest", "best"] | int = "latest") -> Loaded:
    """Reads what `abstract` names, say {"params": ...}, from a run's `checkpoints` folder, changing nothing there.

    `abstract` is any tree of ShapeDtypeStructs whose paths are those of the state; without shardings, arrays go to
    the first device. The newest checkpoint that is whole is taken; damaged ones are named in a warning.

    Raises: CheckpointError where there is none; Mismatch, SchemaError.
    """
    folder = pathlib.Path(folder).absolute()
    place = folder / "best" if which == "best" else folder
    names = distributed.decided(lambda: [path.name for path in folders.numbered(place)])
    for name in reversed([name for name in names if not isinstance(which, int) or int(name) == which]):
        path = place / name
        try:
            manifest = files.agreed(lambda path=path: files.read_manifest(path))
            files.verify(path, manifest, "state/")
            leaves = files.read_state(path, manifest, files.flatten(abstract), partly=True)
        except Corrupt as error:
            warnings.warn(f"skipping a damaged checkpoint: {error}", stacklevel=2)
            continue
        tree = files.unflatten(abstract, leaves)
        return Loaded(step=manifest.step, tree=tree, extra=manifest.extra, path=path)
    held = ", ".join(str(folders.number(path)) for path in folders.complete(folder)) or "none"
    remedy = f"go on with that run (resume={folder.parent}) until one is written"
    raise CheckpointError(f"{folder}: no whole checkpoint '{which}'; steps held: {held}; {remedy}")


def _restore(path: pathlib.Path, abstract: Any, replay: Callable[[], Any] | None) -> tuple[Restored, Saved]:
    manifest = files.agreed(lambda: files.read_manifest(path))
    files.verify(path, manifest, "state/")
    leaves, ring = files.split(files.flatten(abstract))
    source = files.agreed(lambda: files.read_source(path, manifest))
    state = files.read_state(path, manifest, leaves, partly=False)
    has_replay = bool(ring) and bool(manifest.memory)
    if has_replay:
        state |= files.agreed(lambda: files.read_replay(path, manifest, ring))
    elif ring:
        abstract = dataclasses.replace(abstract, replay=None)
    state = files.unflatten(abstract, state)
    if ring and not has_replay and replay is not None:
        state = dataclasses.replace(state, replay=replay())
    restored = Restored(
        step=manifest.step,
        state=state,
        source=source,
        extra=manifest.extra,
        replay_restored=has_replay or not ring,
        path=path,
    )
    known = Saved(
        step=manifest.step,
        path=path,
        bytes=manifest.bytes,
        seconds=0.0,
        replay_bytes=manifest.replay_bytes,
        resumable=True,
    )
    return restored, known


@jax.jit
def _not_finite(leaves: files.Leaves) -> dict[str, jax.Array]:
    """Which leaves hold NaN, or infinity (an optimiser may begin with that: `optax.contrib.reduce_on_plateau`)."""
    finite = {path: leaf for path, leaf in leaves.items() if not path.startswith("opt_state/")}
    return {path: jnp.any(~jnp.isfinite(leaf) if path in finite else jnp.isnan(leaf)) for path, leaf in leaves.items()}
