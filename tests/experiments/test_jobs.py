"""What a batch is asked to do, what its jobs run, and what Snakemake makes of it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders.runs import finish

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.experiments import batch
from prefvlm_core.experiments.batch import record_path, update_records
from prefvlm_core.experiments.fleets import configs_of, experiments_of, profile_fleets
from prefvlm_core.experiments.jobs import LONGEST_MINUTES, Jobs, workflow_profile
from prefvlm_core.runs.checkpoint import fleet_hash
from prefvlm_core.vlm import uses_vlm, weights_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("Snakefile", "notebooks", "profiles", "prefvlm_core"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dry_run(*config: str) -> tuple[int, str]:
    """Snakemake's exit code, and what it would do."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--printshellcmds", "--cores", "8", "--config", *config]
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return said.returncode, said.stdout


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"device": "auto"},
            "device must be cpu or cuda in a batch, got 'auto': no machine can tell what those have on",
        ),
        ({"devise": "cuda"}, "Unknown --config 'devise'. Did you mean 'device'?"),
        ({"profile": "labtop"}, "Unknown profile 'labtop'. Did you mean 'laptop'?"),
        ({"fleet_size": 0}, "fleet_size must be at least 1, got 0."),
        (
            {"notebooks": "02_learning_curve"},
            "Unknown notebook '02_learning_curve'. Did you mean '02_learning_curves'?",
        ),
    ],
)
def test_what_is_not_allowed_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(PrefVLMError, match=re.escape(message)):
        Jobs.of(config)


def test_the_config_goes_to_snakemake_and_comes_back() -> None:
    jobs = Jobs("laptop", "my results", "cuda", "liv.pt", "env:TMPDIR", 4, "02_learning_curves 05_transfer")
    assert Jobs.of(dict(word.split("=", 1) for word in jobs.config) | {"fleet_size": 4}) == jobs
    assert Jobs().config == ["profile=quick"]
    assert Jobs.of({"results": 2026, "scratch": 7, "fleet_size": 4}) == Jobs(results="2026", scratch="7", fleet_size=4)


def test_only_fleets_that_need_weights_are_given_them(tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    jobs = Jobs("paper", device="cuda", vlm_weights=str(weights), scratch="env:TMPDIR", fleet_size=4)
    seeing = {name for name, fleet in jobs.fleets.items() if any(c.vlm.model == "liv" and uses_vlm(c) for c in fleet)}
    given = {name for name in jobs.fleets if str(weights) in jobs.command(name, 4)}
    assert given == seeing and 0 < len(seeing) < len(jobs.fleets)
    (name, *_) = seeing
    assert jobs.command(name, 4) == (
        f"fleet {name} --profile paper --fleet-size 4 --results results --device cuda --workers 3 "
        f"--vlm-weights {weights} --scratch env:TMPDIR"
    )
    with pytest.raises(PrefVLMError, match=rf"'liv' needs its weights, but the file {weights} does not exist."):
        jobs.check_weights(jobs.trained)
    jobs.check_weights(sorted(set(jobs.fleets) - seeing))
    weights.touch()
    jobs.check_weights(jobs.trained)


def test_fleets_of_several_models_give_the_weights_to_those_that_read_them() -> None:
    fleets = profile_fleets("paper").values()
    models = [{config.vlm.model for config in fleet if uses_vlm(config)} for fleet in fleets]
    mixed = [names for names in models if "liv" in names and len(names) > 1]
    assert mixed
    for names in mixed:
        assert {name: weights_for(name, "model.pt") for name in names} == dict.fromkeys(names) | {"liv": "model.pt"}


def test_attempts_ask_for_more_up_to_a_day() -> None:
    jobs = Jobs("quick")
    fleet = next(iter(jobs.fleets))
    first, third = jobs.resources(fleet), jobs.resources(fleet, 3)
    assert (third.minutes, third.megabytes, third.cpus) == (3 * first.minutes, 3 * first.megabytes, first.cpus)
    assert jobs.resources(fleet, 10_000).minutes == LONGEST_MINUTES == 1_440


def test_the_size_of_fleets_changes_the_jobs_and_not_the_runs(tmp_path: Path) -> None:
    large, small = profile_fleets("quick"), profile_fleets("quick", 4)
    assert max(map(len, small.values())) == 4 < max(map(len, large.values())) and len(small) > len(large)
    runs = [sorted(config.run_id for fleet in fleets.values() for config in fleet) for fleets in (large, small)]
    assert runs[0] == runs[1]
    # A checkpoint is that of the runs that were trained together; finished runs count whatever they were trained with.
    assert {fleet_hash([c.run_id for c in fleet]) for fleet in large.values() if len(fleet) > 4}.isdisjoint(
        fleet_hash([c.run_id for c in fleet]) for fleet in small.values()
    )
    for config in next(iter(large.values())):
        finish(tmp_path, config)
    update_records(tmp_path, "quick", 4)
    done = {name for name in small if record_path(tmp_path, "quick", name).exists()}
    assert done == {name for name, fleet in small.items() if set(fleet) <= set(next(iter(large.values())))} and done


def test_snakemake_plans_every_job_of_the_profile(checkout: Path) -> None:
    code, said = dry_run("profile=quick", "device=cuda", "scratch=env:TMPDIR")
    assert code == 0, said
    stats = dict(re.findall(r"^(all|fleet|notebook|table|total) +(\d+)$", said, re.MULTILINE))
    fleets, notebooks = len(profile_fleets("quick")), len(experiments_of("quick"))
    wanted = {"all": 1, "fleet": fleets, "notebook": notebooks, "table": 1, "total": fleets + notebooks + 2}
    assert stats == {name: str(count) for name, count in wanted.items()}
    called = rf"run\(\) {{ {re.escape(sys.executable)} -m prefvlm_core fleet (fleet-\w+) (.*?) 2>&1"
    jobs = re.findall(called, said)
    assert {name for name, _ in jobs} == profile_fleets("quick").keys()
    seeing = {name for name, fleet in profile_fleets("quick").items() if any(map(uses_vlm, fleet))}
    for name, words in jobs:  # those whose runs see frames ask for more cores than the eight that there are
        assert f"--device cuda --workers {7 if name in seeing else 3} --scratch env:TMPDIR" in words
    assert said.count("threads: 8") == len(seeing) and said.count("threads: 4") == fleets - len(seeing) > 0
    assert said.count("gpu=1") == fleets
    for name, configs in profile_fleets("quick").items():
        asked = Jobs("quick", device="cuda").resources(name)
        assert f"mem_mb={asked.megabytes}, " in said and f"runtime={asked.minutes}" in said, configs


def test_snakemake_plans_only_what_a_notebook_shows(checkout: Path) -> None:
    needed = {config.run_id for config in configs_of("07_human_labeling", "quick")}
    fleets = [name for name, fleet in profile_fleets("quick").items() if needed & {config.run_id for config in fleet}]
    code, said = dry_run("notebooks=07_human_labeling")
    stats = dict(re.findall(r"^(all|fleet|notebook|table) +(\d+)$", said, re.MULTILINE))
    assert code == 0 and stats == {"all": "1", "fleet": str(len(fleets)), "notebook": "1"}
    assert set(re.findall(r"-m prefvlm_core fleet (fleet-\w+)", said)) == set(fleets)
    assert "gpu=1" not in said and "--device cpu --workers 1" in said


def test_snakemake_refuses_a_device_that_only_a_machine_can_tell(checkout: Path) -> None:
    code, said = dry_run("device=auto")
    assert code == 1 and "device must be cpu or cuda in a batch, got 'auto'" in said


def test_an_executor_needs_settings(checkout: Path) -> None:
    assert workflow_profile("slurm") == Path("profiles/slurm")
    with pytest.raises(PrefVLMError, match=r"Unknown --executor 'slrum'. Did you mean 'slurm'\?"):
        workflow_profile("slrum")


def test_another_executor_has_its_own_settings_and_time_to_cancel(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[list[str], float]] = []
    monkeypatch.setattr(batch, "run_with_children", lambda words, _, patience: calls.append((words, patience)) or 0)
    assert batch.reproduce(Jobs("quick", device="cuda"), "slurm", options=["--retries", "9"]) == 0
    assert batch.reproduce(Jobs("quick"), "local", 2) == 0
    (slurm, patience), (local, none) = calls
    assert patience > 0 and none == 0
    assert ["--config", "profile=quick", "device=cuda"] == slurm[3:6] and "--cores" not in slurm
    assert slurm[-4:] == ["--workflow-profile", "profiles/slurm", "--retries", "9"]
    assert local[-2:] == ["--cores", "2"] and "--workflow-profile" not in local
