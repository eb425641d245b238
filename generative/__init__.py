"""Generative models: learners of images, beside the agents and on the same core."""
