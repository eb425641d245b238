"""Pictures and films as files, from uint8 arrays: image grids, PNG, GIF, and MP4 that browsers play.

A film is kept under a number of bytes by giving up length first, then resolution, then quality; its size is read
from the file that was written.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import IO

import numpy as np
from PIL import Image

from core import distributed, types

LIMIT = 5_000_000  # bytes
SIDE = 4_096  # pixels: no sheet of images is wider or higher, so that browsers and W&B show it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """What a film became on its way into the file."""

    path: pathlib.Path
    bytes: int
    seconds: float
    width: int
    height: int
    quality: int  # MP4: constant rate factor, lower is better; GIF: number of colours


def grid(images: np.ndarray, *, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """Images side by side on black: uint8 [B, H, W, 3] (or [B, H, W, 1], [B, H, W]) -> [rows, columns, 3] of pixels.

    Of rows and columns beyond `SIDE` pixels the last are left out, which is said in a line.
    """
    images = _colour(images, batched=True)
    count, height, width, _ = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    most_rows, most_columns = fitting(height, width, gap=gap)
    rows, across = min(math.ceil(count / columns), most_rows), min(columns, most_columns)
    sheet = np.zeros((rows * (height + gap) - gap, across * (width + gap) - gap, 3), np.uint8)
    shown = 0
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        if row < rows and column < across:
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = image
            shown += 1
    if shown < count:
        told = f"{shown:,} of {count:,} images are shown, since a side has at most {SIDE:,} pixels"
        distributed.say(f"image grid: {told}")
    return sheet


def fitting(height: int, width: int, *, gap: int = 2) -> tuple[int, int]:
    """How many rows and columns of images a sheet of `SIDE` pixels holds: at least one of each."""
    return max(1, (SIDE + gap) // (height + gap)), max(1, (SIDE + gap) // (width + gap))


def write_png(file: str | os.PathLike | IO[bytes], pixels: np.ndarray) -> None:
    """Uint8 [H, W, 3], [H, W, 1] or [H, W]."""
    Image.fromarray(_colour(pixels, batched=False)).save(file, format="PNG")


def write_gif(
    path: str | os.PathLike,
    video: types.Video,
    *,
    limit: int = LIMIT,
    max_seconds: float = 20.0,
    height: int = 420,
    frames_per_second: float = 15.0,
) -> Written:
    """A film that loops, with one palette for all its frames (so that nothing flickers).

    Frames are dropped evenly down to about `frames_per_second` (players slow down above 50), never the speed.
    Raises: ValueError where even the last resort exceeds `limit` bytes.
    """
    stride = max(1, round(video.frames_per_second / frames_per_second))
    thinned = types.Video(frames=video.frames[::stride], frames_per_second=video.frames_per_second / stride)
    return _fit(_gif, pathlib.Path(path), thinned, limit, max_seconds, height, qualities=(256, 64, 16))


def write_mp4(
    path: str | os.PathLike,
    video: types.Video,
    *,
    limit: int = LIMIT,
    max_seconds: float = 60.0,
    height: int = 420,
) -> Written:
    """H.264 in yuv420p with its index in front, which browsers begin to play before all of it has arrived.

    Raises: ValueError where even the last resort exceeds `limit` bytes.
    """
    return _fit(_mp4, pathlib.Path(path), video, limit, max_seconds, height, qualities=(20, 28, 36))


def _fit(write, path: pathlib.Path, video: types.Video, limit, max_seconds, height, *, qualities) -> Written:
    """Writes attempt after attempt, each smaller, until one is under the limit."""
    frames = _colour(video.frames, batched=True)
    if not len(frames):
        raise ValueError(f"{path.name}: a film of no frames; record at least one")
    longest = min(max_seconds, len(frames) / video.frames_per_second)
    for seconds, tall, quality in _attempts(longest, height, qualities):
        kept = frames[: max(1, round(seconds * video.frames_per_second))]
        resized = (_even(_resize(frame, tall)) for frame in kept)  # one at a time: magnified films are large
        write(path, resized, len(kept), video.frames_per_second, quality)
        size = path.stat().st_size
        if size <= limit:
            tall, wide, _ = _even(_resize(kept[0], tall)).shape
            shown = len(kept) / video.frames_per_second
            return Written(path=path, bytes=size, seconds=shown, width=wide, height=tall, quality=quality)
    path.unlink()
    raise ValueError(f"{path.name}: {size:,} bytes in its smallest form, {limit:,} allowed; film less, or raise limit")


def _attempts(seconds: float, height: int, qualities: tuple[int, ...]) -> Iterator[tuple[float, int, int]]:
    """(seconds, height, quality), from what was asked for downwards: half the length, half the height, quality."""
    yield seconds, height, qualities[0]
    yield seconds / 2, height, qualities[0]
    yield seconds / 2, height // 2, qualities[0]
    for quality in qualities[1:]:
        yield seconds / 2, height // 2, quality
    yield seconds / 8, height // 2, qualities[-1]


def _gif(path: pathlib.Path, frames: Iterator[np.ndarray], count: int, rate: float, colours: int) -> None:
    pictures = [Image.fromarray(frame) for frame in frames]
    some = np.concatenate([np.asarray(picture) for picture in pictures[:: math.ceil(count / 16)]])
    palette = Image.fromarray(some).quantize(colours, dither=Image.Dither.NONE)
    images = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    ends = np.rint(np.arange(1, count + 1) * 100 / rate)  # hundredths of a second, GIF's unit
    durations = [int(10 * hundredths) for hundredths in np.diff(ends, prepend=0)]
    images[0].save(path, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)


def _mp4(path: pathlib.Path, frames: Iterator[np.ndarray], count: int, rate: float, factor: int) -> None:
    import imageio_ffmpeg  # here, because it brings an ffmpeg, and a grid or a PNG needs none

    del count
    first = next(frames)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{first.shape[1]}x{first.shape[0]}", "-r", f"{rate:g}"]
    coded = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", f"{factor}", "-movflags", "+faststart", "-f", "mp4"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *raw, "-i", "-", *coded, str(path)]
    # Not imageio_ffmpeg.write_frames: it asks for a fork, which JAX's threads may not survive. The session of its own
    # keeps a Ctrl-C, which is ours to handle, from the encoder.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as encoder:
        assert encoder.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the encoder's own words, read below, say more
            for frame in itertools.chain([first], frames):
                encoder.stdin.write(frame.tobytes())
        complaint = encoder.communicate()[1].decode()
    if encoder.returncode:
        raise OSError(f"{path}: ffmpeg could not write it: {complaint.strip()}")


def _resize(frame: np.ndarray, height: int) -> np.ndarray:
    """By a whole factor, so that pixel art stays sharp: as large as fits `height`, or averaged down to fit it."""
    times = height // frame.shape[0]
    if times >= 1:
        return frame.repeat(times, axis=0).repeat(times, axis=1)
    return np.asarray(Image.fromarray(frame).reduce(math.ceil(frame.shape[0] / height)))


def _even(frame: np.ndarray) -> np.ndarray:
    """Even height and width, by repeating the last line: yuv420p halves both."""
    return np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)], mode="edge")


def _colour(images: np.ndarray, *, batched: bool) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(f"images of dtype {images.dtype}: uint8 in [0, 255] is what is written")
    if images.ndim == 2 + batched:
        images = images[..., None]
    if images.ndim != 3 + batched or images.shape[-1] not in (1, 3):
        raise ValueError(f"images of shape {images.shape}: [H, W], [H, W, 1] or [H, W, 3] is what is written")
    return images if images.shape[-1] == 3 else images.repeat(3, axis=-1)
