"""The Nature update in PyTorch, channels last: `torch_update <batch> ...` serves `single <batch>`."""
# pyright: reportMissingImports=false

import copy
import sys

import torch
from torch import nn

from experiments.benchmarks import timing

ACTIONS = 6
ON_GPU = torch.cuda.is_available()


def main() -> None:
    timing.serve({f"single {batch}": built(int(batch))[1] for batch in sys.argv[1:]})


def built(batch: int) -> tuple[nn.Module, timing.Part]:
    """The network, and its update; on PyTorch's default device."""
    network = nn.Sequential(
        *(nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, ACTIONS)),
    ).to(memory_format=torch.channels_last)
    target = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=2.5e-4, eps=1.5e-4, fused=ON_GPU)
    frames = lambda: torch.randint(256, (batch, 4, 84, 84), dtype=torch.uint8).to(memory_format=torch.channels_last)
    observation, next_observation = frames(), frames()
    action, reward = torch.randint(ACTIONS, (batch, 1)), torch.rand(batch)

    def update() -> int:
        with torch.no_grad():
            wanted = reward + 0.99 * target(next_observation.float() / 255).amax(1)
        value = network(observation.float() / 255).gather(1, action)[:, 0]
        loss = nn.functional.smooth_l1_loss(value, wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return 1

    return network, update


if __name__ == "__main__":
    main()
