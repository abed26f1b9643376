"""What the package itself offers: its public names, on demand, in whatever order modules are imported."""

import ast
import importlib
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import prefvlm_core


def test_every_public_name_is_the_object_that_its_module_defines() -> None:
    offered: dict[str, object] = {}
    exec("from prefvlm_core import *", offered)
    assert set(prefvlm_core.__all__) <= offered.keys() and set(prefvlm_core.__all__) <= set(dir(prefvlm_core))
    for name, module in prefvlm_core._HOMES.items():
        assert offered[name] is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="module 'prefvlm_core' has no attribute 'trian'"):
        _ = prefvlm_core.trian


def test_type_checkers_are_told_the_same_public_names() -> None:
    source = ast.parse(Path(str(prefvlm_core.__file__)).read_text(encoding="utf-8"))
    (checking,) = [node for node in source.body if isinstance(node, ast.If)]
    imports = [node for node in checking.body if isinstance(node, ast.ImportFrom)]
    assert {alias.asname: node.module for node in imports for alias in node.names} == prefvlm_core._HOMES


def test_the_module_train_does_not_hide_the_function_train() -> None:
    from prefvlm_core.train import Fleet, train

    assert prefvlm_core.train is train and inspect.isfunction(train)
    assert sys.modules["prefvlm_core.train"].Fleet is Fleet
    assert pickle.loads(pickle.dumps(train)) is train  # so that it can be handed to another process


def test_the_function_train_can_be_imported_before_its_module() -> None:
    program = """
from prefvlm_core import train
import prefvlm_core.train
from prefvlm_core.train import Fleet, train as the_same
assert prefvlm_core.train is train is the_same, prefvlm_core.train
"""
    subprocess.run([sys.executable, "-c", program], check=True)
