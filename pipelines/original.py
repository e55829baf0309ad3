"""What the commands on original checkpoints share: TensorFlow on demand, reading, bad input in words."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors

import port
from pipelines import settings
from pipelines.values import BadInput, load_params
from port import checkpoint, contents, convert, infer


@dataclass(frozen=True)
class Original:
    """A checkpoint of the original program.

    Attributes:
        prefix: where it lies.
        arrays: name → value, everything it holds.
        digest: SHA-256 over names and content of its files.
    """

    prefix: Path
    arrays: dict[str, np.ndarray]
    digest: str

    def sorted_out(self) -> contents.Contents:
        """Its arrays by place.

        Raises:
            BadInput: they are no model of the original.
        """
        with in_words(str(self.prefix)):
            return contents.sort_out(self.arrays)


@contextlib.contextmanager
def in_words(where: str = "") -> Iterator[None]:
    """Turn what reading, sorting and configuring raise into one line for the user."""
    try:
        yield
    except (convert.ConversionError, port.ConfigError, checkpoint.CheckpointError,
            safetensors.SafetensorError) as error:
        raise BadInput(_one_line(f"{where}: {error}" if where else str(error))) from None
    except OSError as error:
        place = error.filename or where
        raise BadInput(_one_line(f"{place}: {error.strerror or error}")) from None


def reference_side():
    """The package `reference`, with TensorFlow behind it, imported once and quietly.

    Raises:
        BadInput: TensorFlow is not installed.
    """
    # TensorFlow and Triton both bring LLVM and do not share a process; eager torch needs no Triton.
    sys.modules.setdefault("triton", None)  # type: ignore[arg-type]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        # Its start-up notes go past every setting, to the file descriptor.
        with _no_stderr():
            import tensorflow as tf

            import reference
            tf.config.list_logical_devices()
    except ImportError as error:
        if error.name is None or not error.name.startswith("tensorflow"):
            raise
        raise BadInput("original checkpoints are read with TensorFlow, which is not installed here: "
                       "pip install 'scae-port[reference]'; a converted folder needs it no more") from None
    return reference


def read(path: str | os.PathLike) -> Original:
    """A checkpoint by prefix, file or folder.

    Raises:
        BadInput: nothing there, damaged, incomplete or outside the folder named.
    """
    refuse_nothing(Path(path))
    reference = reference_side()
    from reference.checkpoint import files_of

    try:
        prefix = reference.checkpoint.find_checkpoint(path)
        arrays = reference.read_checkpoint(prefix)
        digest = hashlib.sha256()
        for file in files_of(prefix):
            digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    except reference.CheckpointError as error:
        raise BadInput(_one_line(str(error))) from None
    except OSError as error:
        raise BadInput(f"{error.filename or path}: {error.strerror}") from None
    return Original(Path(prefix), arrays, digest.hexdigest())


def refuse_nothing(path: Path) -> None:
    """Say that nothing is there before TensorFlow takes its seconds to load; the rest is its reader's.

    Raises:
        BadInput: neither the path nor a file that begins with it exists.
    """
    try:
        there = path.exists() or any(path.parent.glob(glob.escape(path.name) + "*"))
    except OSError:
        return  # the reader says which place may not be opened
    if not there:
        raise BadInput(f"{path}: no checkpoint there; expected {path.name}.index and "
                       f"{path.name}.data-00000-of-00001, or a folder that holds them")


def given_configuration(preset: str | None, config: str | None, params: str, variables: Collection[str]
                        ) -> tuple[dict, bool]:
    """What the user says about the model, as flat settings, and whether defaults fill the rest.

    Args:
        preset: a preset of params.yaml.
        config: a JSON or YAML file of flat keys, a recording's manifest, or a stored config.json;
            it overlays the preset.
        params: the file of presets.
        variables: names of the checkpoint's, which tell the kind of the model.

    Raises:
        BadInput: an unknown preset, key or value, a file that cannot be read, or another model's.
    """
    said: dict = {}
    with in_words():
        kind = infer.kind_of(variables)
    default = preset is not None
    if preset is not None:
        with in_words(f"preset {preset}"):
            said = port.config.explicit(settings.load_preset(preset, path=params).model, kind)
    if config is not None:
        source = _read_mapping(config)
        with in_words(str(config)):
            try:
                said |= port.config.explicit(source, kind)
                default |= port.config.is_complete(source)
            except (TypeError, ValueError, AttributeError, KeyError) as error:
                if isinstance(error, port.ConfigError):
                    raise
                raise BadInput(_one_line(f"{config}: not a configuration ({error})")) from None
    return said, default


def _read_mapping(path: str) -> dict:
    """A JSON or YAML file; a folder stands for its manifest."""
    file = Path(path) / "manifest.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise BadInput(f"{file}: no such file; --config takes a JSON or YAML file or a recording")
    with in_words(str(file)):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise BadInput(f"{file} is no text; expected JSON or YAML") from None
        except ValueError:
            found = load_params(file)
    if not isinstance(found, dict):
        raise BadInput(f"{file}: expected keys and values")
    return found


def load_folder(folder: str | os.PathLike):
    """A converted model.

    Raises:
        BadInput: no model there, or it cannot be read.
    """
    with in_words():
        return checkpoint.load(folder)


@contextlib.contextmanager
def staged(out: Path, replaceable: Collection[str] = ()) -> Iterator[Path]:
    """A folder beside `out` that takes its place when all went well, and is gone otherwise.

    Args:
        out: the place.
        replaceable: names that a folder already there may hold.

    Raises:
        BadInput: something else is there, or the place cannot be written.
    """
    with in_words(str(out)):
        if out.exists() and not out.is_dir():
            raise BadInput(f"{out} is a file; name a folder")
        strangers = sorted(item.name for item in out.iterdir() if item.name not in replaceable
                           ) if out.exists() else []
        if strangers:
            raise BadInput(f"{out} holds {strangers[0]}, which would be lost; name another folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        yield made
        with in_words(str(out)):
            mask = _umask()  # both libraries make their files for the owner alone
            made.chmod(0o777 & ~mask)
            for item in made.rglob("*"):
                item.chmod((0o777 if item.is_dir() else 0o666) & ~mask)
            old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
            if out.exists():
                os.replace(out, old / out.name)
            os.replace(made, out)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def training_constants(config: str | None, defaults: dict[str, float]) -> dict[str, float]:
    """Learning rate, batch size and optimizer constants that a configuration file gives.

    Args:
        config: as in `given_configuration`; a recording's manifest has `lr` and `rmsprop`.
        defaults: what it does not say.
    """
    if config is None:
        return dict(defaults)
    source = _read_mapping(config)
    with in_words(str(config)):
        flags = port.config.parse_flags(source["flags"]) if "flags" in source else source
        said = port.config.training_flags(flags)
    return defaults | {key: said[key] for key in ("lr", "batch_size") if key in said} | {
        key: float(value) for key, value in (source.get("rmsprop") or {}).items()
        if key in ("decay", "momentum", "epsilon")} | (
        {"lr": float(source["lr"])} if "lr" in source else {})


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _one_line(text: str) -> str:
    return " ".join(text.split())
