"""The algorithm: plain functions on tensors, a page each."""
