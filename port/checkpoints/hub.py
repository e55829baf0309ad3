"""`save_pretrained` and `from_pretrained` as model hubs spell them, over the same folders as `port.save`.

A folder on this machine needs neither a network nor the package `huggingface_hub`; a name such as `owner/model`
needs the package, `pip install huggingface_hub`.
"""

from __future__ import annotations

import importlib
from os import PathLike
from pathlib import Path
from typing import Any

from port.checkpoints import model_folder
from port.checkpoints.tensor_bundle.errors import CheckpointError
from port.families import Model

HOW = "pip install huggingface_hub"


def save_pretrained(model: Model, save_directory: str | PathLike, *, repo_id: str | None = None,
                    push_to_hub: bool = False, **card: Any) -> Path:
    """Write a model folder, and upload it where asked to.

    Args:
        model: the model.
        save_directory: the folder; other files in it stay.
        repo_id: `owner/model` on the hub; the folder's name by default.
        push_to_hub: upload the model's files.
        card: `note`, `license`, `metrics` and `evaluations`, as `port.save` takes them.

    Raises:
        CheckpointError: an upload without `huggingface_hub`; nothing is written then.
    """
    library = _library() if push_to_hub else None
    folder = model_folder.save(model, Path(save_directory), **card)
    if library is not None:
        api = library.HfApi()
        found = api.create_repo(repo_id or folder.name, exist_ok=True)
        api.upload_folder(repo_id=found.repo_id, folder_path=str(folder), allow_patterns=list(model_folder.FILES))
    return folder


def from_pretrained(pretrained_model_name_or_path: str | PathLike, *, revision: str | None = None,
                    cache_dir: str | PathLike | None = None, token: str | bool | None = None,
                    force_download: bool = False, local_files_only: bool = False) -> Model:
    """A model in eval mode, of a folder or of the hub.

    Args:
        pretrained_model_name_or_path: a folder that is there, else `owner/model`.
        revision: branch, tag or commit on the hub.
        cache_dir: where downloads are kept.
        token: for what is not public.
        force_download: not from the cache.
        local_files_only: from the cache alone.

    Raises:
        CheckpointError: there is no such folder or model, or it is damaged.
    """
    name = Path(pretrained_model_name_or_path)
    if name.is_dir():
        return model_folder.load(name)
    words = str(pretrained_model_name_or_path)
    if name.is_absolute() or words.startswith(".") or words.count("/") > 1:
        raise CheckpointError(f"{words}: there is no such folder")
    library = _library(f"{words}: there is no such folder, and a model of the hub")
    try:
        folder = library.snapshot_download(
            words, revision=revision, cache_dir=cache_dir, token=token, force_download=force_download,
            local_files_only=local_files_only, allow_patterns=list(model_folder.FILES))
    except (OSError, ValueError) as error:  # what its errors derive from
        raise CheckpointError(f"{words}: no such folder, and not to be had from the hub "
                              f"({' '.join(str(error).split())})") from error
    return model_folder.load(folder)


def _library(what: str = "an upload") -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise CheckpointError(f"{what} needs the package huggingface_hub: {HOW}") from error
