"""Cards: a result, how it came about, and whether it comes about again."""
