"""A relative data root leads to the main checkout, and looking for data leaves nothing behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from pipelines import prepare
from pipelines.support import settings
from port.checkpoints import run_folder
from port.data import dataset, sources
from port.data import root as data_root


@pytest.fixture(autouse=True)
def no_variable(monkeypatch) -> None:
    monkeypatch.delenv("SCAE_DATA", raising=False)


def usps(root: Path, n: int) -> Path:
    """A pack of n training images; the root."""
    (root / "usps").mkdir(parents=True)
    arrays = {f"{part}_{key}": value for part, count in (("train", n), ("test", 2))
              for key, value in (("x", np.zeros((count, 16, 16), np.uint16)), ("y", np.arange(count) % 10))}
    np.savez(root / "usps" / "usps.npz", **arrays)
    return root


def images(root: Path | str | None) -> int:
    return len(sources.load("usps", root, download=False).train)


@pytest.fixture
def main(tmp_path) -> Path:
    """A checkout with its data, which git does not know."""
    folder = tmp_path / "main"
    folder.mkdir()
    for words in (("init", "-q"), ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q",
                                   "--allow-empty", "-m", "first")):
        subprocess.run(("git", *words), cwd=folder, check=True)
    usps(folder / "data", 7)
    return folder


def queued(main: Path) -> Path:
    """As DVC makes the copy of a queued experiment: a repository of its own below .dvc/tmp/exps."""
    copy = main / ".dvc" / "tmp" / "exps" / "tmpab12"
    copy.mkdir(parents=True)
    subprocess.run(("git", "init", "-q"), cwd=copy, check=True)
    return copy


def worktree(main: Path) -> Path:
    copy = main.parent / "another"
    subprocess.run(("git", "worktree", "add", "-q", "--detach", str(copy)), cwd=main, check=True)
    return copy


@pytest.mark.parametrize("copied", [queued, worktree])
def test_a_copy_without_data_uses_those_of_the_main_checkout(main, monkeypatch, copied) -> None:
    """From any folder of it; its own data, an absolute root or the variable come before."""
    copy = copied(main)
    monkeypatch.chdir(copy)
    assert images(None) == images("data") == 7
    (copy / "data").mkdir()  # an empty one is no data
    assert images("data") == 7
    preset = settings.load_preset("usps", path=REPOSITORY / "params.yaml")
    assert len(prepare.load(preset.prepare()).train) == 7
    (copy / "below").mkdir()
    monkeypatch.chdir(copy / "below")
    assert images("../data") == 7
    monkeypatch.chdir(copy)
    usps(copy / "mine", 3)
    assert images("mine") == images(copy / "mine") == 3
    monkeypatch.setenv("SCAE_DATA", "mine")
    assert images(None) == 3
    assert data_root.resolve("nowhere") == main / "nowhere"  # where a download goes too


def test_in_the_main_checkout_a_root_is_as_it_is_named(main, monkeypatch) -> None:
    monkeypatch.chdir(main)
    assert images("data") == 7 and data_root.resolve("elsewhere") == Path("elsewhere")
    assert data_root.copied_from(main) is None


@pytest.mark.parametrize("content", ["gitdir: nowhere", "nonsense", "gitdir: \xff"])
def test_a_strange_git_file_is_no_copy(tmp_path, monkeypatch, content) -> None:
    (tmp_path / ".git").write_bytes(content.encode("latin-1"))
    monkeypatch.chdir(tmp_path)
    assert data_root.resolve("data") == Path("data")


@pytest.mark.parametrize("source", sorted(data_root.FILES))
@pytest.mark.parametrize("download", [False, True])
def test_what_is_not_there_leaves_no_folder(tmp_path, monkeypatch, source, download) -> None:
    """Neither a look nor a download that fails; folders that were there stay."""
    def fails(self, *given, **more):
        Path(given[0], "MNIST", "raw").mkdir(parents=True, exist_ok=True)
        raise RuntimeError("no network")
    for kind in ("MNIST", "USPS", "SVHN", "CIFAR10"):
        monkeypatch.setattr(getattr(datasets, kind), "__init__", fails)
    (tmp_path / "kept").mkdir()
    for root in (tmp_path / "new" / "data", tmp_path / "kept"):
        with pytest.raises(dataset.DataError, match="is not there"):
            sources.load(source, root, download)
    assert [path.name for path in tmp_path.rglob("*") if path.is_dir()] == ["kept"]


def test_a_run_finds_its_data(main, tmp_path, monkeypatch) -> None:
    """The variable, else the root of the run's own settings; nothing is fetched unless asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.USPS, "__init__", lambda *given, **more: pytest.fail("fetched"))
    config = runs.model().config

    def preprocessing(**prepare_section) -> run_folder.Preprocessing:
        return run_folder.preprocessing(config, {"prepare": {"source": "usps"} | prepare_section})
    assert len(preprocessing(data_root=str(main / "data")).load().train) == 7
    assert len(preprocessing().load(main / "data").train) == 7
    monkeypatch.setenv("SCAE_DATA", str(usps(tmp_path / "other", 4)))
    assert len(preprocessing(data_root=str(main / "data")).load().train) == 4
    monkeypatch.delenv("SCAE_DATA")
    with pytest.raises(dataset.DataError, match="USPS is not there"):
        preprocessing().load()
    assert not (tmp_path / "data").exists()
