"""Reconstruction quality against latent size: `python -m experiments.latents [network.latent=2,5,20] [key=value ...]`.

Trains `conf/experiment/vae/latents.yaml` once for each size (2 and 5 by default), as `experiments.train -m` would, and
draws `latents.png` beside the runs: test images above what is left of them, with the mean squared error (of [0, 1]).
"""

from experiments.config import start


def main() -> None:
    start.tune()
    from experiments.demos import latents  # after `tune`, which may start the process anew

    latents.main()


if __name__ == "__main__":
    main()
