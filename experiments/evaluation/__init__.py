"""What is done with a trained run: `experiments.evaluate` (`command`), `sample` and `collect`."""
