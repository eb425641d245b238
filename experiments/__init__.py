"""Entry points: `python -m experiments.train` and its neighbours. The only place that knows Hydra."""

from experiments.config import identity

identity.check()
