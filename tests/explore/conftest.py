"""What the tests of the explorers share: the project's stored runs, and one small run whose folder is at hand."""

import pytest
import torch
from builders.runs import quiet, small

from prefvlm_core.runs.directory import ADAPTERS_FILE, RunDirectory
from prefvlm_core.train import train
from prefvlm_core.vlm import load
from prefvlm_core.vlm.labeller import ADAPTERS


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A small run of PrefVLM that kept its replay, with adapters that are in use."""
    (run,) = train([small("prefvlm")], quiet(tmp_path_factory.mktemp("kept"), keep_replay=True))
    model = load(run.config.vlm.model)
    dimension = len(model.encode_task(run.config.task))
    path, kind = run.path / ADAPTERS_FILE, ADAPTERS[run.config.adapter.kind]
    adapters = kind.read(path, model.fingerprint, run.config.adapter, dimension, 4, torch.device("cpu"))
    adapters._accepted.fill_(True)
    adapters.save(path, model.fingerprint)
    return run
