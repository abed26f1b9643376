"""What an endpoint is asked about segments, and how its answers are read. All prompts are here.

A segment is shown as a strip: some of its frames side by side, in time from left to right. The wording is ours; the
ways of asking are those of the papers named at each prompt.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prefvlm_core.config.run import RunConfig
from prefvlm_core.domains.registry import domain_of
from prefvlm_core.vlm.endpoint.answers import Answer


@dataclass(frozen=True)
class Prompt:
    """One way of asking."""

    texts: tuple[str, ...]
    """What is said before, between and after the images; `{task}` stands for the task's text."""
    most_tokens: int
    """Length of the answer at most, in tokens."""
    log_probabilities: bool = False
    """Whether the log probabilities of the answer's first token are asked for."""

    @property
    def version(self) -> str:
        """A hash of the prompt: another one whenever its wording changes."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:8]


_SCENE = (
    "You see recordings of {scene}, in simulation. A recording is one image: its frames stand side by side, in time "
    "from left to right. {Agent} is to {task}.\n"
)

PROMPTS: Mapping[str, Prompt] = {
    # RL-VLM-F (Wang et al. 2024, §4.1): which of two images shows more progress, with "no difference" as an answer. It
    # asks a second time to sum the first answer up; here a fixed last line takes the place of that.
    "pair": Prompt(
        (
            _SCENE + "\nRecording 1:",
            "\nRecording 2:",
            "\nIn which of the two does {agent} come closer to this goal: {task}? Say in one or two sentences what "
            "happens in each. Then end with a line that reads 'Answer: 1' for recording 1, 'Answer: 2' for recording "
            "2, or 'Answer: 0' if neither is better.",
        ),
        most_tokens=300,
    ),
    # ERL-VLM (Luu et al. 2025): one segment is rated on a scale; pairs follow from the ratings.
    "rating": Prompt(
        (
            _SCENE + "\nThe recording:",
            "\nHow far does {agent} come towards this goal: {task}? Say in one or two sentences what happens. Then "
            "end with a line that reads 'Answer: N', where N is a whole number from 0, no progress at all, to 10, the "
            "goal is reached.",
        ),
        most_tokens=200,
    ),
    # TOPReward (2026): the log probability that the model gives to "True" after the statement that the task is done.
    "done": Prompt(
        (
            _SCENE + "\nThe recording:",
            "\nStatement: at the end of this recording {agent} has reached its goal, to {task}. Is the statement "
            "true? Answer with one word, True or False.",
        ),
        most_tokens=1,
        log_probabilities=True,
    ),
}
"""Maps `vlm.question` to the prompt, in which `{scene}` and `{agent}` stand for what the task's domain says."""


def prompt_of(config: RunConfig) -> Prompt:
    """The prompt of a run, in the words of its domain."""
    prompt, domain = PROMPTS[config.vlm.question], domain_of(config.task)
    words = {"{scene}": domain.scene, "{agent}": domain.agent, "{Agent}": domain.agent.capitalize()}
    texts = prompt.texts
    for name, word in words.items():
        texts = tuple(text.replace(name, word) for text in texts)
    return dataclasses.replace(prompt, texts=texts)


def fingerprint(config: RunConfig) -> str:
    """The model, what it is asked, and the version of the prompt."""
    return f"{config.vlm.model} {config.vlm.question}-{prompt_of(config).version}"


HIGHEST_RATING = 10
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
_LAST_LINE = re.compile(rf"answer[\s:=*_`\"'(\[]*({_NUMBER})", re.IGNORECASE)
_ONLY_A_NUMBER = re.compile(rf"[\s*_`\"'.]*({_NUMBER})[\s*_`\"'.]*")
_REFUSAL = re.compile(
    r"\W*(?:(?:i['’]?m|i am|we['’]?re) (?:very |so )?(?:sorry|unable|not able)|sorry|i apologi[sz]e|unable to"
    r"|i (?:can['’]?t|can ?not|won['’]?t|will not|must decline))\b",
    re.IGNORECASE,
)


def preferred(answer: Answer) -> float | None:
    """Which recording an answer to `pair` prefers: -1 the first, 1 the second, 0 neither; None if it does not say."""
    return {0.0: 0.0, 1.0: -1.0, 2.0: 1.0}.get(_number(answer.text))


def rating(answer: Answer) -> float | None:
    """The rating in an answer to `rating`, 0 to `HIGHEST_RATING`; None if there is none."""
    number = _number(answer.text)
    return number if 0 <= number <= HIGHEST_RATING else None


def log_probability(answer: Answer) -> float | None:
    """The log probability (nats) of "True" in an answer to `done`, whatever its case and spaces.

    None where "True" is not among the tokens that the endpoint lists: its probability is then unknown.
    """
    said = [value for token, value in answer.first_token if token.strip().lower() == "true"]
    return min(float(np.logaddexp.reduce(said)), 0.0) if said else None


def is_refusal(answer: Answer) -> bool:
    """Whether the model declined to answer; to be asked about answers that cannot be read only."""
    return answer.refused or _REFUSAL.match(answer.text) is not None


def _number(text: str) -> float:
    """The number on the last line of an answer, or all of it; nan if there is none."""
    found = _LAST_LINE.findall(text)
    if found:
        return float(found[-1])
    alone = _ONLY_A_NUMBER.fullmatch(text)
    return float(alone[1]) if alone else math.nan
