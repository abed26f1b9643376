"""docs/howto/endpoint.md: its numbers and names are those of the code."""

import re
from pathlib import Path

from prefvlm_core.config.groups import VLMConfig
from prefvlm_core.config.run import Execution
from prefvlm_core.methods import run_config
from prefvlm_core.vlm.endpoint.client import ATTEMPTS
from prefvlm_core.vlm.endpoint.prompts import PROMPTS
from prefvlm_core.vlm.endpoint.transport import ADDRESS_VARIABLE, KEY_VARIABLE

PAGE = (Path(__file__).parents[3] / "docs" / "howto" / "endpoint.md").read_text(encoding="utf-8")
COSTS = re.findall(r"^\| (\S+) \| (quick|laptop|paper) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, flags=re.M)


def test_the_costs_are_those_of_the_schedule() -> None:
    assert len(COSTS) == 8
    for method, profile, *numbers in COSTS:
        changes = {"vlm.model": "endpoint:a", "vlm.ties": "drop", "adapter.enabled": False}
        config = run_config("drawer-open-v3", method, 0, profile, changes)
        steps = range(config.first_session_step, config.total_steps, config.feedback.session_every)
        sessions = len(steps) - (config.feedback.budget > 0)  # the first one is the human's
        pairs = sessions * config.vlm.queries
        assert list(map(int, numbers)) == [pairs, 2 * pairs, 4 * pairs]


def test_what_the_page_names_is_there() -> None:
    assert ADDRESS_VARIABLE in PAGE and KEY_VARIABLE in PAGE
    assert all(f"| `{question}` |" in PAGE for question in PROMPTS)
    limits = {name for name in vars(Execution()) if name.startswith("vlm_") and name != "vlm_weights"}
    assert {option.replace("-", "_") for option in re.findall(r"`--(vlm-[a-z-]+)`", PAGE)} == limits
    assert f"({VLMConfig().strip_frames})" in PAGE and f"({VLMConfig().strip_pixels})" in PAGE
    assert f"({Execution().vlm_parallel})" in PAGE and f"({Execution().vlm_timeout:g})" in PAGE
    assert ATTEMPTS == 6 and "up to six times" in PAGE
    assert max(prompt.most_tokens for prompt in PROMPTS.values()) == 300 and "at most 300 tokens" in PAGE
