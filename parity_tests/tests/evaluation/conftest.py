"""What several test files of this folder begin with."""

from __future__ import annotations

import pytest

from parity_tests import goldens
from pipelines.support import settings


@pytest.fixture
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find params.yaml and the committed results."""
    monkeypatch.chdir(goldens.REPOSITORY)


@pytest.fixture
def mnist() -> settings.Preset:
    return settings.load_preset("mnist", path=goldens.REPOSITORY / "params.yaml")
