"""Transition probabilities, a file each."""
