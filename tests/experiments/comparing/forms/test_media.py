"""Pictures and films side by side: which are chosen, what they cost, what is left out and said."""

import base64
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from core import record, stopping, types
from core.images import datasets
from experiments import compare, evaluate, training
from experiments.comparing.forms import media
from experiments.config import command_line
from generative import evaluation
from tests.experiments.comparing import folders

LIMIT = 200_000_000


@pytest.fixture(scope="module")
def atari():
    return folders.settings("experiment=dqn/atari", "source.game=pong", "tracker=none")


@pytest.fixture(scope="module")
def digits():
    settings = ("experiment=vae/conditional", "source=digits", "tracker=none", "evaluators.samples.count=20")
    return folders.settings(*settings, "evaluators.quality=null")


def _keep(folder, name, x, *, shade=0, unit="images"):
    """A real picture (or, for frames, film) as a run writes it."""
    pixels = np.full((8, 8, 3), shade, np.uint8)
    kept = (
        types.Video(frames=np.stack([pixels] * 4), frames_per_second=4)
        if unit == "frames"
        else types.Image(pixels=pixels)
    )
    book = record.Record(folder, unit, print)
    (path,) = book.keep({name: kept}, x).values()
    book.close()
    return path


def test_films_of_one_seed_at_the_same_frames(atari, tmp_path):
    there = {(0, 0): (100, 300), (0, 1): (100, 200), (1, 1): (200, 400), (1, 2): (200,), (2, 1): (150, 900)}
    for (lag, seed), frames in there.items():
        place = folders.write(tmp_path / f"{lag}-{seed}", atari, [1.0], lag=lag, seed=seed)
        for x in frames:
            _keep(place, "play", x, unit="frames")
    folders.write(tmp_path / "3-1", atari, [1.0], lag=3, seed=1)
    found = folders.compared(*sorted(tmp_path.iterdir()))
    (block,), told = media.blocks(found, tmp_path / "out", "beside", limit=LIMIT)
    assert (block["title"], block["task"]) == ("pong: play", "pong")
    shown = [(item["group"], item["seed"], item["caption"]) for item in block["items"]]
    assert shown == [  # seed 1 is the one of most groups, and 200 frames the last that all of them reach
        ("lag=0", 1, "seed 1, 200 frames"),
        ("lag=1", 1, "seed 1, 200 frames"),
        ("lag=2", 1, "seed 1, 150 frames"),
    ]
    assert block["notes"] == [
        "lag=3: has none",
        "there are none at the same frames in all groups: the nearest are shown",
    ]
    size = 0
    for item in block["items"]:
        copied = (tmp_path / "out" / item["src"]).read_bytes()
        size += len(copied)
        assert copied == (tmp_path / item["file"]).read_bytes() and item["src"].startswith("media/")
    assert told == [f"media: 3 files, {size:,} bytes in {tmp_path / 'out' / 'media'}"]


def test_the_newest_that_all_have_goes_before_the_newest(digits, tmp_path):
    for lag, (seed, images) in enumerate([(0, (10, 20, 30)), (0, (10, 20)), (5, (10, 20, 40))]):
        place = folders.write(tmp_path / str(lag), digits, [1.0], unit="images", lag=lag, seed=seed)
        for x in images:
            _keep(place, "traversals", x)
    found = folders.compared(*sorted(tmp_path.iterdir()), group=("lag",), metrics=(folders.METRIC,))
    (block,), _ = media.blocks(found, tmp_path, "inside", limit=LIMIT)
    assert [item["caption"] for item in block["items"]] == [f"seed {seed}, 20 images" for seed in (0, 0, 5)]
    assert block["notes"] == ["lag=2: has none of seed 0"]


def test_inside_is_the_file_itself_and_none_is_nothing(digits, tmp_path):
    path = _keep(folders.write(tmp_path / "run", digits, [1.0], unit="images"), "manifold", 10, shade=200)
    found = folders.compared(tmp_path / "run", metrics=(folders.METRIC,))
    (block,), told = media.blocks(found, tmp_path / "out", "inside", limit=LIMIT)
    head, _, encoded = block["items"][0]["src"].partition(",")
    assert head == "data:image/png;base64" and base64.b64decode(encoded) == path.read_bytes()
    assert told == [f"media: 1 files, {len(encoded):,} bytes inside the page"]
    assert "src" not in media.content([block])[0]["items"][0] and media.links([block]) == ""
    assert media.blocks(found, tmp_path / "out", "none", limit=LIMIT) == ([], []) and not (tmp_path / "out").exists()


def test_what_is_beyond_the_limit_is_counted(digits, tmp_path):
    for lag in range(3):
        path = _keep(folders.write(tmp_path / str(lag), digits, [1.0], unit="images", lag=lag), "manifold", 10)
    size = path.stat().st_size
    found = folders.compared(*sorted(tmp_path.iterdir()), metrics=(folders.METRIC,))
    blocks, told = media.blocks(found, tmp_path, "beside", limit=2 * size)
    block, left = blocks
    assert [item["group"] for item in block["items"]] == ["lag=0", "lag=1"]
    assert block["notes"][-1].startswith("lag=2: left out") and told[1] == (
        f"media: 1 files of {size:,} bytes are left out: all together may have {2 * size:,}; media_limit=<bytes> "
        "takes more"
    )
    assert left["items"] == [] and [f"media: {note}" for note in left["notes"]] == [told[1]]
    text = media.links(blocks)
    assert "- lag=2: left out" in text and text.partition("## Left out\n\n")[2].startswith(f"- 1 files of {size} ")
    assert media.content(blocks)[1]["notes"] == left["notes"]


def test_a_block_of_which_nothing_can_be_shown_keeps_its_notes(digits, tmp_path):
    place = folders.write(tmp_path / "run", digits, [1.0], unit="images")
    (place / "media").mkdir()
    (place / "media" / "manifold-10.png").write_text("no picture")
    for mode in ("beside", "inside"):
        (block,), told = media.blocks(
            folders.compared(place, metrics=(folders.METRIC,)), tmp_path / "out", mode, limit=LIMIT
        )
        assert block["items"] == [] and block["notes"][0].endswith("is no PNG, or is cut short") and told == []
        assert "cut short" in media.links([block])


def test_pipes_and_devices_are_not_waited_for(digits, tmp_path):
    place = folders.write(tmp_path / "run", digits, [1.0], unit="images")
    (place / "media").mkdir()
    os.mkfifo(place / "media" / "manifold-10.png")
    (place / "media" / "view-10.png").symlink_to("/dev/zero")
    blocks, _ = media.blocks(
        folders.compared(place, metrics=(folders.METRIC,)), tmp_path / "out", "beside", limit=1 << 20
    )
    assert [block["items"] for block in blocks] == [[], []]
    assert all(block["notes"][0].endswith("is not a regular file") for block in blocks)


def test_what_a_file_holds_counts_and_not_what_its_folder_says(digits, tmp_path):
    place = folders.write(tmp_path / "run", digits, [1.0], unit="images")
    (place / "media").mkdir()
    (place / "media" / "view-10.png").symlink_to("/proc/version")  # a regular file that tells 0 bytes
    (block, left), _ = media.blocks(
        folders.compared(place, metrics=(folders.METRIC,)), tmp_path / "out", "inside", limit=9
    )
    assert block["items"] == [] and block["notes"][0].startswith("all runs: left out") and left["notes"]


@pytest.mark.parametrize("made", [None, {}, [{}], [{"items": 3}], [{"items": [{"src": 3}]}], "media", [None]])
def test_an_odd_list_of_media_deletes_nothing(made, tmp_path):
    media.remove(tmp_path, made)


def test_more_than_ten_thousand_are_deleted_and_no_others(tmp_path):
    (tmp_path / "media").mkdir()
    names = ["media/10000-a.png", "media/0001-b.gif", "media/mine.png", "precious.png"]
    for name in names:
        (tmp_path / name).touch()
    media.remove(tmp_path, [{"items": [{"src": src} for src in (*names, "media/../precious.png")]}])
    assert [(tmp_path / name).exists() for name in names] == [False, False, True, True]


def test_broken_files_and_names_from_strangers(digits, tmp_path):
    odd = "<script>../../x</script>"
    place = folders.write(tmp_path / "run", digits, [1.0], unit="images", **{"learner.decoder": odd})
    other = folders.write(tmp_path / "other", digits, [1.0], unit="images")
    whole = _keep(place, "manifold", 10).read_bytes()
    (other / "media").mkdir()
    (other / "media" / "manifold-10.png").write_bytes(whole[:-20])
    (other / "media" / "page-10.png").write_text("<html>")
    (other / "media" / "notes.txt").write_text("no media")
    found = folders.compared(place, other, metrics=(folders.METRIC,), group=("learner.decoder",))
    (block, empty), _ = media.blocks(found, tmp_path / "out", "beside", limit=LIMIT)
    assert empty["items"] == [] and "page-10.png: is no PNG" in empty["notes"][-1]
    (item,) = block["items"]
    assert (
        item["group"] == item["name"] == f"learner.decoder={odd}"
        and (tmp_path / "out" / item["src"]).read_bytes() == whole
    )
    assert item["src"] == "media/0000-manifold-10-learner-decoder-script-x-script.png"
    assert "<script>" not in media.links([block])
    assert [note for note in block["notes"] if "manifold-10.png: is no PNG, or is cut short" in note]


def test_real_images_are_laid_out_as_the_samples(digits, tmp_path):
    place = folders.write(
        tmp_path / "run", digits, [1.0], unit="images", protocol={"class_counts": [150] * 10, "images": 1437}
    )
    _keep(place, "samples", 10)
    (block,), _ = media.blocks(
        folders.compared(place, metrics=(folders.METRIC,)), tmp_path / "out", "beside", limit=LIMIT
    )
    assert [item["group"] for item in block["items"]] == ["real images", "all runs"]
    sheet = np.asarray(Image.open(tmp_path / "out" / block["items"][0]["src"]))
    assert sheet.shape == (10 * 10 - 2, 2 * 10 - 2, 3)  # a row for each class, two images of 8 pixels
    train = datasets.Digits().load("train")
    for label in range(10):
        one = sheet[10 * label : 10 * label + 8, :8, 0]
        assert any(np.array_equal(one, image[..., 0]) for image in train.image[train.label == label])


def test_the_real_grid_without_classes_and_with_few_of_a_class():
    grid = evaluation.Samples(data=datasets.Digits(), count=9).real(0)
    assert grid.shape == (28, 28, 3)
    with pytest.raises(ValueError, match="data=null"):
        evaluation.Samples(count=9).real(0)


@pytest.mark.parametrize("data", ["far", "moved"])
def test_data_that_are_not_here_are_not_fetched(data, digits, tmp_path, monkeypatch):
    node = {"_target_": "core.images.datasets.Cifar10", "folder": None}
    if data == "moved":
        node = {"_target_": "core.images.datasets.Npz", "path": "/nowhere/images.npz", "classes": None}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = folders.write(tmp_path / "run", digits, [1.0], unit="images", **{"evaluators.samples.data": node})
    _keep(place, "samples", 10)
    (block,), _ = media.blocks(
        folders.compared(place, metrics=(folders.METRIC,)), tmp_path / "out", "beside", limit=LIMIT
    )
    assert [item["group"] for item in block["items"]] == ["all runs"]
    assert block["notes"][-1].startswith("no real images: ")
    assert ("CIFAR-10 is not here" if data == "far" else "/nowhere/images.npz") in block["notes"][-1]


def _typed(monkeypatch, command, *typed):
    monkeypatch.setattr(sys, "argv", [command.__name__, *map(str, typed)])
    command.main()


def test_the_command_copies_and_clears(digits, tmp_path, monkeypatch, capsys):
    place = folders.write(tmp_path / "run", digits, [1.0], unit="images")
    _keep(place, "samples", 10)
    out = tmp_path / "out"
    (out / "media").mkdir(parents=True)
    (out / "media" / "mine.png").write_text("mine")
    _typed(monkeypatch, compare, f"runs={place}", f"out={out}", f"metric={folders.METRIC}")
    assert len(list((out / "media").iterdir())) == 3 and "media: 2 files, " in capsys.readouterr().out
    found = json.loads((out / "report.json").read_text())["media"]
    assert found[0]["items"][0]["group"] == "real images"
    assert f"]({found[0]['items'][1]['src']})" in (out / "report.md").read_text()
    _typed(monkeypatch, compare, f"runs={place}", f"out={out}", f"metric={folders.METRIC}", "media=none")
    assert [path.name for path in (out / "media").iterdir()] == ["mine.png"]


@pytest.mark.long
def test_runs_that_were_trained_lie_side_by_side(tmp_path, monkeypatch):
    for seed in range(2):
        typed = ("experiment=dqn/atari", "source.game=pong", "network.make.torso.width=2", "evaluators=none")
        place = tmp_path / "dqn" / str(seed)
        training.train(command_line.compose(*typed, f"seed={seed}", "+debug=tiny"), place, stop=stopping.Stop())
        _typed(monkeypatch, evaluate, f"run={place}", "episodes=1", "video=true")
    typed = ("experiment=vae/conditional", "source=digits", "evaluators.quality=null", "tracker=none", "+debug=tiny")
    training.train(command_line.compose(*typed), tmp_path / "vae", stop=stopping.Stop())
    runs = f"runs=[{tmp_path}/dqn,{tmp_path}/vae]"
    _typed(monkeypatch, compare, runs, "group=[seed]", "metric=*loss*", f"out={tmp_path}/out")
    found = {block["title"]: block for block in json.loads((tmp_path / "out" / "report.json").read_text())["media"]}
    assert [item["caption"] for item in found["pong: play"]["items"]] == ["seed 0, 640 frames", "seed 1, 640 frames"]
    samples = [tmp_path / "out" / item["src"] for item in found["digits: samples"]["items"]]
    shapes = [np.asarray(Image.open(path)).shape for path in samples]
    assert len(shapes) == 2 and shapes[0] == shapes[1]  # real and drawn alike
