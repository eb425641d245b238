"""Turns run folders into `docs/curves/<name>.csv` and `.png`: `python docs/curves.py pong runs/dqn/pong/seed{0,1,2}`.

The CSV has one row an evaluation: seed, frames or images, hours, and what was found. The picture shows one of these.
"""

import csv
import json
import pathlib
import sys

import yaml
from matplotlib import figure

FOLDER = pathlib.Path(__file__).parent / "curves"
# Column -> metric, of agents and of models of images; the last ones may be missing.
SCORES = {"mean": "eval/episode_return", "standard_error": "eval/episode_return_stderr"}
QUALITY = {
    name: f"eval/{name}" for name in ("fid", "fid_floor", "kid", "precision", "recall", "loss", "elbo", "accuracy")
}
LABELS = {"mean": "evaluated score (mean ± standard error)", "fid": "FID", "accuracy": "accuracy", "elbo": "ELBO, nats"}


def rows(run: pathlib.Path) -> list[dict]:
    """One row for each step at which anything was judged."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    found: dict[int, dict] = {}
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        columns = SCORES if "frames" in line else QUALITY
        values = {name: round(line[key], 4) for name, key in columns.items() if line.get(key) is not None}
        if values:
            unit = "frames" if "frames" in line else "images"
            start = {"seed": config["seed"], unit: line[unit], "hours": round(line["seconds"] / 3600, 4)}
            found[line["step"]] = start | found.get(line["step"], {}) | values
            if unit == "frames":
                found[line["step"]]["episodes"] = config["evaluators"]["episodes"]["episodes"]
    return list(found.values())


def draw(name: str, table: list[dict]) -> None:
    unit = "frames" if "frames" in table[0] else "images"
    shown = next(
        column for column in ("mean", "fid", "accuracy", "elbo", "loss") if any(column in row for row in table)
    )
    picture = figure.Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = picture.subplots()
    for seed in sorted({row["seed"] for row in table}):
        points = [row for row in table if row["seed"] == seed and shown in row]
        axes.errorbar(
            [row[unit] / 1e6 for row in points],
            [row[shown] for row in points],
            yerr=[row.get("standard_error", 0.0) for row in points],
            marker=".",
            capsize=2,
            label=f"seed {seed}",
        )
    axes.set(xlabel=f"million {unit}", ylabel=LABELS.get(shown, shown), title=name)
    axes.legend()
    picture.savefig(FOLDER / f"{name}.png")


def main(name: str, *runs: str) -> None:
    table = [row for run in runs for row in rows(pathlib.Path(run))]
    fields = list(dict.fromkeys(key for row in table for key in row))
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    draw(name, table)


if __name__ == "__main__":
    main(*sys.argv[1:])
