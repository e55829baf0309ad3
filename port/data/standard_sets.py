"""Which pictures a standard data set's name stands for: digests of the content, whatever the file.

A file's name says nothing of what is in it: other data sets are published under MNIST's file names, and a
set can be cut. So what is not byte for byte the published set gets another name, `mnist_other_1a2b3c4d`
with the first digits of its own digest, and goes by that name into every result: no figure of a paper is
held beside it, and seeds of two such sets are never put together. Archives whose md5 is checked
(`port.data.sources`) need no digest here. For smallNORB and the published affNIST nobody here has had the files,
so there is none to compare with.
"""

from __future__ import annotations

import hashlib

import numpy as np

from port.data.dataset import Dataset

# Digests (see `digest`) of the arrays as the published files hold them: images, labels, of every part.
KNOWN = {
    "mnist": "dcf03f1b2a0428c2f1c37d47b961c1986206b83609f638667bd828238504404a",
    "mnist_test": "2b9c9892b6fb6e2347618f1645517ede3b64c03f21b2879c28314478fd15984d",
    "usps": "02f2cab47fd4fe9ab125f7186eba8e4f3d783482104afd83b013688d81a48e44",
    "svhn_head": "00cdfd6b7a315e96d5b956b1b90badbdca469b98a40972c958c39ffcecb5adc9",
    "affnist_like": "c321cbdafd17e7d583c19f8bdad8331d615aa087916814d2407682dda6d28388",
}
OTHER = "_other_"


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 over shapes and values of arrays; that of whole numbers does not depend on their type.

    Whole numbers in 0..65535, which are every pixel, grey value and label that these sets have, go in as
    little-endian uint16; anything else as it is, with its type.
    """
    found = hashlib.sha256()
    for array in arrays:
        whole = array.dtype == np.uint8 or bool(
            np.issubdtype(array.dtype, np.integer) and (not array.size or (
                array.min() >= 0 and array.max() < 2**16)))
        kind = "<u2" if whole else array.dtype
        found.update(f"{list(array.shape)}{'' if whole else array.dtype.str}".encode())
        for start in range(0, len(array), 4096):  # a whole set in 16 bits would be held twice
            found.update(np.ascontiguousarray(array[start:start + 4096], kind).tobytes())
    return found.hexdigest()


def name_of(name: str, *arrays: np.ndarray, known: str | None = None) -> str:
    """The set's name where the arrays are its own, else one that says that they are not.

    Args:
        name: of the set.
        arrays: as its files hold them.
        known: key of `KNOWN`; None is the name.
    """
    found = digest(*arrays)
    return name if found == KNOWN[known or name] else f"{name}{OTHER}{found[:8]}"


def is_other(name: str) -> bool:
    """Whether a data set's name says that it is not the published one."""
    return OTHER in name


def digest_of(dataset: Dataset) -> str:
    """Of everything a data set holds, to tell runs on different data apart; 16 digits."""
    parts = [array.cpu().numpy() for split in (dataset.train, dataset.test)
             for array in (split.images, split.labels)]
    return hashlib.sha256(f"{dataset.n_classes} {digest(*parts)}".encode()).hexdigest()[:16]
