"""Each command that the pages show is one that the program takes: options, and the presets and stages it names.

Nothing is run. Words in capitals stand for what a reader fills in; shell variables count as 0.
"""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from parity_tests.goldens import REPOSITORY
from pipelines import cli
from pipelines.support import values

PAGES = ["README.md", "CONTRIBUTING.md", *sorted(
    path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs").rglob("*.md"))]
# Presets of a reader's own, which docs/your_own_images.md makes up.
OWN = {"mine"}
AT_ONCE = ("--help", "--install-completion")


def lines(text: str) -> list[str]:
    """Lines of the indented, fenced and boxed code of a page, those that end with a backslash joined."""
    fenced = "".join(re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.M | re.S))
    code = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    code += fenced.splitlines() + re.findall(r"^> `([^`]+)`<br>$", text, re.M)
    return [line for line in "\n".join(code).replace("\\\n", " ").splitlines() if line.strip()]


def commands(text: str) -> list[list[str]]:
    """The words of each command of a page that is ours: `scae …`, `… -m pipelines.…`, `dvc repro …`."""
    found = []
    for line in lines(text):
        line = re.sub(r"\$\(([^)]*)\)", r"0 ; \1 ;", re.sub(r"(^|\s)#.*|>.*", "", line))
        for part in re.split(r"&&|;|\||\bdo\b", line):
            plain = re.sub(r"\$\w+", "0", part).replace("[", "").replace("]", "").rstrip(") ")
            try:
                words = shlex.split(plain)
            except ValueError:
                continue
            if words[:1] == ["scae"] or words[:2] == ["dvc", "repro"] or (
                    "-m" in words and words[words.index("-m") + 1].startswith(("pipelines.", "parity_tests."))):
                found.append(words)
    return found


COMMANDS = {f"{page}: {' '.join(words)}": words for page in PAGES
            for words in commands((REPOSITORY / page).read_text())}


def program(words: list[str]) -> tuple[Any, list[str]]:
    """What reads a command's options, and the words that it reads."""
    if words[0] == "scae":
        command, rest = cli.typer.main.get_command(cli.app), words[1:]
    else:
        name, rest = words[words.index("-m") + 1], words[words.index("-m") + 2:]
        folder = REPOSITORY / name.replace(".", "/")
        command = importlib.import_module(f"{name}.__main__" if folder.is_dir() else name).main.command
    commands = getattr(command, "commands", {})
    return (commands[rest[0]], rest[1:]) if rest and rest[0] in commands else (command, rest)


def test_the_pages_have_commands() -> None:
    """Or the tests below would be empty; and a wrong option is seen."""
    assert len(COMMANDS) > 80 and {words[1] for words in COMMANDS.values() if words[0] == "scae"} >= {
        "train", "evaluate", "convert", "verify", "record", "inspect", "report", "export", "add", "reconstruct"}
    assert not understood(["scae", "train", "--no-such-option"]) and not understood(["scae", "export"])
    assert understood(["scae", "train", "--preset", "mnist"])


def understood(words: list[str]) -> bool:
    """Whether the program takes the words; what stands alone and acts at once, as --help, is looked up."""
    command, rest = program(words)
    if len(rest) == 1 and rest[0] in AT_ONCE:
        return rest[0] == "--help" or any(rest[0] in parameter.opts for parameter in command.params)
    try:
        command.make_context("", list(rest))
    except Exception as error:
        if isinstance(error, values.BadInput) or hasattr(error, "format_message"):
            return False
        raise
    return True


@pytest.mark.parametrize("page", PAGES)
def test_the_programs_take_them(page: str) -> None:
    chosen = [words for name, words in COMMANDS.items() if name.startswith(f"{page}: ") and words[0] != "dvc"]
    assert not [" ".join(words) for words in chosen if not understood(words)]


def test_presets_and_stages_that_are_named() -> None:
    """Presets stand in params.yaml, and stages in the file of the pipeline that the command names."""
    presets = set(values.load_params(REPOSITORY / "params.yaml")["presets"]) | OWN
    wrong = []
    for words in COMMANDS.values():
        wrong += [f"{' '.join(words)}: {after}" for word, after in zip(words, words[1:])
                  if word == "--preset" and after not in presets and not after.isupper()]
        if words[0] == "dvc":
            for target in [word for word in words[2:] if not word.startswith("-")]:
                file, _, stage = target.rpartition(":")
                stages = yaml.safe_load(Path(REPOSITORY, file or "dvc.yaml").read_text())["stages"]
                if stage.partition("@")[0] not in stages:
                    wrong.append(f"{' '.join(words)}: no stage {stage}")
    assert not wrong
