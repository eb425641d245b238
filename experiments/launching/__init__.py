"""`experiments.launch`: what Slurm is given; the package `slurm` gives it."""
