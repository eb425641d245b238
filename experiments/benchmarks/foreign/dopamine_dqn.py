"""Dopamine's JAX DQN as its own runner steps it: `dopamine_dqn <seconds>`."""
# pyright: reportMissingImports=false

import sys
from unittest import mock

# dopamine 4.1.2 imports these for other agents than DQN: one is in no package index, the other is older than this JAX.
for name in ("baselines", "baselines.common", "tensorflow_probability", "tensorflow_probability.substrates"):
    sys.modules[name] = mock.MagicMock()

import gin  # noqa: E402
import numpy as np  # noqa: E402
from dopamine.discrete_domains import atari_lib  # noqa: E402
from dopamine.jax.agents.dqn import dqn_agent  # noqa: E402

from experiments.benchmarks import timing  # noqa: E402

STARTS = 1_000  # environment steps before learning


def main() -> None:
    gin.parse_config(["ReplayBuffer.batch_size = 32", "ReplayBuffer.max_capacity = 100_000"])
    game = atari_lib.create_atari_environment(game_name="Pong", sticky_actions=False)
    agent = dqn_agent.JaxDQNAgent(
        num_actions=game.action_space.n,
        min_replay_history=STARTS,
        update_period=4,
        epsilon_fn=dqn_agent.identity_epsilon,
        epsilon_train=0.1,
        seed=0,
    )
    watch = timing.Stopwatch(seconds=float(sys.argv[1]), after=STARTS + 100)
    action = agent.begin_episode(game.reset())
    while watch.step():
        observation, reward, terminal, _ = game.step(action)
        if terminal:
            agent.end_episode(np.clip(reward, -1, 1), terminal)
            action = agent.begin_episode(game.reset())
        else:
            action = agent.step(np.clip(reward, -1, 1), observation)
    watch.tell()


if __name__ == "__main__":
    main()
