"""Trainings whose labels come from an endpoint: repeated from the cache, interrupted, refused, and not started."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.endpoint import KEY, Endpoint, brighter, images, running, said, status
from builders.refusals import is_one_line
from builders.runs import content_hash, quiet, small

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import RunConfig
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.stored import load_labels
from prefvlm_core.train import train
from prefvlm_core.vlm.endpoint.prompts import fingerprint

FAKE = {"vlm.model": "endpoint:org/tiny", "vlm.ties": "drop", "vlm.strip_pixels": 32, "adapter.enabled": False}
FAKE |= {"total_steps": 300}  # three sessions


def config_of(method: str = "vlm-preference", **changes: Any) -> RunConfig:
    return small(method, FAKE | {name.replace("__", "."): value for name, value in changes.items()})


FLEET = [
    config_of(),
    config_of("prefvlm", vlm__question="rating", vlm__strip_frames=2),
    config_of("prefvlm-adaptive", vlm__question="done", vlm__ties="none"),
    config_of("rlvlmf"),
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFVLM_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with running() as server:
        monkeypatch.setenv("PREFVLM_ENDPOINT", server.address)
        server.answer = brighter
        yield server


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunDirectory]]:
    with running() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in (("ENDPOINT", server.address), ("API_KEY", KEY)):
            patch.setenv(f"PREFVLM_{name}", value)
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        server.answer = brighter
        directories = train(FLEET, quiet(tmp_path_factory.mktemp("trained"), vlm_parallel=8))
        assert {headers["Authorization"] for _, headers, _ in server.seen} == {f"Bearer {KEY}"}
    yield directories  # the server is off from here on


def test_every_way_of_asking_labels_pairs(trained: list[RunDirectory]) -> None:
    pair, rating, done, single = [directory.read_metrics()[-1] for directory in trained]
    assert pair["human_labels"] == 0 < pair["vlm_labels"] <= 3 * 12
    assert rating["human_labels"] >= 8 and done["human_labels"] >= 8
    assert pair["vlm_requests"] == 2 * (36 - equal_strips(trained[0]))
    assert rating["vlm_requests"] == done["vlm_requests"] == 2 * 24  # the first session is the human's
    for last in (pair, rating, done, single):
        assert last["vlm_tokens"] == 100 * last["vlm_requests"]
        assert last["vlm_refused"] == last["vlm_malformed"] == last["vlm_contradicted"] == 0
    for directory in trained:
        labels = load_labels([directory])
        by_vlm = labels[labels["teacher"] == "vlm"]
        assert set(by_vlm["label"]) <= {0, 0.5, 1} and (by_vlm["divergence"] >= 0).all()
    filtered = load_labels([trained[1]]).query("teacher == 'vlm'")
    assert {"clean", "uncertain"} & set(filtered["partition"])


def equal_strips(directory: RunDirectory) -> int:
    """Pairs of the VLM that show the same frames, every fifth of the run, and so are not asked about."""
    labels = load_labels([directory]).query("teacher == 'vlm'")
    return int((labels["first"] // 5 == labels["second"] // 5).sum())


def test_the_manifest_names_the_model_and_the_prompts(trained: list[RunDirectory]) -> None:
    for directory in trained:
        manifest, vlm = directory.manifest, directory.config.vlm
        assert manifest["vlm_fingerprint"] == fingerprint(directory.config)
        assert manifest["vlm_fingerprint"].startswith(f"endpoint:org/tiny {vlm.question}-")
        assert manifest["vlm_text"] == "press a button" and manifest["frames"] == "after the action"


def test_the_key_and_the_address_are_nowhere_on_disk(trained: list[RunDirectory]) -> None:
    results = trained[0].path.parents[3]
    files = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    assert any("answers" in str(path) for path in files) and len(files) > 50
    assert [path for path, content in files.items() if KEY.encode() in content or b"127.0.0.1" in content] == []


def test_the_runs_repeat_from_the_cache_without_the_endpoint(
    trained: list[RunDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFVLM_API_KEY")
    monkeypatch.delenv("PREFVLM_ENDPOINT", raising=False)
    shutil.copytree(trained[0].path.parents[3] / "answers", tmp_path / "answers")
    again = train(FLEET, quiet(tmp_path))
    assert [content_hash(one) for one in again] == [content_hash(one) for one in trained]


def test_a_run_stopped_within_a_session_ends_the_same(
    trained: list[RunDirectory], endpoint: Endpoint, tmp_path: Path
) -> None:
    with pytest.raises(PrefVLMError, match=r"reached its limit of 60 requests .* goes on"):
        train(FLEET, quiet(tmp_path, checkpoint_seconds=0, vlm_max_requests=60))
    sent = len(endpoint.seen)
    resumed = train(FLEET, quiet(tmp_path))
    assert [content_hash(one) for one in resumed] == [content_hash(one) for one in trained]
    asked = {str(body) for _, _, body in endpoint.seen}
    assert len(asked) + 1 == len(endpoint.seen) > sent > 60  # only the checks of two runs are alike


def test_answers_that_are_none_drop_their_pairs_only(endpoint: Endpoint, tmp_path: Path) -> None:
    """One model refuses always, and another one babbles about every recording that begins dark."""

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["model"] == "refuser":
            return said("I'm sorry, I can't compare these recordings.")
        return said("Both are fine.") if int(images(request)[0].sum()) % 3 == 0 else brighter(request)

    endpoint.answer = answer
    models = {"vlm-preference": "refuser", "prefvlm": "refuser", "prefvlm-no-filter": "babbler"}
    configs = [config_of(method, **{"vlm.model": f"endpoint:{name}"}) for method, name in models.items()]
    for directory in train(configs, quiet(tmp_path, vlm_parallel=8)):
        last, labels = directory.read_metrics()[-1], load_labels([directory])
        by_vlm = labels[labels["teacher"] == "vlm"] if len(labels) else labels
        if directory.config.vlm.endpoint == "refuser":
            assert last["vlm_labels"] == last["vlm_malformed"] == 0 < last["vlm_refused"] == last["vlm_requests"]
            assert len(by_vlm) == equal_strips(directory) < 12  # ties, without a question
            assert last["human_labels"] == (8 if directory.config.method == "prefvlm" else 0)
        else:
            assert 0 < last["vlm_malformed"] < last["vlm_requests"] and last["vlm_refused"] == 0
            assert 0 < len(by_vlm) < 2 * 12 and 8 < last["human_labels"] <= 8 + 2 * 5


# ---- what stops before anything is written


def refused(config: RunConfig, results: Path) -> str:
    with pytest.raises(PrefVLMError) as caught:
        train([config], quiet(results, vlm_timeout=5.0))
    assert is_one_line(caught.value) and list(results.iterdir()) == []
    return str(caught.value)


def test_a_wrong_model_leaves_nothing(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [status(404, {"error": {"message": "model 'org/tiny' not found"}})]
    assert "knows no such model or path (HTTP 404: model 'org/tiny' not found)" in refused(config_of(), tmp_path)


def test_a_wrong_key_leaves_nothing(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [status(401)]
    assert "refuses the key (HTTP 401); PREFVLM_API_KEY is to hold a valid one" in refused(config_of(), tmp_path)


def test_no_address_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFVLM_ENDPOINT", raising=False)
    assert "PREFVLM_ENDPOINT is not set" in refused(config_of(), tmp_path)


def test_a_model_that_takes_no_images_leaves_nothing(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.misbehaviors = [status(400, {"error": "image input is not supported"})]
    assert "refuses the question (HTTP 400: image input is not supported)" in refused(config_of(), tmp_path)


def test_an_empty_answer_leaves_no_run(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.answer = lambda request: said("")
    with pytest.raises(PrefVLMError, match="endpoint:org/tiny gives an empty answer within 300 tokens; if it thinks"):
        train([config_of()], quiet(tmp_path))
    assert len(endpoint.seen) == 1 and not (tmp_path / "quick").exists()


def test_finished_runs_ask_nothing(trained: list[RunDirectory], endpoint: Endpoint) -> None:
    train(FLEET, quiet(trained[0].path.parents[3]))
    assert endpoint.seen == []


def test_log_probabilities_must_be_there_where_they_are_needed(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.answer = lambda request: said("True")
    with pytest.raises(PrefVLMError, match=r"gives no log probabilities \(top_logprobs\) for endpoint:org/tiny"):
        train([config_of(vlm__question="done")], quiet(tmp_path))
    assert not (tmp_path / "quick").exists()
