"""Models of images in PyTorch: `torch_images <name of MODELS> <batch> <drawn> <steps>` serves `train` and `draw`.

Networks, losses, optimisers, averages and samplers are those of the suite's experiments; the U-Net and the samplers
beside it are Hugging Face's. Of the two layouts that convolutions know, the one is taken that trains quicker here.
"""
# pyright: reportMissingImports=false

import copy
import itertools
import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from experiments.benchmarks import timing

LATENT, CLASSES = 20, 10
KEEP = 0.999  # of an average of weights, at each update


def main() -> None:
    name, (batch, drawn, steps) = sys.argv[1], map(int, sys.argv[2:])
    layouts = (
        (torch.contiguous_format, torch.channels_last) if name in ("dcgan", "unet") else (torch.contiguous_format,)
    )
    models = {layout: MODELS[name](batch, drawn, steps, layout) for layout in layouts}
    layout = min(layouts, key=lambda layout: timing.median_seconds(models[layout][1], 0.0))
    modules, train, draw = models.pop(layout)
    facts = {
        "torch": torch.__version__,
        "layout": str(layout),
        "parameters": sum(p.numel() for module in modules for p in module.parameters()),
    }
    timing.serve({"draw": torch.inference_mode()(draw), "train": train}, facts)


Model = tuple[Iterable[nn.Module], timing.Part, timing.Part]


def vae(batch: int, drawn: int, steps: int, layout: torch.memory_format) -> Model:
    """784-400-20, its pixels made binary by chance (1312.6114)."""
    encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 2 * LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, 400), nn.ReLU(), nn.Linear(400, 784))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, fused=True)
    image = _images(batch).flatten(1)

    def train() -> int:
        x = torch.bernoulli(image.float() / 255)
        mean, log_variance = encoder(x).chunk(2, dim=1)
        code = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        reconstruction = functional.binary_cross_entropy_with_logits(decoder(code), x, reduction="sum")
        kl = 0.5 * torch.sum(mean**2 + torch.exp(log_variance) - 1 - log_variance)
        _descend((reconstruction + kl) / batch, optimizer)
        return batch

    def draw() -> int:
        return len(_bytes(2 * torch.sigmoid(decoder(torch.randn(drawn, LATENT))) - 1))

    return (encoder, decoder), train, draw


class Generator(nn.Module):
    """DCGAN's (1511.06434), at the sizes of WGAN-GP's nets for 28 x 28."""

    def __init__(self, latent: int = 128, width: int = 64):
        super().__init__()
        self.latent, self.width = latent, width
        self.dense = nn.Linear(latent, 49 * 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 4, 2, 1)
        self.up0 = nn.ConvTranspose2d(width, 1, 4, 2, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.dense(z)).view(-1, 7, 7, 2 * self.width).permute(0, 3, 1, 2)
        return torch.tanh(self.up0(torch.relu(self.up1(x))))


def dcgan(batch: int, drawn: int, steps: int, layout: torch.memory_format) -> Model:
    width, leaky = 64, nn.LeakyReLU(0.2)
    generator = Generator(width=width).to(memory_format=layout)
    discriminator = nn.Sequential(
        *(nn.Conv2d(1, width, 4, 2, 1), leaky, nn.Conv2d(width, 2 * width, 4, 2, 1), leaky),
        *(nn.Flatten(), nn.Linear(49 * 2 * width, 1)),
    ).to(memory_format=layout)
    average = copy.deepcopy(generator)
    of_generator, of_discriminator = (
        torch.optim.Adam(player.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)
        for player in (generator, discriminator)
    )
    image = _images(batch)
    noise = lambda count: torch.randn(count, generator.latent)

    def train() -> int:
        with torch.no_grad():
            fake = generator(noise(batch))
        softplus, real = functional.softplus, _signed(image)
        _descend((softplus(-discriminator(real)) + softplus(discriminator(fake))).mean(), of_discriminator)
        _descend(softplus(-discriminator(generator(noise(batch)))).mean(), of_generator)
        _average(average, generator)
        return batch

    return (generator, discriminator), train, lambda: len(_bytes(average(noise(drawn))))


class Block(nn.Module):
    """Of `DiT`: attention, then two dense layers, with shift, scale and gate by the condition."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv, self.attended = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dense1, self.dense2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, -1)
        batch, tokens, width = x.shape
        qkv = self.qkv(_modulated(x, shift1, scale1)).view(batch, tokens, 3, self.heads, -1)
        mixed = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0))
        x = x + gate1 * self.attended(mixed.transpose(1, 2).reshape(batch, tokens, width))
        hidden = functional.gelu(self.dense1(_modulated(x, shift2, scale2)), approximate="tanh")
        return x + gate2 * self.dense2(hidden)


class DiT(nn.Module):
    """2212.09748 on 28 x 28 pixels in patches of 4 x 4."""

    def __init__(self, width: int = 256, depth: int = 6, heads: int = 4, frequencies: int = 64):
        super().__init__()
        self.embed, self.position = nn.Linear(16, width), nn.Parameter(0.02 * torch.randn(49, width))
        self.register_buffer("rates", 2 * math.pi * torch.logspace(-1, 1, frequencies))
        self.noise = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(CLASSES + 1, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.modulation, self.out = nn.Linear(width, 2 * width), nn.Linear(width, 16)

    def forward(self, x: torch.Tensor, noise: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        x = x.view(-1, 7, 4, 7, 4).transpose(2, 3).reshape(-1, 49, 16)
        x = self.embed(x) + self.position
        angles = noise[:, None] * self.rates
        condition = self.noise(torch.cat([angles.cos(), angles.sin()], dim=-1)) + self.label(label)
        condition = functional.silu(condition)
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, -1)
        x = self.out(_modulated(x, shift, scale))
        return x.view(-1, 7, 7, 4, 4).transpose(2, 3).reshape(-1, 1, 28, 28)


def dit(batch: int, drawn: int, steps: int, layout: torch.memory_format) -> Model:
    """EDM (2206.00364): its preconditioning and levels of noise in training, Heun's rule in sampling."""
    data, network = 0.7, DiT()
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-4, betas=(0.9, 0.95), weight_decay=1e-3, fused=True)
    image, label = _images(batch), torch.randint(CLASSES, (batch,))

    def denoised(network: nn.Module, x: torch.Tensor, sigma: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        wide, power = sigma[:, None, None, None], sigma[:, None, None, None] ** 2 + data**2
        found = network(x / power.sqrt(), sigma.log() / 4, label)
        return data**2 / power * x + wide * data / power.sqrt() * found

    def train() -> int:
        sigma = torch.exp(1.2 * torch.randn(batch) - 1.2)
        known = torch.where(torch.rand(batch) < 0.1, CLASSES, label)
        clean = _signed(image)
        x = clean + sigma[:, None, None, None] * torch.randn_like(clean)
        error = ((denoised(network, x, sigma, known) - clean) ** 2).mean(dim=(1, 2, 3))
        loss = ((sigma**2 + data**2) / (sigma * data) ** 2 * error).mean()
        _descend(loss, optimizer, clip=network.parameters())
        _average(average, network)
        return batch

    def draw() -> int:
        path = torch.cat([torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), steps) ** 7, torch.zeros(1)])
        x, label = path[0] * torch.randn(drawn, 1, 28, 28), torch.randint(CLASSES, (drawn,))
        for now, then in itertools.pairwise(path):
            slope = (x - denoised(average, x, now.expand(drawn), label)) / now
            ahead = x + (then - now) * slope
            if then > 0:
                again = (ahead - denoised(average, ahead, then.expand(drawn), label)) / then
                ahead = x + (then - now) * (slope + again) / 2
            x = ahead
        return len(_bytes(x))

    return (network,), train, draw


def unet(batch: int, drawn: int, steps: int, layout: torch.memory_format) -> Model:
    """DDPM (2006.11239) with Hugging Face's U-Net, sampled by their DDIM."""
    import diffusers

    network = diffusers.UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64, 128),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=32,  # 4 heads
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=CLASSES + 1,
        dropout=0.1,
    ).to(memory_format=layout)
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4, fused=True)
    training, sampling = diffusers.DDPMScheduler(), diffusers.DDIMScheduler()
    image, label = _images(batch), torch.randint(CLASSES, (batch,))

    def train() -> int:
        clean = _signed(image)
        fresh, known = torch.randn_like(clean), torch.where(torch.rand(batch) < 0.1, CLASSES, label)
        timestep = torch.randint(len(training), (batch,))
        found = network(training.add_noise(clean, fresh, timestep), timestep, known).sample
        _descend(functional.mse_loss(found, fresh), optimizer, clip=network.parameters())
        _average(average, network)
        return batch

    def draw() -> int:
        sampling.set_timesteps(steps)
        x, label = torch.randn(drawn, 1, 28, 28), torch.randint(CLASSES, (drawn,))
        for timestep in sampling.timesteps:
            x = sampling.step(average(x, timestep, label).sample, timestep, x).prev_sample
        return len(_bytes(x))

    return (network,), train, draw


MODELS: dict[str, Callable[[int, int, int, torch.memory_format], Model]] = {
    "vae": vae,
    "dcgan": dcgan,
    "dit": dit,
    "unet": unet,
}


def _images(batch: int) -> torch.Tensor:
    return torch.randint(256, (batch, 1, 28, 28), dtype=torch.uint8)


def _signed(image: torch.Tensor) -> torch.Tensor:
    return image.float() / 127.5 - 1


def _bytes(signed: torch.Tensor) -> torch.Tensor:
    return ((signed + 1) * 127.5).round().clamp(0, 255).byte()


def _modulated(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def _descend(loss: torch.Tensor, optimizer: Any, *, clip: Iterable[nn.Parameter] = ()) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(clip, 1.0)
    optimizer.step()


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - KEEP)


if __name__ == "__main__":
    main()
