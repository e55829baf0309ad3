"""What the commands on original checkpoints share: reading them, configurations, bad input in words."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors

import port
from pipelines.support.values import BadInput, parse_settings, text_of_settings
from port.checkpoints import CheckpointError, contents, convert, infer, model_folder
from port.checkpoints.strangers import Choices, choose, hint
from port.checkpoints.tensor_bundle.dtypes import CODES, DTYPES
from port.checkpoints.tensor_bundle.errors import printable
from port.core import swap


@dataclass(frozen=True)
class Original:
    """A checkpoint of the original program.

    Attributes:
        prefix: where it lies.
        arrays: name → value, everything it holds, as chosen.
        digest: SHA-256 over names and content of its files, of the very bytes that the arrays came from.
        files: that hold it.
        types: name in the file → TensorFlow's name of the type.
        choices: what was renamed, left out or replaced.
        notes: the same for a model card.
    """

    prefix: Path
    arrays: dict[str, np.ndarray]
    digest: str
    files: tuple[Path, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    choices: Choices = Choices()
    notes: tuple[str, ...] = ()

    def sorted_out(self) -> contents.Contents:
        """Its arrays by place.

        Raises:
            BadInput: they are no model of the original.
        """
        with in_words(str(self.prefix)):
            try:
                return contents.sort_out(self.arrays)
            except contents.Strangers as error:
                raise convert.ConversionError(f"{error}{hint(self.arrays, error.names)}") from None


@contextlib.contextmanager
def in_words(where: str = "") -> Iterator[None]:
    """Turn what reading, sorting and configuring raise into one line for the user.

    What the system refuses has one at the end of every command (`boundary`), and is named here where it is not yet.
    """
    try:
        yield
    except (convert.ConversionError, port.ConfigError, CheckpointError,
            safetensors.SafetensorError) as error:
        raise BadInput(_one_line(f"{where}: {error}" if where else str(error))) from None
    except OSError as error:
        if error.filename is None and where:
            error.filename = where
        raise


def read(path: str | os.PathLike, choices: Choices | None = None) -> Original:
    """A checkpoint by prefix, file or folder; the path is taken literally.

    Args:
        path: see `port.read_checkpoint`.
        choices: what is renamed, left out or replaced.

    Raises:
        BadInput: nothing there, damaged, incomplete, something else, or choices that do not fit it.
    """
    choices = choices or Choices()
    with in_words():
        opened = port.read_checkpoint(path)
        arrays, digest = opened.load()
    widened = {kind for kind in opened.dtypes.values() if DTYPES[CODES[kind]].widened}
    notes = [f"stored as {kind}, widened, which changes no value: "
             f"{contents.listed([name for name, each in opened.dtypes.items() if each == kind])}"
             for kind in sorted(widened)]
    with in_words(str(opened.prefix)):
        arrays, chosen = choose(arrays, choices)
    if "global_step" in arrays and arrays["global_step"].dtype == np.int32:
        notes.append("the step was stored as int32")
    return Original(opened.prefix, arrays, digest, tuple(opened.files), opened.dtypes, choices,
                    (*notes, *chosen))


def given_configuration(preset: str | None, config: str | None, params: str, variables: Collection[str],
                        source: dict | None = None) -> tuple[dict, bool]:
    """What the user says about the model, as flat settings, and whether defaults fill the rest.

    Args:
        preset: a preset of params.yaml.
        config: a JSON or YAML file of flat keys, a recording's manifest, or a stored config.json;
            it overlays the preset.
        params: the file of presets.
        variables: names of the checkpoint's, which tell the kind of the model.
        source: what the file holds, where it is read already; a pipe can be read once.

    Raises:
        BadInput: an unknown preset, key or value, a file that cannot be read, or another model's.
    """
    said: dict = {}
    with in_words():
        kind = infer.kind_of(variables)
    default = preset is not None
    if preset is not None:
        with in_words(f"preset {preset}"):
            from pipelines.support import settings  # the training loop comes with it

            said = port.config.explicit(settings.load_preset(preset, path=params).model, kind)
    if config is not None:
        source = read_mapping(config) if source is None else source
        with in_words(str(config)):
            try:
                said |= port.config.explicit(source, kind)
                default |= port.config.is_complete(source)
            except (TypeError, ValueError, AttributeError, KeyError) as error:
                if isinstance(error, port.ConfigError):
                    raise
                raise BadInput(_one_line(f"{config}: not a configuration ({error})")) from None
    return said, default


def read_mapping(path: str) -> dict:
    """A JSON or YAML file; a folder stands for its manifest."""
    file = Path(path) / "manifest.json" if Path(path).is_dir() else Path(path)
    if not file.exists():
        raise BadInput(f"{file}: no such file; --config takes a JSON or YAML file or a recording")
    text = text_of_settings(file)
    try:
        found = json.loads(text)
    except ValueError:
        found = parse_settings(text, str(file))
    if not isinstance(found, dict):
        raise BadInput(f"{file}: expected keys and values")
    return found


def load_folder(folder: str | os.PathLike):
    """A converted model.

    Raises:
        BadInput: no model there, or it cannot be read.
    """
    with in_words():
        return model_folder.load(folder)


@contextlib.contextmanager
def staged(out: Path, replaceable: Collection[str] = ()) -> Iterator[Path]:
    """A folder beside `out` that takes its place when all went well, and is gone otherwise.

    Args:
        out: the place.
        replaceable: names or patterns of names that a folder already there may hold.

    Raises:
        BadInput: something else is there.
        OSError: the place cannot be written.
    """
    with in_words(str(out)):
        if out.is_symlink():  # it would be replaced, and what it leads to left as it is
            raise BadInput(f"{out} is a link to {os.readlink(out)}; name a folder itself")
        if out.exists() and not out.is_dir():
            raise BadInput(f"{out} is a file; name a folder")
        strangers = sorted(item.name for item in out.iterdir() if not swap.is_own(item.name, replaceable)
                           ) if out.exists() else []
        if strangers:
            raise BadInput(f"{out} holds {strangers[0]}, which would be lost; name another folder")
    with in_words(str(out)), swap.swapped(out, replaceable) as made:
        yield made


def training_constants(config: str | None, source: dict, defaults: dict[str, float]) -> dict[str, float]:
    """Learning rate, batch size and optimizer constants that a configuration file gives.

    Args:
        config: as in `given_configuration`, for the message.
        source: what it holds, nothing where there is none; a recording's manifest has `lr` and `rmsprop`.
        defaults: what it does not say.
    """
    with in_words(str(config)):
        flags = port.config.parse_flags(source["flags"]) if "flags" in source else source
        said = port.config.training_flags(flags)
    return defaults | {key: said[key] for key in ("lr", "batch_size") if key in said} | {
        key: float(value) for key, value in (source.get("rmsprop") or {}).items()
        if key in ("decay", "momentum", "epsilon")} | (
        {"lr": float(source["lr"])} if "lr" in source else {})


def _one_line(text: str) -> str:
    """One line without control characters, whatever a file brought into it."""
    return printable(" ".join(text.split()), len(text))
