"""The cost of the vision-language model: its share of a run's wall time, and the time that each model takes a frame."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress

from prefvlm_core.bench import Group, Measurement
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.run import Execution
from prefvlm_core.methods import run_config
from prefvlm_core.train import train
from prefvlm_core.vlm import VisionLanguageModel, load
from prefvlm_core.vlm.embedding import seconds_per_frame
from prefvlm_core.vlm.open_clip import OpenClip, import_open_clip

_PARTS = ("rendering", "embedding", "labels", "adapters")
_FRAMES = 64  # a multiple of what every model embeds at once
QUICK: dict[str, int] = {}  # it is quick


def measure(steps: int = 1_400) -> Group:
    """One PrefVLM run of profile `laptop` on its own, shortened to `steps` actions, and every model that is installed.

    The first of its four sessions has the longest learning of the adapters, which weighs more than in a whole run.
    Takes 30 seconds on two slow cores.
    """
    config = run_config("button-press-v3", "prefvlm", 0, "laptop", {"total_steps": steps})
    with tempfile.TemporaryDirectory() as results:
        last = train([config], Execution(results=results, device="cpu", workers=1, progress=False))[0].read_metrics()[
            -1
        ]
    shares = {part: last[f"seconds_{part}"] / last["seconds"] for part in _PARTS}
    rows = [Measurement(f"prefvlm run, {part}", "of its time", share) for part, share in shares.items()]
    whole = sum(shares.values())
    rows.append(Measurement("prefvlm run, all of the VLM part", "of its time", whole, target="≤ 0.25"))
    limit = f"A VLM that cost nothing would make a run {1 / (1 - whole):.2f} times as fast."
    return Group(rows + [_embedding_time(name, model) for name, model in _installed()], limit)


def _installed() -> Iterator[tuple[str, VisionLanguageModel]]:
    """The models that need no file; of those of open_clip the architecture of LIV, untrained, which is as fast."""
    yield "tinyliv", load("tinyliv")
    with suppress(PrefVLMError):  # without the extra there is no row
        yield "efficientnet", load("efficientnet")
    with suppress(PrefVLMError):
        yield "open_clip:RN50", untrained_rn50()


def untrained_rn50() -> OpenClip:
    """A model as large as LIV. Raises `PrefVLMError` where open_clip cannot be imported."""
    open_clip = import_open_clip()
    return OpenClip(open_clip.create_model("RN50"), open_clip.get_tokenizer("RN50"), "untrained")


def _embedding_time(name: str, model: VisionLanguageModel) -> Measurement:
    title = f"a frame of {model.frame_size} px embedded by {name}"
    return Measurement(title, "ms", 1000 * seconds_per_frame(model, _FRAMES))
