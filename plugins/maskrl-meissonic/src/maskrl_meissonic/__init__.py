"""Meissonic, a masked generator of images of 1024 pixels, as a generator of maskrl."""

from maskrl_meissonic.generator import Meissonic

__all__ = ["Meissonic"]
