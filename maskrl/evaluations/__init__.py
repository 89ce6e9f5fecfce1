"""The evaluations that come with maskrl, each a class of :class:`maskrl.interfaces.Evaluation`."""
