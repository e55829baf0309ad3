"""What a file that is no checkpoint is instead, from its first bytes; nothing in it is unpacked or run."""

from __future__ import annotations

import zipfile
from pathlib import Path

from port.checkpoints.tensor_bundle.crc32c import crc32c, masked

# First bytes → what it is.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes (.h5)"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"GGUF", "a GGUF file"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"), (b"\xff\xd8\xff", "a JPEG picture"), (b"%PDF", "a PDF"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; git lfs pull fetches it"),
)
_MEMBERS: tuple[tuple[str, str], ...] = (
    ("data.pkl", "a PyTorch file (torch.save)"), (".npy", "a NumPy archive (.npz)"),
    ("model.weights.h5", "a Keras model (.keras)"))
HEAD = 512


def kind_of_file(path: Path) -> str:
    """A file in words.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
    size = path.stat().st_size
    if not head:
        return "an empty file"
    for magic, words in _MAGIC:
        if head.startswith(magic):
            return words
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if head[0] == 0x80 and len(head) > 1 and 2 <= head[1] <= 5:
        return "a pickle, as PyTorch wrote before 1.6 (it is not opened: it could run anything)"
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header <= size - 8:
        return "a safetensors file"
    if len(head) >= 12 and masked(crc32c(head[:8])) == int.from_bytes(head[8:12], "little"):
        return "a record of TensorBoard (events) or examples (TFRecord)"
    if _text(head):
        return "a text file" if head.lstrip()[:1] not in (b"{", b"[") else "a JSON file"
    if path.name.endswith(".meta"):
        return "the graph of a checkpoint (.meta), which has no weights; name the .index beside it"
    if head[:1] in (b"\x0a", b"\x08"):
        return "a protocol buffer, perhaps a graph (.pb): it has no table of variables"
    return "a file of another kind"


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeError):
        return "a damaged zip archive"
    for end, words in _MEMBERS:
        if any(name.endswith(end) for name in names):
            return words
    return "a zip archive; unpack it first"


def _text(head: bytes) -> bool:
    """Whether it is text, but for a character cut off at the end."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[:error.start].decode("utf-8")
    return bool(text) and all(c.isprintable() or c in "\t\r\n\f" for c in text)


def kind_of_folder(path: Path) -> str:
    """A folder in words; empty where nothing is known of it."""
    for name, words in (("saved_model.pb", "a SavedModel; its variables are a checkpoint of their own, "
                                           "variables/variables in it"),
                        ("model.safetensors", "a folder that scae convert or port.save wrote"),
                        ("keras_metadata.pb", "a Keras model")):
        if (path / name).is_file():
            return words
    return ""
