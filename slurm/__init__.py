"""All that knows Slurm: submitting, the job's script, how jobs are, and a real cluster on one machine for tests."""
