"""Command lines of any words: a command, the help, or one sentence."""

from builders.refusals import is_one_line
from hypothesis import given, settings
from hypothesis import strategies as st

from prefvlm_core.cli import COMMANDS
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.arguments import parse

FLAGS = ("--tasks", "--seeds", "--profile", "--results", "--sac.width", "--sac.discount", "--progress", "--threads")
FLAGS += ("--no-progress", "--reward.no-standardise", "--file", "--planned", "--merge", "--only", "--help", "-h", "--")
VALUES = (
    "0",
    "-1",
    "0,1",
    "1.5",
    "nan",
    "-inf",
    "quick",
    "None",
    "",
    "x=y",
    "=",
    "--",
    "-",
    "status",
    "ü",
    "\ud800",
    "\n",
)
WORDS = (
    st.sampled_from(FLAGS + VALUES)
    | st.tuples(st.sampled_from(FLAGS), st.sampled_from(VALUES)).map("=".join)
    | st.text(max_size=6)
)


@settings(max_examples=max(30, settings().max_examples // 10))
@given(st.sampled_from(tuple(COMMANDS)), st.lists(WORDS, max_size=6))
def test_any_words_are_a_command_or_refused_in_a_sentence(command, words):
    try:
        assert isinstance(parse(COMMANDS, [command, *words], "What it does."), COMMANDS[command])
    except PrefVLMError as error:
        assert is_one_line(error) and len(str(error)) < 2000, str(error)
        assert "cannot be read" not in str(error), str(error)
    except SystemExit as stopped:
        assert stopped.code == 0 and {"-h", "--help"} & set(words)
