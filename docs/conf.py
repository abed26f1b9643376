"""Settings of the documentation site. The source is the whole repository, so that links between its Markdown files, be
they in `docs/` or beside what they describe, mean the same here and on GitHub."""

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

import generate
from generate import api

import prefvlm_core

project, author = "prefvlm", "The prefvlm contributors"
copyright = author
release = prefvlm_core.__version__
extensions = ["sphinx.ext.autodoc", "myst_nb", "sphinx_copybutton", "sphinx_design"]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "docs/results/notebooks/*.ipynb",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "results/*/NOTES.md",
    "results/*/PLAN.md",
    "prefvlm_core/vlm/weights/*.md",
]
exclude_patterns = [".*", "build"]
templates_path = ["_templates"]

myst_heading_anchors = 3
nb_execution_mode = "off"  # `generate.notebooks` takes the executed copies that there are

autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
autodoc_inherit_docstrings = False
smartquotes = False  # -- is an option
default_role = "py:obj"
nitpick_ignore_regex = [
    ("py:obj", r"(?s).*"),  # what stands in backticks in a docstring is code, and a link where it is a name of ours
    ("py:.*", r".*Annotated\[.*|prefvlm_core\..*\.(_\w+|Entry|Answer|Outcome|Value)"),  # private, and type variables
    ("py:.*", r"(?!prefvlm_core\b).*"),  # other libraries: their inventories are on the net, and the build is offline
]

html_theme = "furo"
html_title = "prefvlm"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "redirect.html"}
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = "$ "


def link_fields(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Let each name of a config field that stands in backticks lead to the field."""
    objects = app.env.domains["std"].get_objects()
    fields = {name: place for name, _, kind, *place, _ in objects if kind == "confval"}
    for literal in list(tree.findall(nodes.literal)):
        name = literal.astext().split(" ")[0]
        if "." in name and name in fields and not isinstance(literal.parent, nodes.title | nodes.reference):
            target, anchor = fields[name]
            link = nodes.reference("", "", internal=True)
            link["refuri"] = f"{app.builder.get_relative_uri(page, target)}#{anchor}"
            literal.replace_self(link)
            link += literal


def read_docstring(*event: Any) -> None:
    """Turn the lines of a docstring, the last argument of this event, into reStructuredText."""
    event[-1][:] = api.docstring(event[-1])


def setup(app: Sphinx) -> None:
    """Write what code knows better than people before Sphinx looks for pages."""
    app.connect("config-inited", lambda app, config: generate.write())
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("doctree-resolved", link_fields)
