"""What the configuration of every family has, so that shared code need not know the families."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Configuration(Protocol):
    """A family's frozen configuration.

    Attributes:
        kind: the family's name, a key of `port.families.FAMILIES`.
        repairs: ids of the quirks that are repaired (`port.core.quirks`).
        unset: settings that a converted checkpoint left open, as `section.name`.
    """

    kind: str
    repairs: tuple[str, ...]
    unset: tuple[str, ...]

    def to_arguments(self) -> dict[str, Any]:
        """Every setting as plain values; `port.config.from_arguments` reads it back."""

    def to_json(self) -> str:
        """The configuration as JSON."""
