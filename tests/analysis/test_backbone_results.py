"""Judged models: stored and read back, judged once per weights, and those that are missing named with the reason."""

import numpy as np
import pandas as pd
import pytest
import torch
from builders.backbones import Reader, bed_of
from builders.runs import quiet

from prefvlm_core.analysis import backbone_results as stored
from prefvlm_core.analysis.backbone_results import backbone_results, models_at_hand
from prefvlm_core.analysis.beds import MIXED, REPLAY, BedPlan, Films
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.vlm import VLMS

PLAN = BedPlan(("door-close-v3",), draws=2, episodes=12, films=1, steps=900, budgets=(60,))
NOISE = np.random.default_rng(0).integers(0, 256, (12, 12))


class Named(Reader):
    def __init__(self, name, sign=1):
        super().__init__(lambda value: sign * value)
        self.fingerprint = f"{name}-weights"


@pytest.fixture
def asked(monkeypatch):
    """Names of the models that were judged, on small made-up beds; the models at hand are `good` and `bad`."""
    names = []
    film = np.tile(np.arange(12, dtype=np.uint8)[None, :, None, None, None], (1, 1, 16, 16, 3))

    def judge_models(models, missing, profile, execution):
        names.append(sorted(models))
        return original(models, missing, profile, execution)

    original = stored.judge_models
    monkeypatch.setattr(stored, "judge_models", judge_models)
    monkeypatch.setattr(stored, "plan_of", lambda profile: PLAN)
    monkeypatch.setattr(stored, "kept_replays", lambda profile, execution: ["a run"])
    monkeypatch.setattr(stored, "replay_bed", lambda directory, size: bed_of(NOISE, REPLAY))
    monkeypatch.setattr(stored, "mixed_bed", lambda task, draw, episodes, size: bed_of(NOISE, MIXED))
    monkeypatch.setattr(stored, "expert_films", lambda *_: Films("door-close-v3", film, np.ones((1, 12), bool)))
    monkeypatch.setattr(
        stored, "models_at_hand", lambda: ({"good": Named("good"), "bad": Named("bad", -1)}, {"liv": "no file"})
    )
    return names


def test_what_is_judged_is_stored_and_read_back(asked, tmp_path):
    first = backbone_results("quick", quiet(tmp_path), measure=True)
    again = backbone_results("quick", quiet(tmp_path), measure=False)
    for one, other in zip(first, again, strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert asked == [["bad", "good"]]
    models = again.models.set_index("model")
    assert set(models.index) == {"good", "bad", "liv"} and models.loc["liv", "missing"] == "no file"
    assert models.loc["good", "fingerprint"] == "good-weights" and models.loc["good", "milliseconds"] > 0
    frozen = again.labels[(again.labels["reader"] == "zero-shot") & (again.labels["kind"] == REPLAY)].set_index("model")
    assert frozen.loc["good", "all"] == 1 and frozen.loc["bad", "all"] == 0
    assert len(again.labels[again.labels["kind"] == MIXED]) == 2 * (1 + 3) * 2 + 2 * 3  # models x readers, state probe
    assert (again.labels["model"] == "state").sum() == 3 * 3


def test_only_models_with_new_weights_are_judged_again(asked, tmp_path, monkeypatch):
    backbone_results("quick", quiet(tmp_path), measure=True)
    backbone_results("quick", quiet(tmp_path), measure=True)
    assert len(asked) == 1  # nothing is new
    newer = Named("good", -1)
    newer.fingerprint = "good-better"
    monkeypatch.setattr(stored, "models_at_hand", lambda: ({"good": newer, "bad": Named("bad", -1)}, {}))
    results = backbone_results("quick", quiet(tmp_path), measure=True)
    assert asked[1:] == [["good"]]
    assert results.models.groupby("model").size().to_dict() == {"good": 1, "bad": 1, "liv": 1}
    frozen = results.labels[(results.labels["reader"] == "zero-shot") & (results.labels["kind"] == REPLAY)]
    assert dict(zip(frozen["model"], frozen["all"], strict=True)) == {"good": 0, "bad": 0}


def test_nothing_is_judged_unasked_and_a_damaged_file_is_named(asked, tmp_path):
    with pytest.raises(PrefVLMError, match=r"No model was judged in profile quick: there is no .*backbones"):
        backbone_results("quick", quiet(tmp_path), measure=False)
    assert asked == []
    backbone_results("quick", quiet(tmp_path), measure=True)
    path = tmp_path / "quick" / "backbones" / "labels.csv"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(PrefVLMError, match=r"labels\.csv is damaged; restore it"):
        backbone_results("quick", quiet(tmp_path), measure=True)


def test_every_registered_model_is_at_hand_or_missing_for_a_reason():
    found, missing = models_at_hand()
    models = {name for name in VLMS if not name.endswith(":")}  # families have no weights of their own
    assert {*found, *missing} == models and not found.keys() & missing.keys()
    assert {"tinyliv", "random"} <= set(found) and all(len(reason.split()) > 4 for reason in missing.values())


def test_parameters_are_counted_in_a_model_within_a_model_too():
    class Outer(Reader):
        def __init__(self):
            self.encoder = VLMS["random"]("random", None)
            self.head = torch.nn.Linear(3, 2)

    inner = sum(values.numel() for values in Outer().encoder.network.parameters())
    assert sum(p.numel() for network in stored._networks(Outer()) for p in network.parameters()) == inner + 8
