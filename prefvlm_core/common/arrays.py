"""The types of NumPy arrays that the package uses, named by what they hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
"""What networks take and give: observations, embeddings, labels."""
DoubleArray = NDArray[np.float64]
"""What is summed or measured: true rewards, divergences, metrics."""
IntArray = NDArray[np.int64]
"""Steps and indices."""
BoolArray = NDArray[np.bool_]
"""Masks."""
ImageArray = NDArray[np.uint8]
"""RGB images, (..., height, width, 3)."""
