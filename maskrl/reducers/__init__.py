"""Step reducers, a file each."""
