"""stable-baselines3's DQN with rl-zoo's hyperparameters for Atari: `sb3_dqn <seconds>`."""
# pyright: reportMissingImports=false

import sys

import ale_py
import gymnasium
from stable_baselines3 import DQN
from stable_baselines3.common import callbacks, env_util, vec_env

from experiments.benchmarks import timing

STARTS = 1_000  # environment steps before learning


class Watch(callbacks.BaseCallback):
    """Ends the training when the stopwatch does."""

    def __init__(self, watch: timing.Stopwatch):
        super().__init__()
        self._watch = watch

    def _on_step(self) -> bool:
        return self._watch.step()


def main() -> None:
    gymnasium.register_envs(ale_py)
    games = env_util.make_atari_env(
        "ALE/Pong-v5", n_envs=1, seed=0, env_kwargs={"frameskip": 1, "repeat_action_probability": 0.0}
    )
    agent = DQN(
        "CnnPolicy",
        vec_env.VecFrameStack(games, n_stack=4),
        learning_rate=1e-4,
        buffer_size=100_000,
        learning_starts=STARTS,
        batch_size=32,
        train_freq=4,
        gradient_steps=1,
        target_update_interval=1_000,
        exploration_initial_eps=0.1,
        exploration_final_eps=0.1,
        seed=0,
    )
    watch = timing.Stopwatch(seconds=float(sys.argv[1]), after=STARTS + 100)
    agent.learn(10**9, callback=Watch(watch))
    watch.tell()


if __name__ == "__main__":
    main()
