"""Reward models, a module each."""
