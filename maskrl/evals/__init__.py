"""Evaluations of a generator, and the images and results files they share."""
