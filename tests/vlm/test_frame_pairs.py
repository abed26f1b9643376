"""Tests of pairs by the frames that they show: which are numbered alike, and that batches hold each once."""

import numpy as np

from prefvlm_core.common.arrays import IntArray
from prefvlm_core.vlm.frame_pairs import FramePairs, contents, pairs_of

A, B, C, D = (np.full(3, value, np.float32) for value in (7, -1, 4, 0))


def test_equal_frames_have_one_number_in_the_order_of_first_appearance() -> None:
    pairs = FramePairs.of(np.array([[[A, B], [B, C]], [[C, A], [D, B]]]))
    assert pairs.shown.tolist() == [[[0, 1], [1, 2]], [[2, 0], [3, 1]]] and len(pairs) == 2
    np.testing.assert_array_equal(pairs.embeddings(np.array([3, 0, 2, 1])), [D, A, C, B])


def test_a_batch_holds_each_frame_once_and_restores_every_segment() -> None:
    frames = np.random.default_rng(0).integers(0, 5, (20, 2, 3, 1)).astype(np.float32)
    chosen = np.array([17, 2, 5])
    embeddings, shown = FramePairs.of(frames).batch(chosen)
    np.testing.assert_array_equal(embeddings[shown], frames[chosen])
    assert len(embeddings) == len(np.unique(frames[chosen]))
    order = list(dict.fromkeys(frames.ravel().tolist()))  # of first appearance among all pairs
    assert [order.index(value) for value in embeddings[:, 0]] == sorted(map(order.index, embeddings[:, 0]))


def test_only_the_frames_of_a_batch_are_looked_up() -> None:
    asked: list[IntArray] = []

    def embeddings(where: IntArray) -> np.ndarray:
        asked.append(where)
        return where[:, None].astype(np.float32)

    shown = np.arange(24, dtype=np.uint64).reshape(4, 2, 3) % 20  # the last pair shows the first frames again
    pairs = pairs_of(shown, embeddings)
    assert not asked
    pairs.batch(np.array([3, 0]))
    assert [where.tolist() for where in asked] == [[0, 1, 2, 3, 4, 5, 18, 19]]


def test_contents_tell_frames_apart_to_the_bit() -> None:
    frames = np.zeros((3, 4), np.float32)
    frames[1, 2] = -0.0
    frames[2] = frames[0]
    first, other, same = contents(frames)
    assert first == same != other
