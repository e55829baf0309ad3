"""How a command is declared: a function whose annotated arguments are its arguments and options, by typer.

    def command(preset: Preset = "digits", seed: Seed = 0) -> None:
        '''What --help says first.'''

    main = Program("python -m pipelines.train", command)

`scae` and every module that is run by its name are such programs. The function returns nothing or an exit code; what
it raises becomes a line and a code (`pipelines.support.console`). Two things typer does not do by itself are done
here: an option declared with `several` takes all words up to the next option, as in `--seeds 0 1 2`, and a wrong name
is offered the right one. Nothing here needs torch, so that `--help` is quick where the module is.
"""

from __future__ import annotations

import difflib
import functools
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from pipelines.support.values import BadInput, file_to_write

SEVERAL = "…"  # ends the metavar of an option that takes all words up to the next option

Preset = Annotated[str, typer.Option(help="A preset of params.yaml.")]
Seed = Annotated[int, typer.Option(help="Seed of the run.")]
Set = Annotated[list[str] | None, typer.Option(
    "--set", metavar="SECTION.KEY=VALUE", help="Override a setting, as in train.lr=1e-4; may be repeated.")]
Params = Annotated[str, typer.Option(
    metavar="FILE", help="The file of presets; without a params.yaml here, the one that came with this program.")]
Results = Annotated[str, typer.Option(metavar="DIR", help="Folder the results go to.")]
ResultsOfRun = Annotated[str | None, typer.Option(
    "--results", metavar="DIR", help="Folder the results go to; default: the one that the run lies in.")]
Together = Annotated[int | None, typer.Option(
    metavar="N", min=1, help="So many runs train beside each other; default: on a GPU up to 20, on a CPU one after the "
    "other.")]
Seconds = Annotated[float | None, typer.Option(
    metavar="S", min=1, help="After which those under way save their states, for the same command to go on.")]
Runs = Annotated[Path | None, typer.Option(metavar="DIR", help="Where the checkpoints go.")]
Failed = Annotated[Path | None, typer.Option(
    metavar="FILE", help="Names runs that failed before and are left out; gets those that fail now.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: as the preset says.")]


def several(*names: str, metavar: str, help: str, **more: Any) -> Any:
    """An option of a list that takes all words up to the next option, and may be repeated too."""
    return typer.Option(*names, metavar=metavar + SEVERAL, help=help, **more)


def among(words: Collection[str]) -> Callable[..., Any]:
    """Callback of an option that takes some words and no others.

    Raises:
        BadInput: from the callback; names the option, the nearest word and all of them.
    """
    def check(param: typer.CallbackParam, value: Any) -> Any:
        for word in value if isinstance(value, list | tuple) else [value]:
            if word is not None and word not in words:
                from port.configuration.fields import unknown
                raise BadInput(f"{param.opts[0]}: {unknown('value', word, words)}")
        return value
    return check



def to_write(param: typer.CallbackParam, value: Any) -> Any:
    """Callback of an option that names a file to write: what cannot be one is refused before the work.

    Raises:
        BadInput: as `values.file_to_write`.
    """
    if value is not None:
        file_to_write(value, param.opts[0])
    return value


Threads = Annotated[int, typer.Option(min=1, help="Of torch.")]
Repeats = Annotated[int, typer.Option(min=1, help="Interleaved repeats.")]
Clock = Annotated[str, typer.Option(metavar="CLOCK", help="Of wall or cpu time.", callback=among(("wall", "cpu")))]
JsonFile = Annotated[Path | None, typer.Option(
    "--json", metavar="FILE", help="Write the numbers to this file too.", callback=to_write)]


class Command(typer.core.TyperCommand):
    """A command whose `several` options are read as such."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = {name: parameter for parameter in self.params if parameter.param_type_name == "option"
                   for name in (*parameter.opts, *parameter.secondary_opts)}
        wide = {name for name, parameter in options.items()
                if getattr(parameter, "multiple", False) and str(parameter.metavar).endswith(SEVERAL)}
        takes = {name for name, parameter in options.items() if not getattr(parameter, "is_flag", False)}
        return super().parse_args(ctx, list(spelled_out(args, wide, takes - {"--help"}, options)))


def spelled_out(words: Sequence[str], wide: Collection[str], takes: Collection[str], options: Collection[str]
                ) -> Iterator[str]:
    """`--seeds 0 1` as `--seeds 0 --seeds 1`.

    Args:
        words: of the command line.
        wide: options that take all words up to the next option.
        takes: options that take a word, `wide` among them.
        options: all names; none of them is a value.

    Raises:
        BadInput: an option without its word.
    """
    option, waits = "", False  # the option whose words these are, and whether its first is still to come
    for i, word in enumerate(words):
        named = word.partition("=")[0] in options or word == "--"
        if waits and named:
            break
        if word == "--":
            yield from words[i:]
            return
        if named or (word.startswith("-") and not waits and not _is_number(word)):
            option, waits = word, word in takes
        elif waits:
            waits = False
        elif option in wide:
            yield option
        yield word
    if waits:
        raise BadInput(f"{option} requires an argument")


def _is_number(word: str) -> bool:
    try:
        return float(word) is not None
    except ValueError:
        return False


def application(help: str, **more: Any) -> typer.Typer:
    """A typer application in this project's plain style, to which commands are added."""
    return typer.Typer(help=help, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, **more)


class Program:
    """What a command line runs.

    Args:
        name: as it is typed, `python -m pipelines.train` or `scae`.
        what: the one command, or an application of several.
    """

    def __init__(self, name: str, what: Callable[..., int | None] | typer.Typer) -> None:
        self.name, self.what = name, what

    @functools.cached_property
    def command(self) -> Any:
        """click's object, with the arguments and options in `params`, or `commands` of its own."""
        if isinstance(self.what, typer.Typer):
            return typer.main.get_command(self.what)
        alone = application("", add_completion=False)
        alone.command(cls=Command)(self.what)
        return typer.main.get_command(alone)

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """Run it and return the exit code.

        Args:
            arguments: words after the name; None are those of this process.
        """
        from pipelines.support import console

        if arguments is None:  # a process of its own draws into files, whatever a notebook around it set
            os.environ["MPLBACKEND"] = "agg"
        words = list(sys.argv[1:] if arguments is None else arguments)
        ended = 0

        def work() -> None:
            nonlocal ended
            ended = self._run(words)
        return console.exit_code(work) or ended

    def _run(self, words: list[str]) -> int:
        try:
            return self.command.main(list(words), prog_name=self.name, standalone_mode=False) or 0
        except typer.Exit as stop:
            return stop.exit_code
        except typer.Abort as stop:  # click's word for the end of an input too
            raise stop.__cause__ if isinstance(stop.__cause__, EOFError) else KeyboardInterrupt from None
        except SystemExit as stop:  # click's answer to a closed pipe
            if isinstance(stop.__context__, OSError):
                raise stop.__context__ from None
            raise
        except Exception as error:
            # Usage errors are click's; which click typer carries depends on its version.
            if not hasattr(error, "format_message"):
                raise
            raise BadInput(self._usage(error, words)) from None

    def _usage(self, error: Any, words: list[str]) -> str:
        """One line for a usage error, with the nearest command or option."""
        command = self.command
        if not words and hasattr(command, "commands"):
            return f"give a command: {', '.join(command.commands)} ({self.name} --help)"
        message = " ".join(error.format_message().split())
        for word in words:
            if word in getattr(command, "commands", ()):
                command = command.commands[word]
                break
        names = [name for parameter in command.params for name in parameter.opts]
        names += list(getattr(command, "commands", ()))
        wrong = [word for word in words if word.split("=")[0] in message]
        near = difflib.get_close_matches(wrong[0].split("=")[0], names, 1, 0.5) if wrong else []
        if near and near[0] not in message:
            message = f"{message.rstrip('.')}; did you mean {near[0]}?"
        return f"{message} ({self.name} --help lists what there is)"
