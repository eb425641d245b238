"""What `make demo-images` runs: a VAE, a GAN and a diffusion model on small images, and one picture of what they draw.

`python -m experiments.demo_images [seed=1] [key=value ...]`: what is typed goes to all three, as `experiments.train`
takes it; the settings are those of `conf/experiment/demo/`.
"""

from experiments.config import start


def main() -> None:
    start.command("experiments.demos.images", defaults=["experiment=demo/vae"])


if __name__ == "__main__":
    main()
