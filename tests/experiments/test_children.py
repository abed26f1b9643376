"""Whatever ends `prefvlm reproduce` ends the batch; with real processes, and a stand-in for Snakemake."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from prefvlm_core.experiments.children import run_with_children

SNAKEMAKE = """
import os, subprocess, sys, time
from pathlib import Path
from typing import Any
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
inherited = subprocess.Popen(sleep)
kernel = subprocess.Popen(sleep, start_new_session=True)  # as Jupyter starts its kernels
job = subprocess.Popen(["/bin/sh", "-c", f"{sys.executable} -c 'import time; time.sleep(600)'; true"])
orphan = subprocess.run(["/bin/sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True)
pids = [os.getpid(), inherited.pid, kernel.pid, job.pid, int(orphan.stdout)]
Path("pids.tmp").write_text(" ".join(map(str, pids)))
os.replace("pids.tmp", "pids")
time.sleep(float(os.environ.get("BATCH_SECONDS", "600")))
sys.exit(7)
"""
"""Starts four processes: one of its own session, one of another, one below a shell, and one whose parent is gone."""


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a Snakefile, and a module `snakemake` that Python finds first."""
    (tmp_path / "Snakefile").touch()
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "snakemake.py").write_text(SNAKEMAKE, encoding="utf-8")
    return tmp_path


def environment(checkout: Path, **others: str) -> dict[str, str]:
    paths = [str(checkout / "modules"), *sys.path[1:]]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | others


def reproduce(checkout: Path, **others: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "prefvlm_core", "reproduce"],
        cwd=checkout,
        env=environment(checkout, **others),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_every_signal,
    )


def hear_every_signal() -> None:
    """Tests that run in the background, or below nohup, inherit signals that are ignored."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def started(checkout: Path) -> list[int]:
    wait_for((checkout / "pids").exists)
    pids = list(map(int, (checkout / "pids").read_text(encoding="utf-8").split()))
    assert len(pids) == 5 and all(map(alive, pids))
    return pids


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGKILL, -9)],
    ids=["SIGTERM", "SIGHUP", "SIGINT", "SIGKILL"],
)
def test_whatever_ends_the_batch_ends_all_its_processes(checkout: Path, number: int, code: int) -> None:
    batch = reproduce(checkout)
    pids = started(checkout)
    batch.send_signal(number)
    assert batch.wait(30) == code
    wait_for(lambda: not any(map(alive, pids)), 10)
    out, err = batch.communicate()
    assert "Traceback" not in err
    assert out.startswith("To be trained ") and "   made" not in out  # what it would do, and nothing of what it did


POLITE = """
import sys, time
from pathlib import Path
Path("begun").touch()
try:
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(float(sys.argv[1]))
    Path("jobs are cancelled").touch()
"""
"""What takes its jobs back at a SIGINT, as Snakemake does."""


@pytest.mark.parametrize(("seconds", "ended"), [(0.0, True), (600.0, False)], ids=["in time", "too late"])
def test_a_command_with_jobs_elsewhere_may_take_them_back(tmp_path: Path, seconds: float, ended: bool) -> None:
    program = (
        "import os, signal, sys\n"
        "from prefvlm_core.experiments.children import run_with_children\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of what a shell starts in the background\n"
        f"run_with_children([sys.executable, '-c', {POLITE!r}, '{seconds}'], os.environ, {10 if ended else 0.5})"
    )
    batch = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment(tmp_path))
    wait_for((tmp_path / "begun").exists)
    batch.terminate()
    assert batch.wait(60) == 143
    assert (tmp_path / "jobs are cancelled").exists() == ended


def test_nothing_is_left_when_snakemake_is_killed(checkout: Path) -> None:
    batch = reproduce(checkout)
    pids = started(checkout)
    os.kill(pids[0], signal.SIGKILL)
    assert batch.wait(30) == 128 + signal.SIGKILL and not any(map(alive, pids))
    batch.communicate()


def test_one_batch_at_a_time(checkout: Path) -> None:
    first = reproduce(checkout)
    pids = started(checkout)
    second = reproduce(checkout)
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out) == (2, "")
    words = "prefvlm: Another `prefvlm reproduce` is at work on results/quick; wait for it, or end it first.\n"
    assert err == words and all(map(alive, pids))
    first.terminate()
    first.communicate(timeout=30)


def test_a_batch_that_ends_says_how(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    command = [sys.executable, "-m", "snakemake"]
    assert run_with_children(command, environment(checkout, BATCH_SECONDS="0")) == 7
    pids = list(map(int, (checkout / "pids").read_text(encoding="utf-8").split()))
    assert not any(map(alive, pids))


@pytest.mark.parametrize(
    ("ends", "times", "code"),
    [
        ("exit 0", 1, 0),
        ("exit 1", 1, 1),
        ("kill -KILL $$", 2, 137),
        ("test -e again || { touch again; kill -KILL $$; }", 2, 0),
    ],
    ids=["done", "failed", "killed twice", "killed once"],
)
def test_a_job_that_is_killed_is_tried_once_more(tmp_path: Path, ends: str, times: int, code: int) -> None:
    source = (Path(__file__).parents[2] / "Snakefile").read_text(encoding="utf-8")
    functions: dict[str, Any] = {}
    exec(re.search(r"^def job\(.*?\n\n\n", source, re.DOTALL | re.MULTILINE)[0], functions)  # type: ignore[index]
    (tmp_path / "job.sh").write_text(f"echo begun\n{ends}\n", encoding="utf-8")
    command = functions["job"]("sh job.sh").replace("{log:q}", "'my log'").replace("{{", "{").replace("}}", "}")
    shell = ["bash", "-c", f"set -euo pipefail; {command}"]
    finished = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == code
    assert (tmp_path / "my log").read_text(encoding="utf-8").count("begun") == finished.stdout.count("begun") == times
