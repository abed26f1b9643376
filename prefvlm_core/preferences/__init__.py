"""Pairs of segments, their labels, who gives them and which are kept."""
