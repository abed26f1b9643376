"""The reward ensemble, and the ways in which it learns from labels."""
