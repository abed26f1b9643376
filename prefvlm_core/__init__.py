"""prefvlm: preference-based reinforcement learning with a vision-language model and few human labels.

An open, reproducible companion to PrefVLM (arXiv 2502.01616). Read `train.py` top to bottom to see the whole method.
"""

__version__ = "0.1.0"
