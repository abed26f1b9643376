"""The reward ensemble, the ways in which it learns from labels, and the rewards of the agent."""
