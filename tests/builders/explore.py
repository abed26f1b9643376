"""What the tests of the explorers read: the project's stored runs, and the text of what is shown."""

import re
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "results"


def words(html: str) -> str:
    """The text of HTML, on one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())
