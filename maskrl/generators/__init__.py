"""Masked generators, a module or a package each."""
