"""The parts of the site that code knows better than people. They are written before Sphinx looks for pages, into files
that git ignores: texts that a page includes (`.inc`), a page per room of the package, and one per notebook."""

from pathlib import Path

from generate import api, commands, deviations, fields, gpu, names, notebooks, tables

DOCS = Path(__file__).parents[1]
FOLDERS = (DOCS / "reference" / "api", DOCS / "results" / "notebooks")
"""Hold generated pages only."""


def files() -> dict[Path, str]:
    """Every generated file with its text."""
    texts = {DOCS / "reference" / "api" / f"{room}.md": text for room, text in api.pages().items()}
    texts |= {DOCS / "results" / "notebooks" / f"{name}.ipynb": text for name, text in notebooks.pages().items()}
    return texts | {
        DOCS / "explanation" / "deviations.inc": deviations.text(),
        DOCS / "howto" / "gpu.inc": gpu.text(),
        DOCS / "reference" / "commands.inc": commands.text(),
        DOCS / "reference" / "fields.inc": fields.text(),
        DOCS / "reference" / "names.inc": names.text(),
        DOCS / "reference" / "tables.inc": tables.text(),
        DOCS / "reference" / "public_names.inc": api.public_names(),
        DOCS / "reference" / "rooms.inc": api.rooms_table(),
    }


def write() -> None:
    """Write what has changed, so that Sphinx reads only that again, and remove pages of what is gone."""
    texts = files()
    for folder in FOLDERS:
        folder.mkdir(exist_ok=True)
        for path in set(folder.iterdir()) - texts.keys():
            path.unlink()
    for path, text in texts.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
