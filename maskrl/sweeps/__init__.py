"""Variants x seeds: runs side by side, each in a folder of its own, and one table of them."""
