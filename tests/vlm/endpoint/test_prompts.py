"""What answers are read as."""

import math
import re

import pytest

from prefvlm_core.config.run import RunConfig
from prefvlm_core.methods import run_config
from prefvlm_core.vlm.endpoint.answers import Answer
from prefvlm_core.vlm.endpoint.prompts import (
    PROMPTS,
    Prompt,
    fingerprint,
    is_refusal,
    log_probability,
    preferred,
    prompt_of,
    rating,
)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("The first one closes the drawer.\nAnswer: 1", -1),
        ("Answer: 2", 1),
        ("**Answer:** 2.", 1),
        ("**Answer: 2**", 1),
        ("`answer = 0`", 0),
        ("ANSWER:\n2", 1),
        ("Answer: 1 would be wrong.\nAnswer: 2", 1),  # the last one counts
        ("<think>Answer: 1?</think> Answer: 0", 0),
        ("2", 1),
        (" **1**\n", -1),
        ("Answer: 3", None),
        ("Answer: -1", None),
        ("Answer: 1.5", None),
        ("Answer: 12", None),
        ("Answer: the first", None),
        ("There are 2 recordings", None),
        ("", None),
        ("Answer:", None),
        ("Answer: ١", None),  # no ASCII digit
    ],
)
def test_choices(text: str, meant: float | None) -> None:
    assert preferred(Answer(text)) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("It moves a little.\nAnswer: 3", 3),
        ("Answer: 7/10", 7),
        ("Answer: 10.", 10),
        ("Answer: 2.5", 2.5),
        ("0", 0),
        ("Answer: 11", None),
        ("Answer: -2", None),
        ("Answer: N", None),
        (f"Answer: {'9' * 400}", None),
        ("I saw 3 frames and it was good", None),
    ],
)
def test_ratings(text: str, meant: float | None) -> None:
    assert rating(Answer(text)) == meant


def test_log_probabilities_add_up_the_spellings() -> None:
    listed = (("True", math.log(0.3)), (" true", math.log(0.2)), ("False", math.log(0.4)), ("Truely", -0.1))
    assert log_probability(Answer(first_token=listed)) == pytest.approx(math.log(0.5))
    assert log_probability(Answer(first_token=(("True", -9999.0),))) == -9999  # no underflow
    assert log_probability(Answer(first_token=(("True", 1e-7),))) == 0  # rounded above 1
    assert log_probability(Answer("True", first_token=(("False", -0.1),))) is None
    assert log_probability(Answer("True")) is None


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry",
        "Sorry, no.",
        "I cannot compare these.",
        "I am unable to view images.",
        "Unable to say",
        "I can not do this",
        "I apologize, but",
    ],
)
def test_refusals(text: str) -> None:
    assert is_refusal(Answer(text)) and is_refusal(Answer("anything", refused=True))


@pytest.mark.parametrize("text", ["", "The robot cannot reach it.", "Candidate 1", "I see a drawer", "Sorrywood"])
def test_no_refusals(text: str) -> None:
    assert not is_refusal(Answer(text))


@pytest.mark.parametrize(
    "response",
    [
        {},
        {"choices": None},
        {"choices": []},
        {"choices": {}},
        {"choices": ["text"]},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": None}}]},
        {"choices": [{"message": {"content": [{"type": "text"}]}}], "usage": 5},
        {"choices": [{"message": {"content": 5}, "logprobs": {"content": []}}]},
        {"choices": [{"logprobs": {"content": [{"token": "True"}]}}]},
        {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "True"}, {"logprob": -1}, "x", None]}]}}]},
        {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "True", "logprob": math.nan}]}]}}]},
        {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "True", "logprob": math.inf}]}]}}]},
        {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "True", "logprob": 10**400}]}]}}]},
        {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "True", "logprob": True}]}]}}]},
        {"choices": [{"logprobs": "none"}]},
    ],
)
def test_responses_of_another_form_hold_no_answer(response: dict[str, object]) -> None:
    answer = Answer.of(response)
    assert answer == Answer() and preferred(answer) is rating(answer) is log_probability(answer) is None


def test_what_a_response_says() -> None:
    entry = {"token": "True", "top_logprobs": [{"token": "True", "logprob": -1, "bytes": [84]}]}
    choice = {"message": {"content": "True"}, "logprobs": {"content": [entry]}, "finish_reason": "stop"}
    answer = Answer.of({"choices": [choice], "usage": {"total_tokens": 7}})
    assert answer == Answer("True", False, (("True", -1.0),), 7)
    assert Answer.of({"choices": [{"message": {"refusal": "No.", "content": None}}]}).refused
    assert Answer.of({"choices": [{"finish_reason": "content_filter"}]}).refused


def asking(question: str, task: str = "button-press-v3") -> RunConfig:
    changes = {"vlm.model": "endpoint:a", "vlm.question": question, "vlm.ties": "drop", "adapter.enabled": False}
    return run_config(task, "prefvlm", 0, "quick", changes)


@pytest.mark.parametrize("question", PROMPTS)
def test_prompts_describe_the_domain(question: str) -> None:
    shown = {
        "button-press-v3": ("a robot arm above a table,", "The robot is to {task}"),
        "point-maze-u": ("a green ball in a maze, seen from above,", "The agent is to {task}"),
        "walker-walk": ("a two-legged robot on a floor, seen from the side,", "The robot is to {task}"),
    }
    for task, words in shown.items():
        said = " ".join(prompt_of(asking(question, task)).texts)
        assert all(word in said for word in words) and set(re.findall("{.*?}", said)) == {"{task}"}
        assert ("arm" in said) == (task == "button-press-v3")
    assert len({prompt_of(asking(question, task)).version for task in shown}) == len(shown)


def test_prompts_insert_the_task_and_name_their_version() -> None:
    for name, prompt in PROMPTS.items():
        assert len(prompt.texts) == (3 if name == "pair" else 2)
        assert all("{task}" in text for text in (prompt.texts[0], prompt.texts[-1]))
    # Of Meta-World: answers that are stored were given to these prompts.
    versions = {"pair": "1deead55", "rating": "643e45e7", "done": "710ae532"}
    assert {name: fingerprint(asking(name)) for name in PROMPTS} == {
        name: f"endpoint:a {name}-{version}" for name, version in versions.items()
    }
    texts = ("one", "two")
    assert len({Prompt(texts, 5).version, Prompt(texts, 6).version, Prompt(("one", "two "), 5).version}) == 3
    assert Prompt(texts, 5).version == Prompt(texts, 5).version
