"""The limit of an update: its matrix products alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

_MULTIPLYING = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm)

Product = tuple[int, int, int]
"""Sizes (m, k, n) of a product of an (m, k) and a (k, n) matrix."""


def products_of(work: Callable[[], object]) -> list[Product]:
    """Every product of two matrices that `work` makes, forward and backward; those of a batch one by one."""
    products: list[Product] = []

    def note(*shapes: torch.Size, **_: Any) -> int:
        left, right = shapes[-2:]
        products.extend([(left[-2], left[-1], right[-1])] * left[:-2].numel())
        return 0

    with FlopCounterMode(display=False, custom_mapping=dict.fromkeys(_MULTIPLYING, note)):
        work()
    return products


def gigaflop(products: list[Product]) -> float:
    """10^9 floating-point operations: two per multiplication and addition."""
    return sum(2 * m * k * n for m, k, n in products) / 1e9


def multiply(products: list[Product]) -> Callable[[], None]:
    """A function that makes these products by torch.mm, from random matrices."""
    matrices: dict[Product, tuple[Tensor, Tensor, Tensor]] = {
        (m, k, n): (torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)) for m, k, n in set(products)
    }

    def run() -> None:
        for product in products:
            left, right, out = matrices[product]
            torch.mm(left, right, out=out)

    return run
