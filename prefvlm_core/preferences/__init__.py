"""Pairs of segments: which are asked about, who labels them, which labels are kept, and what they cost."""
