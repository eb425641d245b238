"""Turns run folders into `docs/curves/<name>.csv` and `.png`: `python docs/curves.py pong runs/dqn/pong/seed{0,1,2}`.

The CSV has one row an evaluation: run, seed, frames, hours, mean score, its standard error, games.
"""

import csv
import json
import pathlib
import sys

import yaml
from matplotlib import figure

FIELDS = ("seed", "frames", "hours", "mean", "standard_error", "episodes")
FOLDER = pathlib.Path(__file__).parent / "curves"


def rows(run: pathlib.Path) -> list[dict]:
    config = yaml.safe_load((run / "config.yaml").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {
            "seed": config["seed"],
            "frames": line["frames"],
            "hours": round(line["seconds"] / 3600, 4),
            "mean": round(line["eval/episode_return"], 4),
            "standard_error": round(line.get("eval/episode_return_stderr") or 0.0, 4),
            "episodes": config["evaluators"]["episodes"]["episodes"],
        }
        for line in lines
        if line.get("eval/episode_return") is not None
    ]


def draw(name: str, table: list[dict]) -> None:
    picture = figure.Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = picture.subplots()
    for seed in sorted({row["seed"] for row in table}):
        points = [row for row in table if row["seed"] == seed]
        axes.errorbar(
            [row["frames"] / 1e6 for row in points],
            [row["mean"] for row in points],
            yerr=[row["standard_error"] for row in points],
            marker=".",
            capsize=2,
            label=f"seed {seed}",
        )
    axes.set(xlabel="million frames", ylabel="evaluated score (mean ± standard error)", title=name)
    axes.legend()
    picture.savefig(FOLDER / f"{name}.png")


def main(name: str, *runs: str) -> None:
    table = [row for run in runs for row in rows(pathlib.Path(run))]
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    draw(name, table)


if __name__ == "__main__":
    main(*sys.argv[1:])
