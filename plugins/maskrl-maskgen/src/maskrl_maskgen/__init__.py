"""MaskGen-VQ, a masked generator of 128 codes in a row, and TA-TiTok, which paints them and needs the text for it."""

from maskrl_maskgen.generator import MaskGen

__all__ = ["MaskGen"]
