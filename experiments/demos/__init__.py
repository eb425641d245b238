"""What `make demo`, `make demo-images` and `experiments.latents` show."""
