"""A full disk is told in one sentence, harms nothing, and training goes on once there is room: on a real small disk."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from builders.runs import config_of, contents, finish, quiet, small, weights_hash, without_seconds

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.plots import style
from prefvlm_core.runs.directory import RunDirectory
from prefvlm_core.runs.pack import pack
from prefvlm_core.train import train
from prefvlm_core.vlm.feature_cache import FeatureCache

Resize = Callable[[str], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """A disk of 64 KiB, and how to give it another size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a small disk")

    def resize(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    yield folder, resize
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """No block of the disk is left."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 4096)
    yield
    filler.unlink()


@contextmanager
def one_sentence(place: Path | str) -> Iterator[None]:
    """The error names the place and the reason."""
    with pytest.raises(PrefVLMError, match=re.escape(str(place))) as raised:
        yield
    message = str(raised.value)
    assert "No space left on device" in message and "\n" not in message and "free some space" in message


def test_features_that_do_not_fit_are_told_before_one_is_stored(disk: tuple[Path, Resize]) -> None:
    """Without blocks of its own, mapped memory kills the process at the first write, with SIGBUS."""
    folder, resize = disk
    with one_sentence(f"Cannot keep 0.5 MB of features in {folder}/fleet/frames-model-1x4000x64.bin"):
        FeatureCache(folder / "fleet", "model", runs=1, capacity=4000, dimension=64)
    assert contents(folder) == {}
    resize("1m")
    cache = FeatureCache(folder / "fleet", "model", runs=1, capacity=4000, dimension=64)
    with filled(folder):
        steps = np.arange(4000)
        shown = lambda runs, steps: np.zeros((4000, 1), np.float32)  # noqa: E731
        features = cache.get(np.zeros(4000, int), steps, shown, lambda runs, steps: np.tile(steps[:, None] % 100, 64))
    np.testing.assert_array_equal(features, np.tile(steps[:, None] % 100, 64))


@pytest.mark.parametrize("size", ["64k", "180k", "400k", "700k"])
def test_training_goes_on_once_there_is_room(size: str, disk: tuple[Path, Resize], tmp_path: Path) -> None:
    folder, resize = disk
    config = small("prefvlm")
    (uninterrupted,) = train([config], quiet(tmp_path / "elsewhere"))
    resize(size)
    with one_sentence(folder):
        train([config], quiet(folder, checkpoint_seconds=0))
    resize("16m")
    (resumed,) = train([config], quiet(folder, checkpoint_seconds=0))
    assert without_seconds(resumed) == without_seconds(uninterrupted)
    assert weights_hash(resumed) == weights_hash(uninterrupted)
    assert not list(folder.glob("quick/fleets/*")) and not list(folder.rglob(".*.tmp"))


def test_a_read_only_disk_with_finished_runs_is_no_obstacle(disk: tuple[Path, Resize]) -> None:
    folder, resize = disk
    resize("400k,rw")
    finish(folder, config_of(0))
    pack(folder, remove_folders=True)
    finish(folder, config_of(1))
    before = contents(folder)
    resize("400k,ro")
    directories = train([config_of(0), config_of(1)], quiet(folder))
    assert [directory.last_evaluation["success"] for directory in directories] == [0.5, 0.5]
    with pytest.raises(PrefVLMError, match=re.escape(f"Cannot write to the results folder {folder}/quick/")):
        train([config_of(2)], quiet(folder))
    assert contents(folder) == before


def test_tables_that_were_published_stay(disk: tuple[Path, Resize]) -> None:
    folder, resize = disk
    resize("400k")
    finish(folder, config_of(0))
    pack(folder)
    finish(folder, config_of(1))
    before = contents(folder)
    with filled(folder), one_sentence(folder / "quick"):
        pack(folder, remove_folders=True)
    assert contents(folder) == before
    assert [packed.added for packed in pack(folder)] == [1]
    assert all(RunDirectory(folder, config_of(seed)).published for seed in (0, 1))


def test_a_figure_that_was_drawn_stays(disk: tuple[Path, Resize]) -> None:
    folder, resize = disk
    resize("400k")
    figure, axes = plt.subplots()
    style.save(figure, "figure", folder / "figures")
    before = contents(folder)
    axes.plot([0, 1])
    with filled(folder), one_sentence(folder / "figures" / "figure.png"):
        style.save(figure, "figure", folder / "figures")
    assert contents(folder) == before
    style.save(figure, "figure", folder / "figures")
    plt.close(figure)
    assert contents(folder).keys() == before.keys() and contents(folder) != before


def test_what_the_system_cannot_reserve_is_still_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    cache = FeatureCache(tmp_path, "model", runs=1, capacity=10, dimension=3)
    one = np.ones(1, int)
    shown = lambda runs, steps: np.float32([[0]])  # noqa: E731
    assert cache.get(0 * one, 3 * one, shown, lambda runs, steps: np.ones((1, 3))).tolist() == [[1, 1, 1]]


def test_features_that_do_not_fit_are_told_on_any_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        assert (offset, size) == (0, 4000 * (8 + 2 * 64))
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with one_sentence(f"Cannot keep 0.5 MB of features in {tmp_path}"):
        FeatureCache(tmp_path, "model", runs=1, capacity=4000, dimension=64)
    assert contents(tmp_path) == {}
