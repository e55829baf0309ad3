"""How commands are declared: several words for one option, words of a choice, help with defaults, exit codes."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import pytest
import typer

from parity_tests.goldens import REPOSITORY
from pipelines import cli, prepare
from pipelines.support import command_line
from pipelines.support.command_line import Program, Seed, Set, among, several
from pipelines.support.values import CheckFailed

SAID: dict = {}


def command(place: Annotated[str | None, typer.Argument(metavar="PLACE")] = None,
            seeds: Annotated[list[int] | None, several("-s", "--seeds", metavar="N", help="Of the runs.")] = None,
            kinds: Annotated[list[str], several(metavar="KIND", help="Which.", callback=among(("ham", "eggs")))] = (
                "ham",),
            overrides: Set = None, seed: Seed = 3,
            fail: Annotated[bool, typer.Option("--fail", help="End with 1.")] = False) -> int:
    """A command."""
    SAID.clear()
    SAID.update(place=place, seeds=seeds, kinds=list(kinds), overrides=overrides, seed=seed)
    if seed == 9:
        raise CheckFailed("no")
    return 7 if fail else 0


main = Program("python -m toy", command)


@pytest.mark.parametrize(("words", "found"), [
    ("", {"place": None, "seeds": None, "kinds": ["ham"], "overrides": None, "seed": 3}),
    ("--seeds 0 1 2", {"seeds": [0, 1, 2]}), ("--seeds 0 --seeds 1", {"seeds": [0, 1]}), ("--seeds=0", {"seeds": [0]}),
    ("-s 4 5", {"seeds": [4, 5]}), ("--seeds 0 -1 --seed 5", {"seeds": [0, -1], "seed": 5}),
    ("--kinds eggs ham --set a.b=1 --set c.d=2", {"kinds": ["eggs", "ham"], "overrides": ["a.b=1", "c.d=2"]}),
    ("--set a.b=1 here", {"overrides": ["a.b=1"], "place": "here"}), ("--seed -1", {"seed": -1}),
    ("--seeds 0 1 -- here", {"seeds": [0, 1], "place": "here"}), ("--set -a", {"overrides": ["-a"]})])
def test_words_of_a_command_line(words: str, found: dict) -> None:
    """An option that is declared so takes all words up to the next one; any other takes one."""
    assert main(words.split()) == 0
    assert {name: SAID[name] for name in found} == found


@pytest.mark.parametrize(("words", "says"), [
    ("--seeds", "--seeds requires an argument"), ("--seeds --seed 1", "--seeds requires an argument"),
    ("--seed --fail", "--seed requires an argument"), ("--seeds 0 one", "--seeds"),
    ("--kinds ham egs", "--kinds: unknown value 'egs'; did you mean 'eggs'? Allowed: eggs, ham"),
    ("--sed 1", "--sed"), ("here there", "(there)"), ("--seed x", "python -m toy --help lists what there is")])
def test_a_wrong_word_is_one_line_and_code_2(words: str, says: str, capsys: pytest.CaptureFixture) -> None:
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and says in said, said


def test_codes_of_the_function(capsys: pytest.CaptureFixture) -> None:
    """What it returns is the code, and what it raises is one."""
    assert (main(["--fail"]), main(["--seed", "9"]), main(["--help"])) == (7, 1, 0)
    assert capsys.readouterr().err == "failed: no\n"


def test_help_shows_defaults(capsys: pytest.CaptureFixture) -> None:
    main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("Usage: python -m toy [OPTIONS]") and " A command. " in text
    for shown in ("-s, --seeds N… Of the runs.", "--kinds KIND… Which. [default: ham]", "of the run. [default: 3]"):
        assert shown in text, text


def test_options_of_stages_are_those_of_scae() -> None:
    """One declaration: the same help wherever an option has the same name."""
    ours = {one.name: one.help for one in prepare.main.command.params}
    theirs = {one.name: one.help for one in cli.main.command.commands["evaluate"].params}
    assert ours.keys() == {"preset", "overrides", "params", "results"} and ours.items() <= theirs.items()
    assert not hasattr(command_line, "torch")


def test_help_of_the_command_line_needs_no_torch() -> None:
    """Nor do commands that are not there: in a process of its own, since this one has it."""
    program = ("import sys; from pipelines.cli import main; codes = main(['--help']), main(['train', '--help']), "
               "main(['nothing']); print(codes, 'torch' in sys.modules or 'port' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["(0, 0, 2) False"], done.stdout + done.stderr
