"""Every Markdown file shows on GitHub what it should, its links lead somewhere, and it keeps to one spelling."""

import re
from html.parser import HTMLParser
from pathlib import Path

import cmarkgfm
import pytest

ROOT = Path(__file__).parents[1]
PLACES = ("*.md", "docs/**/*.md", "results/*/NOTES.md", "prefvlm_core/**/*.md")
MADE = ROOT / "docs" / "reference" / "api"  # by `make docs`
TEXTS = sorted(path for place in PLACES for path in ROOT.glob(place) if path.parent != MADE)
BRITISH = re.compile(
    r"\w*colour\w*|\w*labell\w+|\w*modell\w+|\w*(?:centi|milli|kilo)metre\w*|\w*behaviour\w*|licence|programme|favour\w*|grey"
    r"|(?:standard|normal|optim|digit|initial|real|summar|organ|general|minim|maxim)is(?:e|es|ed|ing|ation)\b",
    re.IGNORECASE,
)


class Page(HTMLParser):
    """What a reader sees: rows of tables, headings with the text that follows, and all text outside code."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.sections: list[tuple[str, list[str]]] = []
        self.text = ""
        self.inside: list[str] = []
        self.feed(cmarkgfm.github_flavored_markdown_to_html(markdown))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif re.fullmatch("h[1-6]", tag):
            self.sections.append((tag, ["", ""]))
        if tag not in ("img", "br", "hr", "input"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.inside:
            assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.inside):
            self.rows[-1][-1] += data
        if self.sections:
            heading = re.search("h[1-6]", " ".join(self.inside)) is not None
            self.sections[-1][1][0 if heading else 1] += data.strip()
        if "code" not in self.inside:
            self.text += data


def source_rows(markdown: str) -> list[list[str]]:
    """The rows of all tables, split as GitHub splits them: at each `|` that no backslash precedes."""
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S)
    lines = [line.strip() for line in prose.splitlines() if line.lstrip().startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in rows if not all(re.fullmatch(":?-+:?", cell) for cell in row)]


def faults(markdown: str) -> list[str]:
    """Everything that GitHub would not show as it was meant."""
    page, rows = Page(markdown), source_rows(markdown)
    found = [f"{sign} shows" for sign in ("<!--", "-->", "{{", "{%", "{#", "◆") if sign in page.text]
    if len(page.rows) != len(rows):
        found.append(f"{len(rows)} rows of tables, {len(page.rows)} shown")
    for row, shown in zip(rows, page.rows, strict=False):
        if len(row) != len(shown) or any(cell and not text.strip() for cell, text in zip(row, shown, strict=False)):
            found.append(f"a row of {len(row)} cells shows as {shown}")
    for number, (level, (heading, text)) in enumerate(page.sections):
        followed_by_deeper = number + 1 < len(page.sections) and page.sections[number + 1][0] > level
        if not heading or not (text or followed_by_deeper):
            found.append(f"the heading '{heading}' is empty")
    return found


def test_the_texts_are_found() -> None:
    names = {str(path.relative_to(ROOT)) for path in TEXTS}
    assert {"README.md", "CONTRIBUTING.md", "docs/reference/glossary.md", "results/laptop/NOTES.md"} <= names


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_github_shows_all_of_it(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


def test_what_github_would_drop_is_seen() -> None:
    good = "# Title\n\ntext `{{ x }}`\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n"
    assert faults(good) == []
    assert len(faults(good.replace("| 1 |", "| 1<!-- table | x --> |"))) == 3
    assert faults(good.replace("| 2 |", "|")) and faults(good.replace("|---|--:|", "|---|"))
    assert faults(good.replace("text `{{ x }}`", "text {{ x }}")) == ["{{ shows"]
    assert faults("# Title\n\n## Part\n\ntext\n") == []
    assert faults("# Title\n\n# Part\n\ntext\n") == ["the heading 'Title' is empty"]
    assert faults("# Title\n\ntext\n\n#\n") == ["the heading '' is empty"]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


def test_the_readme_is_short_and_imports_in_one_line() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    assert "from prefvlm_core import load_metrics, run_config, train\n" in text


def test_the_glossary_names_modules_that_exist() -> None:
    rows = source_rows((ROOT / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8"))
    modules = [row[2].strip("`") for row in rows if row[2] != "module"]
    assert len(modules) > 40
    assert [name for name in modules if not (ROOT / "prefvlm_core" / name).exists()] == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_spelling_is_american(path: Path) -> None:
    """Code, links and the names of arms, which are data, are left out."""
    text = re.sub(
        r"^```.*?^```|`[^`]*`|\]\([^)]*\)|[\w-]+, standardised \(",
        "",
        path.read_text(encoding="utf-8"),
        flags=re.M | re.S,
    )
    assert BRITISH.findall(text) == []


def test_british_spelling_is_seen() -> None:
    assert BRITISH.findall("a labelled colour, standardised; labeled color, promise, noise, metres apart") == [
        "labelled",
        "colour",
        "standardised",
    ]
