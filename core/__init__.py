"""What every run shares: concepts, loop, placement, replay, checkpoints, tracking. Knows no agent and no model."""
