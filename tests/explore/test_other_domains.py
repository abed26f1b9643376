"""The explorers open runs of every domain, also of one without a scripted expert."""

from pathlib import Path

import pytest
from builders.explore import words
from builders.runs import SMALL, quiet

from prefvlm_core.explore import EpisodeExplorer, LabelExplorer, ThresholdExplorer, films
from prefvlm_core.methods import run_config
from prefvlm_core.train import train


@pytest.mark.parametrize(
    ("task", "module", "acts"),
    [
        ("maze-two-goals", "gymnasium_robotics", [films.EXPERT, films.NOISY, films.RANDOM]),
        ("walker-walk", "dm_control", [films.RANDOM]),
    ],
)
def test_explorers_open_a_run_of_another_domain(task: str, module: str, acts: list[str], tmp_path: Path) -> None:
    pytest.importorskip(module, reason="needs the extra of its domain")
    train([run_config(task, "prefvlm", 0, "quick", SMALL)], quiet(tmp_path))
    episodes = EpisodeExplorer("quick", tmp_path)
    assert {"button-press-v3", task} <= set(episodes.task.options)
    episodes.factor.value = "color"
    episodes.task.value = task
    assert list(episodes.behavior.options) == acts and episodes.factor.value == "color"
    episodes.run.value = episodes.run.options[1]
    episodes.behavior.value, episodes.step.value = films.POLICY, 100
    assert bytes(episodes.frame.value).startswith(b"\x89PNG") and "learned reward" in words(episodes.numbers.value)
    for explorer in (LabelExplorer("quick", tmp_path), ThresholdExplorer("quick", tmp_path)):
        assert explorer.chooser.run.config.task == task
