"""Where something is written through a link, or under a name that no file can have."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from pipelines.checkpoints import original
from pipelines.support import run_folders
from pipelines.support.values import BadInput
from port.checkpoints.tensor_bundle import locate
from port.core import swap


@pytest.fixture(params=["a folder", "nothing", "itself"])
def link(request, tmp_path) -> Path:
    there = tmp_path / "far" / "there"
    there.parent.mkdir()
    if request.param == "a folder":
        there.mkdir()
        (there / "x").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "link" if request.param == "itself" else there)
    return tmp_path / "link"


@pytest.mark.parametrize("how", ["swapped", "replaced"])
def test_a_link_is_replaced(how: str, link: Path, tmp_path) -> None:
    """Whatever it leads to stays as it is, as a cache of DVC has to."""
    with (swap.swapped(link, ["x"]) if how == "swapped" else run_folders.replaced(link)) as made:
        made.mkdir(exist_ok=True)
        (made / "x").write_text("new")
    assert not link.is_symlink() and (link / "x").read_text() == "new"
    assert [path.read_text() for path in (tmp_path / "far").rglob("x")] in (["old"], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "link"]


def test_pictures_go_through_a_link(link: Path, tmp_path) -> None:
    """They are made inside the folder that it leads to, for that may be on another disk; what else is there stays."""
    if link.readlink() == link:
        with pytest.raises(OSError, match=str(link)), swap.together(link):
            pass
        return
    with swap.together(link) as made:
        assert made.is_relative_to(tmp_path / "far" / "there")
        (made / "y").write_text("new")
    assert link.is_symlink() and (tmp_path / "far" / "there" / "y").read_text() == "new"
    assert {path.name for path in link.iterdir()} <= {"x", "y"}


def test_a_folder_in_a_pictures_place_is_said_before_any_is_there(tmp_path) -> None:
    (tmp_path / "out" / "b.png").mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as refusal, swap.together(tmp_path / "out") as made:
        for name in ("a.png", "b.png", "c.png"):
            (made / name).write_text("new")
    assert refusal.value.filename == str(tmp_path / "out" / "b.png")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]


def test_what_a_user_names_is_no_link(link: Path, tmp_path) -> None:
    """There it would be a surprise that the folder behind it stays as it is."""
    with pytest.raises(BadInput, match="is a link to .*; name a folder itself"), original.staged(link, ["x"]):
        pass
    assert link.is_symlink() and sorted(path.name for path in tmp_path.iterdir()) == ["far", "link"]


def test_no_checkpoint_has_too_long_a_name(tmp_path) -> None:
    assert not locate.is_there(tmp_path / ("z" * 250)) and not locate.is_there(tmp_path / ("z" * 300))


@pytest.mark.parametrize("moved", [False, True])
def test_a_link_comes_back_where_a_kill_left_nothing(moved: bool, link: Path) -> None:
    """Between the two renames the link lies beside its place, and what is new beside it or there."""
    of_nobody = f"{platform.node().replace('/', '_')[:60]}-{2**22 + 1}-0"  # Linux counts processes up to 2**22
    leads, (new, old) = link.readlink(), (swap.beside(link, of_nobody, role) for role in swap.ROLES)
    link.rename(old)
    (link if moved else new).mkdir()
    swap.recover(link, ["*"])
    assert link.is_symlink() is not moved and (moved or link.readlink() == leads)
    assert not old.is_symlink() and not new.exists()
