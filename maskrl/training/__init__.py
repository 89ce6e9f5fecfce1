"""The training loop, and what a person sees of it."""
