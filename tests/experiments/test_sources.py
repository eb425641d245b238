"""The files in conf/source that give images."""

import pathlib

import pytest

from core.images import stream
from experiments.config import build, command_line

WITHOUT = ("~learner", "~network", "~optimizer", "~evaluators")
NAMES = sorted(file.stem for file in (command_line.CONF / "source").glob("*.yaml"))
NEEDED = {"npz": ["source.path=x.npz"], "image_folder": ["source.folder=images"], "stream": ["source.data=null"]}
IMAGES = [name for name in NAMES if name not in ("atari", "gymnasium", "stream")]


@pytest.mark.parametrize("name", IMAGES)
def test_source_files_name_what_exists(name: str):
    settings = command_line.compose(f"source={name}", *NEEDED.get(name, []), "source.batch=16", "seed=3", *WITHOUT)
    call = build.plan(settings["source"], "source")
    assert call.target is stream.Stream and call.arguments["batch"] == 16 and call.arguments["seed"] == 3
    recipe = build.objects(settings["source"]["data"])
    assert hash(recipe) is not None and callable(recipe.load)


def test_every_source_of_the_issue_is_there():
    wanted = {"fashion_mnist", "mnist", "mnist_5k", "digits", "cifar10", "npz", "image_folder", "atari_frames"}
    assert wanted == set(IMAGES)


def test_a_source_is_built_from_its_file():
    pytest.importorskip("sklearn")
    source = build.objects(command_line.compose("source=digits", "source.batches=2", *WITHOUT)["source"], "source")
    try:
        assert source.spec.image.shape == (2, 128, 8, 8, 1)
    finally:
        source.close()


def test_a_mistake_is_told_under_its_key(tmp_path: pathlib.Path):
    settings = command_line.compose("source=digits", "source.batch=0", *WITHOUT)
    with pytest.raises(build.ConfigError, match=r"^source\.batch=0: must be at least 1"):
        build.objects(settings["source"], "source")
    settings = command_line.compose("source=npz", f"source.path={tmp_path}/no.npz", *WITHOUT)
    with pytest.raises(build.ConfigError, match=r"^source: path=.*no such file"):
        build.objects(settings["source"], "source")
