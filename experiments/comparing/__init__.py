"""What `experiments.compare` does: runs read from their folders, grouped, and compared with intervals that hold."""
