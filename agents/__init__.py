"""Reinforcement learning: environments, acting, agents and how they are judged."""
