"""Arrays from .npy and .npz files of unknown origin: no pickle, and no more memory than is reasonable.

A .npz of a few kilobytes can unpack to terabytes, and a header can claim any shape. What an array takes
stands in its header, which is read first.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.lib import format as header

MOST_BYTES = 4 * 2**30  # of one array; the largest data set here has half a gigabyte


class TooLarge(ValueError):
    """An array that takes more memory than any data set here; the message says how much."""


def named(path: str | os.PathLike, names: Iterable[str]) -> list[np.ndarray]:
    """Arrays of a .npz file, by name.

    Raises:
        KeyError: it has none of that name.
        TooLarge: one of them takes more than `MOST_BYTES`.
        OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error: no such file, or damaged.
    """
    with open(path, "rb") as opened, zipfile.ZipFile(opened) as members, np.load(opened) as file:
        found = []
        for name in names:
            if name not in file.files:
                raise KeyError(f"{name} is not in the archive")
            _check_member(members, name)
            found.append(file[name])
        return found


def one(path: str | os.PathLike, names: Iterable[str]) -> np.ndarray:
    """The array of a .npy file; of a .npz the first of `names` that it has, else its first.

    Raises:
        ValueError: no array in it.
        TooLarge: it takes more than `MOST_BYTES`.
        OSError, EOFError, zipfile.BadZipFile, zlib.error: no such file, or damaged.
    """
    path = Path(path)
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            _check_header(file, path.name)
            file.seek(0)
            return np.load(file, allow_pickle=False)
    with np.load(path) as file:
        there = list(file.files)
    wanted = [name for name in names if name in there] or there[:1]
    if not wanted:
        raise ValueError("no array in it")
    return named(path, wanted[:1])[0]


def _check_member(members: zipfile.ZipFile, name: str) -> None:
    inside = name if name in members.namelist() else f"{name}.npy"
    claimed = members.getinfo(inside).file_size
    if claimed > MOST_BYTES:
        raise TooLarge(_words(name, claimed))
    with members.open(inside) as file:
        _check_header(file, name)


def _check_header(file, name: str) -> None:
    version = header.read_magic(file)
    read = {(1, 0): header.read_array_header_1_0, (2, 0): header.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"array {name}: a .npy file of version {version}")
    shape, _, dtype = read(file)
    n_bytes = dtype.itemsize
    for length in shape:
        n_bytes *= int(length)
    if n_bytes > MOST_BYTES or any(length < 0 for length in shape):
        raise TooLarge(_words(name, n_bytes))


def _words(name: str, n_bytes: int) -> str:
    return (f"array {name} takes {n_bytes / 2**30:,.1f} GB once unpacked, more than "
            f"{MOST_BYTES / 2**30:.0f} GB; give fewer images or smaller ones")
