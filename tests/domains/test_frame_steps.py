"""The frame of a step is the one after its action: for the VLM, for people, for the sanity check and for recordings."""

import numpy as np
import pytest

from prefvlm_core.domains.frame_steps import frame_steps, has_frame


def test_every_step_has_a_frame_where_none_is_left_out() -> None:
    assert frame_steps(np.array([[3, 40]]), 4, 1).tolist() == [[[3, 4, 5, 6], [40, 41, 42, 43]]]


@pytest.mark.parametrize(("start", "expected"), [(0, [4, 9]), (1, [4, 9]), (4, [4, 9]), (5, [9, 14]), (57, [59, 64])])
def test_of_every_stride_the_last_step_has_a_frame(start: int, expected: list[int]) -> None:
    steps = frame_steps(np.array(start), 10, 5)
    assert steps.tolist() == expected
    assert [step for step in range(start, start + 10) if has_frame(step, 5)] == expected
