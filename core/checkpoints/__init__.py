"""Checkpoints: `checkpoint` keeps those of a run, `files` writes and reads one."""
