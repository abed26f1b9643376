"""Tests of what is said where open_clip is missing or cannot be imported, in processes of their own."""

import subprocess
import sys

import pytest

import prefvlm_core

PROGRAM = """
from prefvlm_core import vlm
from prefvlm_core.common.errors import PrefVLMError
try:
    vlm.load("open_clip:ViT-B-32", "x.pt")
except PrefVLMError as error:
    print(error)
"""
MISMATCH = "raise RuntimeError('operator torchvision::nms does not exist')"
MISSING = "raise ModuleNotFoundError(\"No module named 'torchvision'\", name='torchvision')"
OTHER_BUILD = "raise ImportError('libtorch_cuda.so: cannot open shared object file')"


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ({"torchvision": MISMATCH}, ("torchvision::nms does not exist", "--force-reinstall torch torchvision")),
        ({"torchvision": OTHER_BUILD}, ("libtorch_cuda.so", "--force-reinstall torch torchvision")),
        ({"torchvision": "", "open_clip": "import nothing_here"}, ("No module named 'nothing_here'", "[openclip]")),
        (
            {"torchvision": "", "open_clip": "from os import no_name"},
            ("import name 'no_name'", "open_clip_torch"),
        ),
        ({"torchvision": MISSING}, ("needs open_clip (No module named 'torchvision')", "install 'prefvlm[openclip]'")),
    ],
)
def test_the_cure_fits_what_is_wrong(modules, said, tmp_path):
    for name, content in modules.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(content)
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(prefvlm_core.__path__[0]) + '/..'!r}]"
    done = subprocess.run([sys.executable, "-c", path + PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1 and all(words in done.stdout for words in said), done.stdout
    if "torchvision" in said[1]:
        assert "prefvlm[openclip]" not in done.stdout  # which is installed already
