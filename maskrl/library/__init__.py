"""The library's front door: a model to sample from, a trainer to step, without the command line."""
