"""The manifest names what can change a run's numbers beside its config."""

import math
import os
from importlib.metadata import packages_distributions, version
from pathlib import Path

import torch
from builders.runs import quiet, small
from packaging.version import Version

from prefvlm_core.config.run import Execution
from prefvlm_core.domains.registry import DOMAINS
from prefvlm_core.runs.manifest import describe_training
from prefvlm_core.train import train
from prefvlm_core.vlm import distributions_of, load


def test_how_answers_were_waited_for_is_recorded() -> None:
    told = describe_training(Execution(late_answers=True, label_timeout=5.0, threads=3), torch.device("cpu"), 2)
    assert (told["late_answers"], told["label_timeout"], told["threads"], told["workers"]) == (True, 5.0, 3, 2)
    assert told["clip_trace"] is False
    assert (told["device"], told["instructions"]) == ("cpu", torch.backends.cpu.get_cpu_capability())
    assert told["versions"].keys() >= {"mujoco", "numpy", "metaworld"}
    # torch's own name of a version has a local part, such as +cu132, that the package of some builds leaves out
    assert Version(told["versions"]["torch"]).public == Version(torch.__version__).public
    assert (
        told["plugin"] is None
        and describe_training(Execution(plugin="json"), torch.device("cpu"), 1)["plugin"] == "json"
    )
    unlimited = describe_training(Execution(), torch.device("cpu"), 1)
    assert Execution().label_timeout == math.inf and unlimited["label_timeout"] is None


def test_versions_are_those_of_all_that_a_runs_domain_and_vlm_need() -> None:
    of_module = packages_distributions()
    for domain in DOMAINS.values():
        if domain.extra:
            names = {name.replace("_", "-") for name in of_module[domain.extra[0]]}
            assert names <= set(domain.distributions), domain.title
        told = describe_training(Execution(), torch.device("cpu"), 1, (*domain.distributions, "not-installed"))
        plain = describe_training(Execution(), torch.device("cpu"), 1)["versions"]
        added = {name: version(name) for name in domain.distributions}
        assert added and told["versions"] == plain | added
    seen = small("prefvlm", {"vlm.model": "open_clip:ViT-B-32"}), small("prefvlm", {"vlm.model": "goal:efficientnet"})
    assert distributions_of(seen[0]) == ("open_clip_torch", "torchvision")
    assert set(distributions_of(seen[1])) >= set(of_module["efficientnet_lite_pytorch"])
    assert distributions_of(small("prefvlm")) == distributions_of(small("pebble")) == ()


def test_a_run_names_the_weights_of_the_vlm_that_it_asked(tmp_path: Path) -> None:
    with_vlm, without = train([small("vlm-preference"), small("pebble")], quiet(tmp_path))
    assert with_vlm.manifest["vlm_fingerprint"] == load("tinyliv2").fingerprint
    assert without.manifest["vlm_fingerprint"] is None
    assert without.manifest["versions"]["gymnasium"] == version("gymnasium")
    assert with_vlm.manifest["gl_backend"] == os.environ["MUJOCO_GL"]
    assert with_vlm.manifest["pairs_left_open"] == without.manifest["pairs_left_open"] == 0
