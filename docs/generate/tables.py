"""The tables that `prefvlm table` computes."""

from prefvlm_core.analysis.report import KEYS


def text() -> str:
    """A Markdown table of their files, with the columns that name a row of each."""
    rows = [f"| `{name}.csv` | {', '.join(f'`{column}`' for column in columns)} |" for name, columns in KEYS.items()]
    return "\n".join(["| file in `results/<profile>/` | a row is named by |", "|---|---|", *rows]) + "\n"
