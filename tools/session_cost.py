"""What one feedback session of a run at the papers' scale costs: processor seconds and memory, over the pairs so far.

    python tools/session_cost.py [PAIRS ...]

The frames' embeddings are random and have LIV's size; a session labels all pairs again by adapters, and the reward
ensemble judges them for the filter. Writes a cache of 2 kB per step to a temporary folder.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from prefvlm_core.agent.replay import Replay
from prefvlm_core.common.arrays import FloatArray, IntArray
from prefvlm_core.common.stopwatch import Stopwatch
from prefvlm_core.domains.tasks import ACTION_SIZE, OBSERVATION_SIZE
from prefvlm_core.methods import run_config
from prefvlm_core.reward.ensemble import RewardEnsemble
from prefvlm_core.vlm.encoder import RunEncoder
from prefvlm_core.vlm.feature_cache import FeatureCache
from prefvlm_core.vlm.labeller import AdaptedVLM, fresh_adapters

CONFIG = run_config("sweep-into-v3", "prefvlm", 0, "paper")
DIMENSION = 1_024
CPU = torch.device("cpu")


def pairs_of(sessions: int) -> IntArray:
    """The pairs (n, 2) that a run has asked about after so many sessions."""
    drawing, feedback, horizon = np.random.default_rng(0), CONFIG.feedback, CONFIG.horizon
    asked = []
    for session in range(1, sessions + 1):
        complete = session * feedback.session_every // horizon
        episodes = drawing.integers(max(0, complete - feedback.recent_episodes), complete, (CONFIG.vlm.queries, 2))
        within = drawing.integers(horizon - feedback.segment_length + 1, size=episodes.shape)
        asked.append(episodes * horizon + within)
    return np.concatenate(asked)


def embed(runs: IntArray, steps: IntArray) -> FloatArray:
    """Random embeddings (K, DIMENSION)."""
    drawn = np.random.default_rng(int(steps[0])).standard_normal((len(steps), DIMENSION), np.float32)
    return drawn / np.sqrt(DIMENSION)


def show(runs: IntArray, steps: IntArray) -> FloatArray:
    """Frames that show nothing but their step, (K, 1)."""
    return steps[:, None].astype(np.float32)


class Peak:
    """The most memory (bytes) that this process has taken since it began to look, beyond what it had then."""

    def __init__(self) -> None:
        self.before = self.most = self._now()
        self._done = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self._done.wait(0.01):
            self.most = max(self.most, self._now())

    @staticmethod
    def _now() -> int:
        status = Path("/proc/self/status").read_text().split("RssAnon:")[1]
        return 1024 * int(status.split()[0])

    def megabytes(self) -> float:
        self._done.set()
        return (self.most - self.before) / 1e6


def measure(pairs: int) -> str:
    """One line of the table."""
    sessions = -(-pairs // CONFIG.vlm.queries)
    steps = -(-sessions * CONFIG.feedback.session_every // CONFIG.horizon) * CONFIG.horizon
    replay = Replay(1, steps, CONFIG.horizon, OBSERVATION_SIZE, ACTION_SIZE, 1, 1, CPU)
    for tensor in (replay.observations, replay.actions, replay.rewards):
        tensor.uniform_(-1, 1)
    replay.size = steps
    starts = pairs_of(sessions)[:pairs]
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder), "random", 1, steps, DIMENSION)
        fleet = SimpleNamespace(
            replay=replay, features=lambda run, asked: cache.get(np.zeros_like(asked), asked, show, embed)
        )
        model = SimpleNamespace(fingerprint="random")
        encoder = RunEncoder(fleet, 0, CONFIG, embed(starts[0], starts[0])[0], model)  # type: ignore[arg-type]
        adapters = fresh_adapters(CONFIG.adapter, DIMENSION, 4, np.random.default_rng(0))
        adapters.load(adapters.state() | {"accepted": torch.tensor(True)})
        source = AdaptedVLM(encoder, adapters, Stopwatch())
        source.judge(starts[: -CONFIG.vlm.queries])  # what earlier sessions have done
        ensemble = RewardEnsemble(
            CONFIG.reward, replay.input_size, [np.random.default_rng(0)], CPU, CONFIG.task
        ).of_run(0)
        peak, start = Peak(), time.process_time()
        source.judge(starts)
        judged = time.process_time()
        ensemble.member_probabilities(replay.of_run(0), starts, CONFIG.feedback.segment_length)
        seconds = judged - start, time.process_time() - judged
    return f"{pairs:>8,}{steps:>12,}{seconds[0]:>14.1f}{seconds[1]:>14.1f}{peak.megabytes():>14.0f}"


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'pairs':>8}{'steps':>12}{'VLM, s':>14}{'ensemble, s':>14}{'peak, MB':>14}")
    for pairs in map(int, sys.argv[1:] or ("4000", "16000", "42000")):
        print(measure(pairs), flush=True)


if __name__ == "__main__":
    main()
