"""What a model behind an endpoint is shown, and which returns follow from its answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.endpoint import brighter, images, listed, said, text
from builders.runs import SMALL, quiet

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.methods import run_config
from prefvlm_core.vlm.endpoint.client import EndpointClient
from prefvlm_core.vlm.endpoint.source import EndpointVLM
from prefvlm_core.vlm.endpoint.strips import StripMaker
from prefvlm_core.vlm.endpoint.transport import Transport
from prefvlm_core.vlm.labeller import labels_of

Reply = Callable[[dict[str, Any]], dict[str, Any]]


class Shades:
    """A stand-in for an encoder: the frame of a step is a square of the step's number."""

    def pictures(self, run: int, steps: np.ndarray, size: int) -> np.ndarray:
        return np.broadcast_to(steps.astype(np.uint8)[:, None, None, None], (len(steps), size, size, 3))


def config_of(**changes: Any) -> Any:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    base = SMALL | {"vlm.model": "endpoint:tiny", "vlm.ties": "drop", "vlm.strip_pixels": 16, "adapter.enabled": False}
    base |= {"vlm.frame_stride": 1, "vlm.queries": 3}
    return run_config("button-press-v3", "prefvlm", 0, "quick", base | named)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The requests that were sent; answered as `replying` says, by default according to brightness."""
    requests: list[dict[str, Any]] = []
    reply_by(monkeypatch, requests, brighter)
    return requests


def reply_by(monkeypatch: pytest.MonkeyPatch, requests: list[dict[str, Any]], reply: Reply) -> None:
    monkeypatch.setattr(Transport, "post", lambda self, request: requests.append(request) or reply(request))


def source(folder: Path, **changes: Any) -> EndpointVLM:
    config, execution = config_of(**changes), quiet(folder)
    return EndpointVLM(config, StripMaker(Shades(), 0, config), EndpointClient(execution), Stopwatch())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frames", "stride", "shown"),
    [(4, 1, [20, 23, 26, 29]), (1, 1, [29]), (2, 1, [20, 29]), (32, 1, list(range(20, 30))), (4, 5, [24, 29])],
)
def test_a_strip_shows_frames_from_the_first_to_the_last(frames: int, stride: int, shown: list[int]) -> None:
    config = config_of(vlm__strip_frames=frames, vlm__frame_stride=stride)
    strips = StripMaker(Shades(), 0, config).make(np.array([20, 20]))  # type: ignore[arg-type]
    assert [strip.shape for strip in strips] == [(16, 16 * len(shown), 3)] * 2
    assert strips[0][0, ::16, 0].tolist() == shown


def test_pairs_are_shown_in_both_orders(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    judgement = source(tmp_path).judge(np.array([[10, 50], [90, 30]]))
    assert judgement.returns.tolist() == [[0, 1], [0, -1]]
    assert labels_of(judgement.returns, "drop").tolist() == [1, 0]
    first, second = images(asked[0]), images(asked[1])
    shown = sorted([[image[0, 0, 0] for image in images(request)] for request in asked])
    assert shown == [[10, 50], [30, 90], [50, 10], [90, 30]] and len(first) == len(second) == 2
    assert "press a button" in text(asked[0]) and "{" not in text(asked[0])


VERDICTS = {
    "the first, always": (["1", "1"], [0, 0]),
    "the second, always": (["2", "2"], [0, 0]),
    "first, then tie": (["1", "0"], [0, -0.5]),
    "tie, then its first": (["0", "1"], [0, 0.5]),
    "ties": (["0", "0"], [0, 0]),
    "second in both orders": (["2", "1"], [0, 1]),
}


@pytest.mark.parametrize("kind", VERDICTS)
def test_both_orders_count(
    kind: str, asked: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, returns = VERDICTS[kind]
    in_order = {True: f"Answer: {answers[0]}", False: f"Answer: {answers[1]}"}
    reply_by(monkeypatch, asked, lambda request: said(in_order[bool(images(request)[0][0, 0, 0] == 10)]))
    judge = source(tmp_path)
    assert judge.judge(np.array([[10, 50]])).returns.tolist() == [returns]
    assert judge.columns()["vlm_contradicted"] == float("always" in kind)


def test_equal_strips_tie_unasked(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    judge = source(tmp_path)
    assert labels_of(judge.judge(np.array([[20, 20]])).returns, "drop").tolist() == [0.5]
    assert asked == [] and judge.columns()["vlm_requests"] == 0


def test_ratings_and_log_probabilities_are_returns(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    pairs = np.array([[64, 128], [128, 64]])
    rated = source(tmp_path, vlm__question="rating").judge(pairs)
    assert rated.returns == pytest.approx(np.array([[2.68, 5.18], [5.18, 2.68]]))  # of the mean shades 68.5 and 132.5
    assert len(asked) == 2  # two segments, whatever the number of pairs
    judged = source(tmp_path, vlm__question="done").judge(pairs)
    assert judged.returns == pytest.approx(np.array([[-68.5, -132.5], [-132.5, -68.5]]))
    assert len(asked) == 4 and asked[-1]["logprobs"] is True and asked[-1]["max_tokens"] == 1


def test_pairs_without_an_answer_have_no_returns_and_are_counted(
    asked: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies: dict[int, dict[str, Any]] = {
        10: said("Answer: 9"),
        20: said("I'm sorry, I can't rate this."),
        30: said(None, refusal="No."),
        40: said("It is nice."),
        50: {"choices": []},
        60: {"choices": [{"finish_reason": "content_filter"}]},
        70: said("Answer: 3"),
    }
    reply_by(monkeypatch, asked, lambda request: replies[int(images(request)[0][0, 0, 0])])
    judge = source(tmp_path, vlm__question="rating", vlm__queries=4)
    judgement = judge.judge(np.array([[10, 20], [30, 40], [50, 60], [70, 10]]))
    assert judgement.answered.tolist() == [False, False, False, True]
    assert judgement.of(judgement.answered).returns.tolist() == [[3, 9]]
    assert judge.columns() == {
        "vlm_requests": 8, "vlm_tokens": 600, "vlm_refused": 3, "vlm_malformed": 2, "vlm_contradicted": 0
    }  # fmt: skip


def test_what_is_asked_again_is_not_counted_again(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    """Earlier pairs are judged again at every session; after a restart, their answers come from the cache."""
    first, second = np.array([[1, 2], [3, 4], [5, 6]]), np.array([[7, 8], [9, 10], [11, 12]])
    judge = source(tmp_path)
    judge.judge(first)
    stored = {name: tensor.clone() for name, tensor in judge.state().items()}
    whole = judge.judge(np.concatenate((first, second)))
    assert len(asked) == 12 and judge.columns()["vlm_requests"] == 12 and judge.columns()["vlm_tokens"] == 1200
    resumed = source(tmp_path)
    resumed.state()["endpoint_totals"].copy_(stored["endpoint_totals"])
    again = resumed.judge(np.concatenate((first, second)))
    assert np.array_equal(again.returns, whole.returns) and len(asked) == 12
    assert resumed.columns() == judge.columns()


def test_a_limit_is_that_of_the_run(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    config, execution = config_of(), quiet(tmp_path, vlm_max_requests=8)
    judge = EndpointVLM(config, StripMaker(Shades(), 0, config), EndpointClient(execution), Stopwatch())  # type: ignore[arg-type]
    first, second = np.array([[1, 2], [3, 4], [5, 6]]), np.array([[7, 8], [9, 10], [11, 12]])
    judge.judge(first)
    with pytest.raises(PrefVLMError, match="limit of 8 requests"):
        judge.judge(np.concatenate((first, second)))
    assert 6 <= len(asked) <= 8  # the one that was refused stops those beside it, which may not have been sent yet


def test_log_probabilities_that_do_not_list_true_are_malformed(
    asked: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply_by(monkeypatch, asked, lambda request: listed(False_=-0.1, no=-3.0))
    judge = source(tmp_path, vlm__question="done")
    assert not judge.judge(np.array([[1, 2]])).answered.any()
    assert judge.columns()["vlm_malformed"] == 2


def test_labels_of_equal_returns_are_ties() -> None:
    assert labels_of(np.zeros((3, 2), np.float32), "drop").tolist() == [0.5] * 3
    assert labels_of(np.zeros((3, 2), np.float32), "none").tolist() == [0] * 3
    assert labels_of(np.empty((0, 2), np.float32), "drop").shape == (0,)
