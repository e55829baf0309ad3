"""Values from files and command lines as they are read; `port.configuration.fields` checks and converts them.

Nothing here needs torch, since the command line reads this module before it does.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path

# More than any file of settings needs: this project's own has 60 kB, 2,500 values and 7 levels.
MOST_BYTES, MOST_VALUES, MOST_DEPTH = 8 * 2**20, 200_000, 100
LONGEST = 200  # bytes of a name that becomes a file's, which may have 255; some are lengthened


class BadInput(ValueError):
    """Something the user gave cannot be used; the message says what, where and what to do."""


class CheckFailed(Exception):
    """A result does not meet what the stage requires."""


PARAMS = "params.yaml"  # of the folder that a command runs in
PACKAGE = Path(__file__).resolve().parents[1]


def params_at(path: str | os.PathLike = PARAMS) -> Path:
    """The file of presets: as named; where the default one is not there, the one that came with this code.

    In an installed wheel that is the copy in the package (setup.py), in a checkout the file beside the package;
    whatever lies beside an installed package is nobody's, so a checkout is known by its pyproject.toml.
    """
    path = Path(path)
    if path != Path(PARAMS) or path.exists():
        return path
    own = [PACKAGE / PARAMS, PACKAGE.parent / PARAMS]
    if not (PACKAGE.parent / "pyproject.toml").is_file():
        own.pop()
    return next((one for one in own if one.is_file()), path)


def plain_word(name: object, what: str) -> str:
    """A name that names a folder and leads nowhere else: one part of a path, not hidden, printable.

    Raises:
        BadInput: another name.
    """
    if isinstance(name, str) and name.isprintable() and 0 < len(os.fsencode(name)) <= LONGEST \
            and not name.startswith(".") and not set(name) & set("/\\"):
        return name
    shown = repr(name) if len(repr(name)) < 80 else f"{repr(name)[:60]}… ({len(repr(name)) - 2} letters)"
    raise BadInput(f"{what} {shown}: give a plain word, without / and no dot first; it names a folder")


def file_to_write(path: str | os.PathLike, what: str) -> Path:
    """A place where a file can be written, looked at before the work begins; nothing is made there.

    What the disk refuses all the same `port.core.files` says when it writes.

    Args:
        path: the place; a pipe, a device and a link are as good as a file.
        what: of the command line names it, as `--json`.

    Raises:
        BadInput: a folder stands there, or something that is none above it, or nothing may be written.
    """
    path = Path(path)
    if path.is_dir() or path.name in ("", ".."):
        raise BadInput(f"{what} {path}: that is a folder; name a file in it")
    from port.core import files  # late: torch comes with it

    try:
        place = files.place_of(path)
    except NotADirectoryError:
        place = path
    if place is None:
        return path
    folder = Path(os.path.realpath(place.parent))
    above = next(one for one in (folder, *folder.parents) if one.exists())
    if not above.is_dir():
        raise BadInput(f"{what} {path}: {above} is a file, where a folder should stand; name another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise BadInput(f"{what} {path}: nothing may be written in {above}; name another place")
    return path


def load_params(path: str | os.PathLike = PARAMS) -> dict:
    """Read params.yaml (or a JSON file, which is YAML too), see `params_at`.

    Raises:
        BadInput: the file is missing or cannot be read.
    """
    path = params_at(path)
    params = parse_settings(text_of_settings(path, "; run from the repository root, or name the file with --params"),
                     str(path))
    if not isinstance(params, dict):
        raise BadInput(f"{path} holds no mapping")
    return params


def text_of_settings(path: str | os.PathLike, hint: str = "") -> str:
    """The text of a file of settings; of one without end no more than settings have.

    Args:
        path: of the file, or of a pipe.
        hint: what to do where it cannot be read.

    Raises:
        BadInput: it cannot be read, is too large, or no text.
    """
    from port.core import files  # late: torch comes with it

    try:
        return files.read_bytes(path, MOST_BYTES).decode()
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise BadInput(f"{path} has more than {MOST_BYTES // 2**20} MB: no file of settings") from None
        raise BadInput(f"cannot read {path}: {error.strerror}{hint}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no UTF-8 text: byte 0x{error.object[error.start]:02x} in line "
                       f"{error.object[:error.start].count(10) + 1}; save it as UTF-8") from None


def parse_settings(text: str, where: str):
    """What a YAML text means, small enough to be written out.

    Raises:
        BadInput: no YAML, or aliases that unfold to more than anybody has written, or nested too deeply.
    """
    if text.count("[") + text.count("{") > MOST_VALUES or any(
            len(line) - len(line.lstrip(" -")) > MOST_DEPTH for line in text.splitlines()):
        raise BadInput(f"{where}: more lists within lists than settings have")
    try:
        found = _parse(text)
        unfolded = _size(found, {}, 0)
    except (ValueError, OverflowError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{where}: {' '.join(str(error).split())[:300]}") from None
    except RecursionError:
        raise BadInput(f"{where}: nested more than {MOST_DEPTH} levels deep, or an alias holds "
                       "itself") from None
    if unfolded > MOST_VALUES:
        raise BadInput(f"{where}: its aliases unfold to more than {MOST_VALUES:,} values; write out what "
                       "is meant")
    return found


def _size(value, known: dict[int, int], depth: int) -> int:
    """How many values there are once aliases are written out; each list is looked at once."""
    if not isinstance(value, dict | list | tuple | set):
        return 1
    if depth > MOST_DEPTH:
        raise RecursionError
    if id(value) not in known:
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(one, known, depth + 1) for one in inner)
    return known[id(value)]


def parse_value(text: str):
    """What a word of `--set` means, as in YAML, with 1e-4 as a number.

    Raises:
        BadInput: no YAML.
    """
    value = parse_settings(text, f"--set …={text[:40]}")
    if isinstance(value, str) and text.strip()[:1] not in ('"', "'"):  # what is quoted is meant as text
        try:
            return float(value)  # YAML 1.1 takes 1e-4 for a string
        except ValueError:
            pass
    return value


def _parse(text: str):
    """JSON where it is some, else YAML, which takes the two halves of a JSON string's \\ud83d\\ude00 for letters."""
    if text.lstrip()[:1] in ("{", '"'):
        with contextlib.suppress(ValueError):
            return json.loads(text)
    return _parse_yaml(text)


def _parse_yaml(text: str):
    """PyYAML, or what DVC brings; one of them is there wherever a pipeline runs."""
    try:
        import yaml
    except ImportError:
        try:
            from ruamel.yaml import YAML
            from ruamel.yaml.error import YAMLError
        except ImportError:
            raise BadInput("reading params.yaml needs PyYAML; install pyyaml") from None
        try:
            return YAML(typ="safe", pure=True).load(text)
        except YAMLError as error:
            raise ValueError(str(error)) from None
    try:
        # The same in C where PyYAML was built with it: params.yaml in a seventh of the time.
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
