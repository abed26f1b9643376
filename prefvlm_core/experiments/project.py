"""Where the project lies: notebooks find its results and figures from any working directory."""

from __future__ import annotations

from pathlib import Path

from prefvlm_core.common.errors import PrefVLMError, unknown_name

PACKAGE = Path(__file__).resolve().parents[1]


def project_folder() -> Path:
    """The checkout that the package is imported from; for an installed copy, the one around the working directory.

    Raises `PrefVLMError` where there is neither.
    """
    for folder in (PACKAGE.parent, *Path.cwd().joinpath("here").parents):
        if (folder / "notebooks").is_dir() and (folder / "prefvlm_core").is_dir():
            return folder
    raise PrefVLMError(
        f"There is no checkout of prefvlm around {Path.cwd()}; name the folders for results and figures yourself."
    )


def check_notebook(notebook: Path) -> None:
    """Raise `PrefVLMError` where there is no such file, with a suggestion from its folder."""
    if not notebook.parent.is_dir():
        raise PrefVLMError(f"There is no folder {notebook.parent}; run this in the folder that holds notebooks/.")
    if not notebook.exists():
        raise unknown_name("notebook", notebook.stem, (path.stem for path in notebook.parent.glob("*.ipynb")))
