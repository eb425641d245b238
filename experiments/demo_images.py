"""What `make demo-images` runs: a VAE, a GAN and a diffusion model on small images, and one picture of what they draw.

`python -m experiments.demo_images [seed=1] [key=value ...]`: what is typed goes to all three, as `experiments.train`
takes it; the settings are those of `conf/experiment/demo/`.
"""

import sys

from core import platform


def main() -> None:
    platform.tune(wanted="tune=false" not in sys.argv)
    from experiments import config, gallery  # after `tune`, which starts the process anew

    sys.argv.insert(1, f"experiment={gallery.FAMILIES[0]}")
    config.main(gallery.task)


if __name__ == "__main__":
    main()
