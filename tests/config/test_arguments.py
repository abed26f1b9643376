"""Tests of command lines that cannot be read: every option of every command, misused in every way, gets a sentence."""

import re

import pytest

from prefvlm_core.cli import COMMANDS
from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.config.arguments import parse

PLACES = {"experiment": ["02"], "notebook": ["02"], "fleet": ["f"], "labels": ["status"], "list": ["tasks"]}
"""What commands need before their options."""


KINDS = {"INT": "one whole number", "FLOAT": "one number", "STR": "one text", "PATH": "one path"}


def refusal(*words: str) -> str:
    with pytest.raises(PrefVLMError) as refused:
        parse(COMMANDS, words, "")
    message = str(refused.value)
    assert "cannot be read" not in message and "\n" not in message, message
    return message


def options_in_help(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options as tyro's help lists them, each with what it takes: "--threads INT", "--train, --no-train"."""
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stopped:
        parse(COMMANDS, [command, "--help"], "")
    assert stopped.value.code == 0
    lines = [re.split("  +", line.strip("│ "))[0] for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if re.match("--[a-z]", line)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_named_with_what_it_takes(command, capsys, monkeypatch) -> None:
    start = [command, *PLACES.get(command, []), *(["--tasks", "x"] if command in ("train", "show") else [])]
    listed = options_in_help(command, capsys, monkeypatch)
    assert len(listed) >= {"train": 90, "show": 80, "list": 1}.get(command, 2)
    for number, line in enumerate(listed):  # one misuse of each, in turn, since reading the options takes a while
        flag, _, takes = line.partition(" ")
        if takes.startswith("--"):  # "--train, --no-train"
            switch = (flag.removesuffix(","), takes)[number % 2]
            assert refusal(*start, f"{switch}=7") == f"{switch} takes no value, got '7'."
        elif number % 4 == 0:
            told = refusal(*start, f"{flag}x", "1")
            assert told.startswith(f"Unknown option of prefvlm {command} '{flag}x'. Did you mean '--")
        elif "{" in takes and (number % 2 or "..." in takes):
            assert refusal(*start, flag, "banana").startswith(f"Unknown {flag} 'banana'. Allowed: ")
        elif "{" in takes:
            allowed = ", ".join(takes.strip("{}").split(","))
            assert refusal(*start, flag) == f"{flag} takes one of {allowed}, got none."
        elif "..." in takes:
            continue
        elif takes in ("INT", "FLOAT") and number % 4 == 1:
            assert refusal(*start, f"{flag}=many") == f"{flag} takes {KINDS[takes]}, got 'many'."
        elif number % 4 == 2:
            told, place = refusal(*start, flag, "1", "2"), f"{flag} takes {KINDS[takes]}."
            if command == "reproduce":  # whose words may be meant for Snakemake
                place = "options of Snakemake begin with a dash and come after two dashes."
            assert told.endswith(f"prefvlm {command} has no place for '2': {place}")
        else:
            assert refusal(*start, flag) == f"{flag} takes {KINDS[takes]}, got none."


@pytest.mark.parametrize("given", ["0,1", "0-4", "1.0", "x", "", "1;2", "[0,1]", "½", "0 1"])
def test_lists_of_numbers_are_written_with_spaces(given) -> None:
    told = f"--seeds takes whole numbers with spaces between them, like 0 1, got {given!r}."
    for words in (["--seeds", given], [f"--seeds={given}"], ["--seeds", "0", given]):
        assert refusal("train", "--tasks", "x", *words) == refusal("pretrain", *words) == told


@pytest.mark.parametrize("given", ["many", "", "1,5", "0x10", "½", "1e", "--", "1 000", "1\n2"])
def test_numbers_are_numbers(given) -> None:
    for flag, kind in (("--sac.width", "one whole number"), ("--sac.discount", "one number")):
        assert refusal("train", "--tasks", "x", f"{flag}={given}") == f"{flag} takes {kind}, got {given!r}."
    assert (
        refusal("train", "--tasks", "x", "--sac.width", "--seeds", "0")
        == "--sac.width takes one whole number, got none."
    )
    assert refusal("train", "--tasks", "x", "--sac.width", "1e6") == "--sac.width takes one whole number, got '1e6'."


def test_what_is_missing_is_named() -> None:
    for command in ("train", "show"):
        told = "Tasks, for example drawer-close-v3; `prefvlm list tasks` shows all."
        assert refusal(command) == f"prefvlm {command} needs --tasks: {told}"
    assert refusal("list").startswith("prefvlm list needs one of tasks, methods, vlms, ")
    assert refusal("labels") == "prefvlm labels needs one of status, agreement, export, import."
    for command in ("experiment", "notebook", "fleet"):
        assert refusal(command).startswith(f"prefvlm {command} needs a name: ")
    assert refusal("train", "--seeds", "0").startswith("prefvlm train needs --tasks: ")


@pytest.mark.parametrize(
    ("line", "words"),
    {
        "--seeds 0": "Unknown command '--seeds'.",
        "labels count": "Unknown action of prefvlm labels 'count'. Allowed: agreement, export, import, status.",
        "labels export import": "has no place for 'import': it takes options alone, which begin with --.",
        "runs --status finished new": "Unknown --status 'new'. Allowed: finished, not-started, retired, running.",
        "runs --status=": "Unknown --status ''. Allowed: ",
        "runs quick": "has no place for 'quick': it takes options alone, which begin with --.",
        "train --tasks x -j 4": "Unknown option of prefvlm train '-j'.",
        "train --tasks x -- 4": "has no place for '4': it takes options alone, which begin with --.",
        "train --tasks x --sac 4": "Did you mean '--sac.",
        "train --tasks x --threads 0": "threads must be at least 1, got 0.",
        "train --tasks x --label-timeout -inf": "label_timeout must be at least 0 seconds, got -inf.",
    }.items(),
)
def test_words_without_a_place(line, words) -> None:
    assert words in refusal(*line.split())


def test_what_is_right_is_parsed() -> None:
    line = "train --tasks=a --seeds 0 1 --sac.width=3 --reward.no-standardise --no-progress --label_timeout inf"
    train = parse(COMMANDS, line.split(), "")
    assert (train.tasks, train.seeds) == (("a",), (0, 1))
    assert {name: values for name, values in train.changes.items() if values} == {
        "sac": {"width": 3},
        "reward": {"standardise": False},
    }
    assert (train.execution.progress, train.execution.label_timeout) == (False, float("inf"))
    labels = parse(COMMANDS, ["labels", "--file", "a b", "export"], "")
    assert (labels.action, str(labels.file)) == ("export", "a b")
    assert re.fullmatch(r"\(\d, \d, \d\)", str(parse(COMMANDS, ["pretrain"], "").seeds))
