"""What is said of checkpoints: how large they are, and which a run goes on from."""

from typing import Any

import jax.numpy as jnp

from core.checkpoints import files

# Frames of five games under a random policy, 1,500 rows of 8 streams each: a 45th (Road Runner) to a 250th (Breakout).
_COMPRESSED = 20


def replay_bytes(state: Any) -> int:
    """What the replay of a state (or of its shapes) takes in memory."""
    return files.size_of(files.split(files.flatten(state))[1])


def expected_bytes(abstract: Any) -> tuple[int, int]:
    """(state, replay) on the disk: what it takes at most, and what a replay of game frames usually takes."""
    state, replay = files.split(files.flatten(abstract))
    frames = {path: leaf for path, leaf in replay.items() if leaf.dtype == jnp.uint8}
    rest = {path: leaf for path, leaf in replay.items() if path not in frames}
    return files.size_of(state), files.size_of(frames) // _COMPRESSED + files.size_of(rest)


def cost(saved: Any, keep: int, state: Any, *, memory: bool) -> str:
    line = f"checkpoint: {files.readable(saved.bytes)} in {saved.seconds:.2f} s"
    if saved.replay_bytes:
        line += f", of it {files.readable(saved.replay_bytes)} replay (checkpoint.replay=false leaves it out)"
    elif left_out := replay_bytes(state):
        line += f", without the replay's {files.readable(left_out)} (checkpoint.replay=true saves it)"
    kept = f"{keep} are kept" if not memory else f"{keep} are kept, and the newest {keep} with the replay"
    return f"{line}; {kept}: {files.readable(keep * saved.bytes)}"


def chosen(restored: Any, newest: int | None, *, wanted: bool, damaged: bool) -> str:
    """Which checkpoint a run goes on from, and why."""
    line = f"goes on from the checkpoint of step {restored.step:,}"
    last = "the newest that is whole" if damaged else "the newest"
    if newest is not None:
        return (
            f"{line}, the newest with its replay; the {newest - restored.step:,} steps up to that of step {newest:,}, "
            "which has none, are made again"
        )
    if not restored.replay_restored:
        why = "since it was saved without one that this version reads" if wanted else "as checkpoint.replay=false says"
        return f"{line}, {last}; its replay is filled anew, {why}"
    return f"{line}, {last}"
