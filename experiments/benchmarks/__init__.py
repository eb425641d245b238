"""What `experiments.benchmark` measures, a module a suite; this package's `foreign/` runs in other environments."""
