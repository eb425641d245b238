"""Files are opened again by other readers: what counts is what they find."""

import pathlib
import re
import subprocess
from typing import NamedTuple

import imageio_ffmpeg
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageSequence

from core import distributed, media, types


def film(count: int, *, height: int = 210, width: int = 160, rate: float = 30.0, noise: bool = False) -> types.Video:
    """A bright square that moves over a dark ground, or noise, which nothing compresses."""
    random = np.random.default_rng(0)
    frames = np.full((count, height, width, 3), (40, 60, 20), np.uint8)
    for t in range(count):
        frames[t, 10:20, (3 * t) % (width - 10) : (3 * t) % (width - 10) + 10] = (230, 120, 60)
    if noise:
        frames = random.integers(0, 256, frames.shape).astype(np.uint8)
    return types.Video(frames=frames, frames_per_second=rate)


class Opened(NamedTuple):
    """What ffmpeg finds in a file: its own words on the stream, and the decoded frames [T, H, W, 3]."""

    stream: str
    frames: np.ndarray


def opened(path: pathlib.Path) -> Opened:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    run = subprocess.run(command, capture_output=True, check=True)
    stream = next(line for line in run.stderr.decode().splitlines() if "Video:" in line)
    found = re.search(r", (\d+)x(\d+)", stream)
    assert found is not None
    width, height = map(int, found.groups())
    return Opened(stream, np.frombuffer(run.stdout, np.uint8).reshape(-1, height, width, 3))


def test_grid_places_images_row_by_row():
    images = np.arange(1, 6, dtype=np.uint8)[:, None, None].repeat(4, axis=1).repeat(3, axis=2)  # [5, 4, 3]
    sheet = media.grid(images, columns=3, gap=1)
    assert sheet.shape == (2 * 5 - 1, 3 * 4 - 1, 3)
    assert sheet[0, 0, 0] == 1 and sheet[0, 8, 0] == 3 and sheet[5, 4, 2] == 5
    assert sheet[4].max() == 0 and sheet[5:, 8:].max() == 0  # the gap and the missing sixth image


@pytest.mark.parametrize("columns, shape", [(1, (4096, 30)), (1_000, (30, 4096)), (None, (1022, 1022))])
def test_a_sheet_has_no_more_pixels_than_browsers_show(
    columns: int | None, shape: tuple, capsys: pytest.CaptureFixture
):
    distributed.say.cache_clear()  # a line is said once
    images = np.arange(1_000, dtype=np.uint32).astype(np.uint8)[:, None, None].repeat(30, axis=1).repeat(30, axis=2)
    sheet = media.grid(images, columns=columns)
    assert sheet.shape[:2] == tuple(min(side, 4_096 // 32 * 32 - 2) for side in shape)
    shown = 1_000 if columns is None else 128
    line = f"image grid: {shown} of 1,000 images are shown, since a side has at most 4,096 pixels"
    told = line in capsys.readouterr().out
    assert told == (shown < 1_000)
    assert media.grid(np.zeros((2, 5_000, 8), np.uint8), columns=1).shape == (5_000, 8, 3)  # one image at least


def test_png_holds_the_pixels_unchanged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    media.write_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)
    media.write_png(tmp_path / "grey.png", pixels[..., 0])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "grey.png"))[..., 1], pixels[..., 0])


@pytest.mark.parametrize("rate", [60.0, 15.0])
def test_mp4_is_h264_that_browsers_play(tmp_path, rate):
    video = film(31, rate=rate)
    written = media.write_mp4(tmp_path / "a.mp4", video)
    stream, frames = opened(written.path)
    assert "h264" in stream and "yuv420p" in stream and f"{rate:g} fps" in stream
    assert frames.shape == (31, 420, 320, 3)
    assert (written.height, written.width) == (420, 320)
    data = written.path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat") and len(data) == written.bytes
    assert np.abs(frames[:, ::2, ::2].astype(int) - video.frames).mean() < 3


def test_mp4_is_written_beside_a_running_jax(tmp_path):
    jnp.zeros(()).block_until_ready()  # from now on a fork warns, and a warning fails the test
    assert media.write_mp4(tmp_path / "a.mp4", film(2)).bytes > 0


def test_mp4_of_odd_size_becomes_even_and_large_ones_are_averaged_down(tmp_path):
    odd = media.write_mp4(tmp_path / "a.mp4", film(3, height=301, width=33))
    assert opened(odd.path).frames.shape == (3, 302, 34, 3)
    large = media.write_mp4(tmp_path / "b.mp4", film(3, height=600, width=80))
    assert opened(large.path).frames.shape == (3, 300, 40, 3)


def test_gif_keeps_colours_time_and_size(tmp_path):
    video = film(40, rate=30.0)
    written = media.write_gif(tmp_path / "a.gif", video)
    with Image.open(written.path) as image:
        assert image.size == (320, 420) == (written.width, written.height)
        assert image.info["loop"] == 0
        pictures = [(np.asarray(each.convert("RGB")), each.info["duration"]) for each in ImageSequence.Iterator(image)]
    assert len(pictures) == 20  # 15 a second out of 30
    assert sum(duration for _, duration in pictures) == pytest.approx(40 / 30 * 1000, abs=10)
    for (shown, _), wanted in zip(pictures, video.frames[::2], strict=True):
        assert np.abs(shown[::2, ::2].astype(int) - wanted).max() <= 4
    assert written.path.stat().st_size == written.bytes


def test_length_is_capped_before_resolution_and_resolution_before_quality(tmp_path):
    video = film(8, rate=4.0, noise=True)
    full = media.write_mp4(tmp_path / "a.mp4", video)
    assert (full.seconds, full.height) == (2.0, 420)
    shorter = media.write_mp4(tmp_path / "a.mp4", video, limit=int(full.bytes * 0.7))
    assert (shorter.seconds, shorter.height, shorter.quality) == (1.0, 420, full.quality)
    smaller = media.write_mp4(tmp_path / "a.mp4", video, limit=int(shorter.bytes * 0.9))
    assert (smaller.seconds, smaller.height, smaller.quality) == (1.0, 210, full.quality)
    coarser = media.write_mp4(tmp_path / "a.mp4", video, limit=int(smaller.bytes * 0.9))
    assert (coarser.seconds, coarser.height) == (1.0, 210) and coarser.quality > full.quality
    for written, limit in ((shorter, full.bytes * 0.7), (smaller, shorter.bytes * 0.9), (coarser, smaller.bytes * 0.9)):
        assert written.bytes <= limit
    assert len(opened(coarser.path).frames) == 4


def test_gif_stays_under_its_limit(tmp_path):
    written = media.write_gif(tmp_path / "a.gif", film(6, rate=15.0, noise=True), limit=150_000)
    assert written.path.stat().st_size <= 300_000


def test_a_film_that_cannot_be_written_says_why(tmp_path):
    with pytest.raises(OSError, match=r"a\.mp4: ffmpeg could not write it: .*No such file or directory"):
        media.write_mp4(tmp_path / "missing" / "a.mp4", film(2))


def test_what_never_fits_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"a\.gif: .* bytes in its smallest form, 100 allowed"):
        media.write_gif(tmp_path / "a.gif", film(8, noise=True), limit=100)
    assert not (tmp_path / "a.gif").exists()


@pytest.mark.parametrize(
    ("pixels", "words"),
    [(np.zeros((4, 4, 3)), "float64: uint8"), (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)")],
)
def test_other_arrays_are_refused(tmp_path, pixels, words):
    with pytest.raises(ValueError, match=words):
        media.write_png(tmp_path / "a.png", pixels)
