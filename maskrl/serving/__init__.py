"""The reward service: a recipe's reward behind HTTP, for runs that name it as ``remote``."""
