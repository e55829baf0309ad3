"""A data set as one file: what the prepare stage writes and the others read."""

from __future__ import annotations

import os
import zipfile
import zlib

import numpy as np

from port.core import array_files, files
from port.data.dataset import DataError, Dataset, split_of


def save(dataset: Dataset, path: str | os.PathLike) -> None:
    """Write a data set as one compressed .npz file, under a temporary name first."""
    with files.whole(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file, name=dataset.name, n_classes=dataset.n_classes, classes=np.array(dataset.classes, str),
            train_x=dataset.train.images.cpu().numpy(), train_y=dataset.train.labels.cpu().numpy(),
            test_x=dataset.test.images.cpu().numpy(), test_y=dataset.test.labels.cpu().numpy())


def read(path: str | os.PathLike) -> Dataset:
    """Read what `save` wrote.

    Raises:
        DataError: the file is missing or no such file.
    """
    try:
        name, count, *arrays = array_files.named(
            path, ("name", "n_classes", "train_x", "train_y", "test_x", "test_y"))
        n_classes = int(count)
        train, test = (split_of(*arrays[i:i + 2], n_classes) for i in (0, 2))
        return Dataset(str(name), train, test, n_classes, _class_names(path))
    except FileNotFoundError:
        raise DataError(f"no prepared data in {path}; the prepare stage writes it") from None
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is no data file of the prepare stage ({error}); delete it and "
                        "prepare again") from None


def _class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Names of the classes in what `save` wrote; none where an earlier version wrote it."""
    try:
        return tuple(array_files.named(path, ("classes",))[0].tolist())
    except KeyError:
        return ()
