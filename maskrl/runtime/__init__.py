"""Where and with what a run runs: placement, folder, prompts, checkpoints, metrics."""
