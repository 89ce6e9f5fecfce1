"""One page about a run, or several: from what lies in their folders, in one file that asks nothing of a network."""
