"""Where something is written through a link, or under a name that no file can have."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pipelines.support import run_folders
from port.checkpoints.tensor_bundle import locate
from port.core import swap


def written(how: str, place: Path) -> None:
    with (swap.swapped(place, ["*"]) if how == "swapped" else run_folders.replaced(place)) as made:
        made.mkdir(exist_ok=True)
        (made / "x").write_text("new")


@pytest.mark.parametrize("how", ["swapped", "replaced"])
@pytest.mark.parametrize("target", ["a full folder", "nothing"])
def test_a_link_is_followed(how: str, target: str, tmp_path) -> None:
    """The link stays; what it leads to is what was written, and nothing lies beside either."""
    there, link = tmp_path / "far" / "there", tmp_path / "link"
    there.parent.mkdir()
    if target != "nothing":
        there.mkdir()
        (there / "x").write_text("old")
    link.symlink_to(there)
    written(how, link)
    assert link.is_symlink() and (there / "x").read_text() == "new"
    assert [path.name for path in there.parent.iterdir()] == ["there"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "link"]


@pytest.mark.parametrize("how", ["swapped", "replaced"])
def test_links_in_a_circle(how: str, tmp_path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="a") as caught:
        written(how, tmp_path / "a")
    assert caught.value.errno == errno.ELOOP and len(list(tmp_path.iterdir())) == 2


def test_no_checkpoint_has_too_long_a_name(tmp_path) -> None:
    assert not locate.is_there(tmp_path / ("z" * 250)) and not locate.is_there(tmp_path / ("z" * 300))
