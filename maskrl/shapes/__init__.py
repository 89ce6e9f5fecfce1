"""The embedded world of coloured shapes: see docs/decisions/005-shapes-world.md."""
