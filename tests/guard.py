"""Train every method, and variants of them, for a few hundred steps and print a hash of what each run produced.

    python tests/guard.py [FILE]

Changes that are not meant to change a number leave every hash as it was: run it before and after, on the same machine.
With FILE, the hashes are compared with those stored there, or stored where there is no such file; the exit code is 1
where one differs.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from builders.runs import NO_HUMAN, SCALED, SMALL, content_hash

from prefvlm_core.config.run import Execution
from prefvlm_core.methods import METHODS, run_config
from prefvlm_core.train import train

CHANGES = SMALL | {"filter.beta_max": 3.0, "filter.beta_min": 1.0}
"""Of every run: the thresholds of RIME as in the papers, so that every part of the range has labels."""
VARIANTS = {
    "pebble, not standardized": ("pebble", {"reward.standardise": False}),
    "pebble with ties": ("pebble", {"feedback.teacher": "equal", "feedback.teacher_margin": 2.0}),
    "pebble with skips": ("pebble", {"feedback.teacher": "skip", "feedback.teacher_margin": 1.0}),
    "pebble with a noisy teacher": ("pebble", {"feedback.teacher": "noisy"}),
    "pebble with a myopic teacher": ("pebble", {"feedback.teacher": "myopic"}),
    "prefvlm with residual adapters": ("prefvlm", {"adapter.residual": True}),
    "prefvlm, labels never renewed": ("prefvlm", {"vlm.relabel": False}),
    "prefvlm, simulated VLM": ("prefvlm", {"vlm.model": "simulated:0.8", "adapter.enabled": False}),
    "vlm-preference with ties kept": ("vlm-preference", NO_HUMAN | {"vlm.ties": "keep"}),
}


def main() -> int:
    torch.set_num_threads(1)
    named = {method: (method, SCALED.get(method, {})) for method in METHODS} | VARIANTS
    configs = {
        name: run_config("button-press-v3", method, 0, "quick", CHANGES | changes)
        for name, (method, changes) in named.items()
    }
    with tempfile.TemporaryDirectory() as results:
        execution = Execution(results, workers=1, progress=False)
        runs = dict(zip(configs, train(list(configs.values()), execution), strict=True))
        source = {"adapter.source": configs["prefvlm"].run_id}
        transfer = run_config("drawer-close-v3", "prefvlm", 0, "quick", CHANGES | source)
        runs["prefvlm with transfer"] = train([transfer], execution)[0]
        hashes = {name: content_hash(directory) for name, directory in runs.items()}
    stored = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if stored and not stored.exists():
        stored.write_text(json.dumps(hashes, indent=1) + "\n")
    before = json.loads(stored.read_text()) if stored else hashes
    for name in before | hashes:
        print(f"{hashes.get(name, 'gone'):<18}{name}{'' if before.get(name) == hashes.get(name) else '   DIFFERS'}")
    return int(before != hashes)


if __name__ == "__main__":
    sys.exit(main())
