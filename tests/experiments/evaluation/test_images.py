"""Models of images from the first command to the last: trained, judged, sampled from, loaded in Python."""

import dataclasses
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from core import loop, media, stopping, types
from core.images import datasets
from experiments import runs, training
from experiments.config import build, command_line, saved
from experiments.evaluation import classifiers, command, samples
from generative import averaging, calls

FAMILIES = {
    "vae": (
        "experiment=demo/vae",
        "network.latent=4",
        "network.make.encoder.widths=[64]",
        "network.make.decoder.widths=[64]",
        "optimizer.learning_rate=5e-3",
        "source.dispatch=10",
        "budget=20_000",
    ),
    "gan": (
        "experiment=demo/gan",
        "network.latent=8",
        "network.widths=[16]",
        "optimizer.learning_rate=5e-3",
        "source.dispatch=8",
        "budget=20_480",
    ),
    "diffusion": (
        "experiment=demo/diffusion",
        "network.make.patch=4",
        "network.make.width=32",
        "network.make.depth=1",
        "optimizer.learning_rate=5e-3",
        "optimizer.schedule.warmup=1_000",
        "sampler.steps=6",
        "source.dispatch=10",
        "budget=20_000",
    ),
}
COUNT = 150  # images that are judged
SIZES = {"image": (28, 28, 1), "classes": 10}
NOISE = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 1), np.uint8)


@dataclasses.dataclass(frozen=True)
class Run:
    family: str
    folder: Path
    outcome: loop.Outcome

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]


def train(family: str, folder: Path, *typed: str) -> Run:
    return Run(family, folder, training.train(command_line.compose(*typed), folder, stop=stopping.Stop()))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    typed = ("experiment=classifier/mlp", "source=digits", "network.make.widths=[16]", "budget=20_000")
    folder = tmp_path_factory.mktemp("runs") / "classifier"
    return train("classifier", folder, *typed, "tracker=none", "evaluators=none").folder


def judged(family: str, folder: Path, classifier: Path, *typed: str) -> Run:
    """A run on digits, judged at its half and its end in the classifier's features."""
    budget = next(int(line.removeprefix("budget=")) for line in FAMILIES[family] if line.startswith("budget="))
    return train(
        family,
        folder / family,
        *FAMILIES[family],
        "evaluators=images",
        f"log_every={budget // 10}",
        f"evaluators.samples.every={budget // 2}",
        "evaluators.samples.count=20",
        "evaluators.held_out=null",
        f"evaluators.quality.every={budget // 2}",
        "evaluators.quality.features._target_=experiments.evaluation.classifiers.Judge",
        f"+evaluators.quality.features.run={classifier}",
        f"evaluators.quality.count={COUNT}",
        "evaluators.quality.batch=50",
        "evaluators.quality.block=50",
        "evaluators.quality.alarm=0",
        *typed,
    )


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory, classifier: Path) -> Run:
    return judged("vae", tmp_path_factory.mktemp("runs"), classifier)


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory, classifier: Path) -> Run:
    return judged("gan", tmp_path_factory.mktemp("runs"), classifier, "tracker=none")


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory, classifier: Path) -> Run:
    return judged("diffusion", tmp_path_factory.mktemp("runs"), classifier, "tracker=none")


@pytest.fixture(params=FAMILIES)
def trained(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue(request.param)


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`python -m experiments.<name> <typed>` in a folder of its own."""

    def run(name: str, *typed: str) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(sys, "argv", [name, *typed])
        command_line.main({"sample": samples.task, "evaluate": command.task}[name], name=name)

    return run


# ---- training ----


def test_the_loss_falls_and_samples_beat_noise(trained: Run):
    losses = [row["loss/total"] for row in trained.rows if "loss/total" in row]
    if trained.family == "gan":  # its losses are two players', who keep each other where they are
        assert not losses
    else:
        assert losses[-1] < 0.9 * losses[0], losses
    quality: Any = runs.load(trained.folder).objects.evaluators["quality"]
    found = [row["eval/fid"] for row in trained.rows if "eval/fid" in row]
    noise = quality.judge(NOISE)["eval/fid"]
    assert len(found) == 2 and found[-1] < 0.3 * noise, (found, noise)


def test_grids_of_samples_lie_in_the_runs_folder_and_in_wandb(trained: Run):
    half, whole = (trained.outcome.examples // part for part in (2, 1))
    grids = [trained.folder / "media" / f"samples-{images}.png" for images in (half, whole)]
    for path in grids:
        with Image.open(path) as picture:
            assert len(set(picture.convert("L").tobytes())) > 10
    assert grids[0].read_bytes() != grids[1].read_bytes()
    shown = [*trained.folder.glob("wandb/offline-run-*/files/media/images/samples*.png")]
    assert len(shown) == (2 if trained.family == "vae" else 0)  # the others have no tracker


def test_what_is_loaded_are_the_averaged_weights(diffusion: Run):
    """Pitfall 13: samples and checkpoints have the average, which is not what the last update left."""
    state: Any = diffusion.outcome.state
    loaded = runs.load(diffusion.folder).view["params"]
    jax.tree.map(np.testing.assert_array_equal, loaded, state.ema_params["ema"])
    apart = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), loaded, state.params)
    assert max(jax.tree.leaves(apart)) > 1e-3


def test_a_power_function_average_is_taken_from_the_command_line():
    typed = ("~learner.averages.ema", "+learner.averages.power={_target_: generative.averaging.Power, std: 0.1}")
    settings = command_line.compose("experiment=diffusion/fashion_mnist", *typed)
    assert build.check(settings).arguments["learner"].make(sizes=SIZES).averages == {"power": averaging.Power(std=0.1)}


# ---- in Python ----


def test_three_lines_of_python_as_the_readme_shows_them(trained: Run):
    readme = (command_line.CONF.parent / "README.md").read_text()
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "runs.load(" in block]
    shown = re.sub(r'runs\.load\(".*?"\)', f"runs.load({str(trained.folder)!r})", block)
    assert len([line for line in shown.splitlines() if line]) == 3
    found: dict[str, Any] = {}
    exec(textwrap.dedent(shown), found)
    assert (found["images"].shape, found["images"].dtype) == ((16, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(found["model"].sample(16, seed=0), found["images"])
    assert len({image.tobytes() for image in found["images"]}) == 16


# ---- experiments.sample ----


def test_samples_are_written_with_how_they_were_made(trained: Run, run_command, tmp_path: Path, capsys):
    run_command("sample", f"run={trained.folder}", "count=5", "batch=3", "seed=2", "out=drawn.npz")
    assert "5 images of" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"drawn.npz", "drawn.png"}
    with np.load(tmp_path / "drawn.npz") as found:
        drawn = dict(found)
    assert (drawn["image"].shape, drawn["image"].dtype) == ((5, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(drawn["seed"], [2, 3, 4, 5, 6])
    about = json.loads(str(drawn["about"]))
    assert about["run"] == str(trained.folder) and about["images"] == trained.outcome.examples
    assert (about["sampler"] is None) == (trained.family != "diffusion")
    model, label = runs.load(trained.folder), drawn.get("label")
    if trained.family == "diffusion":
        np.testing.assert_array_equal(label, [2, 3, 4, 5, 6])  # by the seed, so that an image is its seed's alone
    else:
        assert label is None
    again = model.sample(5, seed=2, label=label)
    assert np.abs(again.astype(int) - drawn["image"]).max() <= 1  # other batches, other rounding
    with Image.open(tmp_path / "drawn.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), media.grid(drawn["image"]))


def test_label_guidance_sampler_and_steps_are_taken_from_the_command_line(diffusion: Run, run_command, tmp_path: Path):
    typed = (f"run={diffusion.folder}", "count=4", "label=3")
    run_command("sample", *typed, "guidance=3", "sampler=euler", "steps=5")
    run_command("sample", *typed, "out=plain.npz")
    with np.load(tmp_path / "samples.npz") as found, np.load(tmp_path / "plain.npz") as plain:
        assert (found["image"] != plain["image"]).any()
        np.testing.assert_array_equal(found["label"], [3] * 4)
        about = json.loads(str(found["about"]))["sampler"]
        model = runs.load(diffusion.folder)
        sampler = build.objects(
            command_line.compose(f"run={diffusion.folder}", "sampler=euler", name="sample")["sampler"]
        )
        sampler = dataclasses.replace(sampler, steps=5, guidance=3.0)
        assert about == str(sampler)
        expected = model.sample(4, label=np.full(4, 3), sampler=sampler)
        assert np.abs(expected.astype(int) - found["image"]).max() <= 1


@pytest.mark.long
def test_what_is_missing_of_images_is_filled_in(diffusion: Run, gan: Run, run_command, capsys, tmp_path: Path):
    test, mask = datasets.Digits().load("test"), np.zeros((8, 8), bool)
    mask[:, 4:] = True
    np.savez(tmp_path / "torn.npz", image=test.image[:3], mask=mask)
    typed = ("sample", f"run={diffusion.folder}", "inpaint=torn.npz", "steps=3")
    run_command(*typed, "count=5", "batch=2")
    with np.load(tmp_path / "samples.npz") as found:
        image, about = found["image"], json.loads(str(found["about"]))
    torn = test.image[[0, 1, 2, 0, 1]]
    np.testing.assert_array_equal(image[:, :, :4], torn[:, :, :4])
    assert (image[:, :, 4:] != torn[:, :, 4:]).any() and (image[0] != image[3]).any()  # another seed, other pixels
    assert about["inpaint"] == "torn.npz"
    run_command(*typed, "count=5", "batch=2", "label=4")
    with np.load(tmp_path / "samples.npz") as found:
        assert (found["image"] != image).any() and (found["label"] == 4).all()  # before, none was asked for
    refused(run_command, capsys, "inpaint=torn.npz: GAN cannot", "sample", f"run={gan.folder}", "inpaint=torn.npz")
    refused(run_command, capsys, "inpaint=no.npz: an .npz with `image`", *typed[:2], "inpaint=no.npz")
    for name, wrong, told in [
        ("big", {"image": np.zeros((1, 9, 9, 1), np.uint8), "mask": True}, "its images are uint8 (1, 9, 9, 1)"),
        ("real", {"image": np.zeros((1, 8, 8, 1)), "mask": True}, "its images are float64 (1, 8, 8, 1)"),
        ("none", {"image": test.image[:1]}, "an .npz with `image`"),
        ("odd", {"image": test.image[:2], "mask": np.zeros((3, 8, 8))}, "an .npz with `image`"),
    ]:
        np.savez(tmp_path / f"{name}.npz", **wrong)
        refused(run_command, capsys, f"inpaint={name}.npz: {told}", *typed[:2], f"inpaint={name}.npz")


def test_images_are_the_same_however_small_the_calls_of_the_device(diffusion: Run, monkeypatch):
    """A call takes all evaluations of a batch, or one of one image; the bar hears of each call."""
    model = runs.load(diffusion.folder)
    sampler = dataclasses.replace(model.learner.sampler, steps=2)
    told: dict[float, list[int]] = {1e10: [], 1.0: []}
    images = []
    for limit, heard in told.items():
        monkeypatch.setattr(calls, "CPU", limit)
        images.append(model.sample(6, sampler=sampler, batch=4, progress=heard.append).astype(int))
    assert list(told.values()) == [[4, 6], [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6]]  # 3 evaluations
    assert np.abs(images[0] - images[1]).max() <= 1  # rounding depends on the batch


SAMPLE_MISTAKES = [
    ("diffusion", "count=0", "count=0: must be at least 1"),
    ("diffusion", "seed=-1", "seed=-1: must lie in 0..4294967295"),
    ("vae", "seed=4294967290", "seed=4294967290: must be at most 4294967232, for 64 seeds from"),
    ("diffusion", "out=x.png", "out=x.png: must end with .npz"),
    ("diffusion", "out=no/x.npz", "out=no/x.npz: there is no folder no"),
    ("diffusion", "label=10", "label=10: the classes are 0 to 9"),
    ("diffusion", "steps=0", "steps=0: must be at least 1"),
    ("diffusion", "guidance=-1", "guidance=-1.0: must be at least 0"),
    ("diffusion", "sampler=heunn", "sampler=heunn: no such choice; did you mean heun?"),
    ("diffusion", "which=last", "which=last: should be 'latest' or 'best'"),
    ("diffusion", "stepps=3", "stepps: no such key; did you mean steps?"),
    ("gan", "label=1", "was trained without labels; leave it out"),
    ("gan", "sampler=heun", "has no sampler to choose; only diffusion models have"),
    ("vae", "guidance=2", "has no sampler to choose"),
]


@pytest.mark.parametrize(
    "family, typed, told", SAMPLE_MISTAKES, ids=[f"{f} {typed}" for f, typed, _ in SAMPLE_MISTAKES]
)
def test_a_mistake_in_sampling_is_told(
    request, run_command, capsys, tmp_path: Path, family: str, typed: str, told: str
):
    refused(run_command, capsys, told, "sample", f"run={request.getfixturevalue(family).folder}", typed)
    assert list(tmp_path.iterdir()) == []


def test_runs_that_cannot_be_sampled_from_are_refused(run_command, capsys, classifier: Path, gan: Run, tmp_path: Path):
    refused(run_command, capsys, "draws no images; Classifier is its learner", "sample", f"run={classifier}")
    refused(run_command, capsys, "run: missing", "sample")
    near = gan.folder.with_name("gann")
    for name in ("sample", "evaluate"):
        refused(run_command, capsys, "gann: no run here (no config.yaml); did you mean gan?", name, f"run={near}")
        empty = tmp_path / name
        empty.mkdir()
        (empty / saved.FILE).write_bytes((gan.folder / saved.FILE).read_bytes())
        refused(run_command, capsys, f"run={empty}: ", name, f"run={empty}")


@pytest.mark.long
def test_a_sampler_that_does_not_fit_the_model_is_refused(run_command, capsys, tmp_path: Path):
    """A chain of 1,000 timesteps, without labels."""
    typed = ("learner=ddpm", "sampler=ddim", "learner.label_dropout=1", "tracker=none", "budget=64", "+debug=tiny")
    run = train("diffusion", tmp_path / "ddpm", "experiment=demo/diffusion", *typed)
    for mistake, told in (
        ("steps=1001", "steps=1001: a chain of timesteps=1000 has 1000 to take"),
        ("guidance=2", "guidance=2.0: needs a model trained with labels"),
    ):
        refused(run_command, capsys, told, "sample", f"run={run.folder}", mistake)


def refused(run_command, capsys, told: str, name: str, *typed: str) -> None:
    with pytest.raises(SystemExit) as left:
        run_command(name, *typed)
    error = capsys.readouterr().err
    assert left.value.code == command_line.EXIT_MISTAKE and told in error and "Traceback" not in error, error


# ---- experiments.evaluate ----


def test_every_family_is_evaluated_with_its_protocol(trained: Run, run_command, capsys):
    own = {"vae": ["samples=7"], "gan": [], "diffusion": ["ode_steps=3", "sampler=euler", "steps=5", "guidance=2"]}
    own = own[trained.family]
    run_command("evaluate", f"run={trained.folder}", f"count={COUNT}", "images=20", "batch=60", "seed=1", *own)
    shown = capsys.readouterr().out
    found = json.loads((trained.folder / "evaluation.json").read_text())
    assert found["images"] == trained.outcome.examples and "seed=1" in found["command"] and found["cpu"]
    quality = found["quality"]
    assert np.isfinite(quality["fid"]) and quality["fid_ratio"] == pytest.approx(quality["fid"] / quality["fid_floor"])
    assert {"kid", "precision", "recall", "kid_floor", "recall_floor"} <= quality.keys()
    run = runs.load(trained.folder)
    features: classifiers.Judge = run.objects.evaluators["quality"].features  # pyright: ignore
    assert quality["protocol"]["features_sha256"] == features.digest and quality["protocol"]["samples"] == COUNT
    assert quality["protocol"]["reference"] == "test, 180 images" and "fid_floor" in shown
    assert ("held_out" in found, "likelihood" in found) == ((trained.family != "gan"),) * 2
    if trained.family != "gan":
        own = {"likelihood": "Bernoulli", "binarisation": "dynamic", "codes": 1} if trained.family == "vae" else {}
        assert found["held_out"]["protocol"] == {"split": "test", "images": 180, "seed": 1} | own
        assert found["likelihood"]["protocol"]["images"] == "20 of 180" and "protocol: split test" in shown
    if trained.family == "vae":
        assert found["likelihood"]["protocol"]["samples"] == 7
        assert found["likelihood"]["protocol"]["binarisation"] == "dynamic"
    if trained.family == "diffusion":
        assert re.search(r"rule=Euler\(.*steps=5, guidance=2", quality["protocol"]["sampler"])
        assert found["likelihood"]["protocol"]["evaluations"] == 12 and found["likelihood"]["bits_per_dim"] > 0


@pytest.mark.long
def test_a_likelihood_is_the_mean_over_every_image_that_it_says(vae: Run, run_command):
    """Pitfall 5: also where the last batch is filled up."""
    run_command("evaluate", f"run={vae.folder}", f"count={COUNT}", "images=1000", "batch=100", "samples=3")
    found = json.loads((vae.folder / "evaluation.json").read_text())["likelihood"]
    assert found["protocol"]["images"] == "180 of 180"
    run, test = runs.load(vae.folder), datasets.Digits().load("test")
    each = []
    for start in (0, 100):
        rows = np.arange(start, min(start + 100, 180))
        rows = np.resize(rows, 100)
        batch = types.Images(image=test.image[rows], label=test.label[rows])
        key = jax.random.fold_in(jax.random.key(0), start)
        figures = jax.jit(lambda *given: run.learner.log_likelihood(*given, samples=3))(run.view, batch, key)
        each.append(figures["nll_nats"][: 180 - start])
    each = np.concatenate(each)
    assert len(each) == 180 and found["nll_nats"] == pytest.approx(each.mean(), rel=1e-5)
    assert found["nll_nats"] > 0 and found["nll_nats_stderr"] == pytest.approx(each.std(ddof=1) / 180**0.5, rel=1e-4)


def test_a_classifier_is_evaluated_on_the_test_images(classifier: Path, run_command, capsys):
    run_command("evaluate", f"run={classifier}")
    found = json.loads((classifier / "evaluation.json").read_text())
    assert set(found["held_out"]) == {"loss", "accuracy", "protocol"} and found["held_out"]["accuracy"] > 0.8
    assert "quality" not in found and f"accuracy {found['held_out']['accuracy']:.4g}" in capsys.readouterr().out


EVALUATE_MISTAKES = [
    ("gan", "ode_steps=3", "ode_steps=3: this model's kind has no likelihood; leave it out"),
    ("vae", "ode_steps=3", "ode_steps=3: this model's likelihood takes samples"),
    ("diffusion", "samples=3", "samples=3: this model's likelihood takes ode_steps"),
    ("diffusion", "steps=0", "steps=0: must be at least 1"),
    ("diffusion", "ode_steps=-3", "ode_steps=-3: must be at least 1"),
    ("vae", "samples=0", "samples=0: must be at least 1"),
    ("vae", "sampler=heun", "has no sampler to choose; only diffusion models have"),
    ("vae", "episodes=3", "episodes=3: no setting of this kind of model"),
    ("vae", "count=3", "count=3: must be at least 4"),
    ("vae", "count=1438", "count=1438: the split train has 1437 images"),
    ("vae", "batch=0", "batch=0: must be at least 1"),
    ("gan", "features=nowhere", "features=nowhere: nowhere: no run here"),
    ("gan", "features=x.npz", "features=x.npz: file=x.npz: No such file"),
]


@pytest.mark.parametrize("family, typed, told", EVALUATE_MISTAKES, ids=[typed for _, typed, _ in EVALUATE_MISTAKES])
def test_a_mistake_in_judging_is_told_before_anything_is_drawn(
    request, run_command, capsys, monkeypatch: pytest.MonkeyPatch, family: str, typed: str, told: str
):
    run: Run = request.getfixturevalue(family)
    monkeypatch.setattr("generative.drawing.draw", None)
    monkeypatch.setattr("generative.evaluation._judge", None)
    refused(run_command, capsys, told, "evaluate", f"run={run.folder}", typed)


def changed(run: Run, folder: Path, *changes: tuple[str, str]) -> Path:
    """A run's folder again, with something else in its config: patterns and what comes in their place."""
    folder.mkdir()
    text = (run.folder / saved.FILE).read_text()
    for old, new in changes:
        text, count = re.subn(old, new, text)
        assert count
    (folder / saved.FILE).write_text(text)
    (folder / "checkpoints").symlink_to(run.folder / "checkpoints")
    return folder


def test_a_run_whose_data_have_gone_says_so(run_command, capsys, vae: Run, tmp_path: Path):
    gone = (r"( *)_target_: core.images.datasets.Digits\n", r"\1_target_: core.images.datasets.Npz\n\1path: x.npz\n")
    folder = changed(vae, tmp_path / "run", gone)
    told = f"run={folder}: its data cannot be read: path=x.npz: no such file"
    refused(run_command, capsys, told, "evaluate", f"run={folder}")


def test_features_that_do_not_see_the_images_are_told(run_command, capsys, gan: Run, tmp_path: Path):
    others = (r"experiments.evaluation.classifiers.Judge\n +run: .*\n", "generative.features.Published\n")
    folder = changed(gan, tmp_path / "run", others)
    with pytest.raises(SystemExit):
        run_command("evaluate", f"run={folder}")
    told = capsys.readouterr()
    assert "no FID: features=fashion_mnist_lenet" in told.out and "these are (8, 8, 1)" in told.out
    assert f"run={folder}: nothing to tell of it: no figures of given images" in told.err


def test_other_features_can_be_typed_and_a_dead_recall_is_told(
    run_command, capsys, gan: Run, classifier: Path, tmp_path: Path
):
    others = (r"experiments.evaluation.classifiers.Judge\n +run: .*\n", "generative.features.Published\n")
    folder = changed(gan, tmp_path / "run", others, (r"alarm: 0\n", "alarm: 1.1\n"))
    run_command("evaluate", f"run={folder}", f"features={classifier}", f"count={COUNT}", "batch=50")
    quality = json.loads((folder / "evaluation.json").read_text())["quality"]
    assert quality["protocol"]["features_sha256"] == classifiers.Judge(run=str(classifier)).digest
    assert f"warning: recall is {quality['recall']:.3f}, where real images reach" in capsys.readouterr().out


def test_a_model_that_is_no_classifier_is_no_judge(vae: Run):
    with pytest.raises(build.ConfigError, match=r"run=.*vae: VAE has no features; name the run of a classifier"):
        classifiers.Judge(run=str(vae.folder)).digest  # noqa: B018
