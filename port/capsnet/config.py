"""Configuration of CapsNet: its settings, and how they are spelled."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar

from port.capsnet.settings import PRESETS, Settings, preset
from port.configuration.plain import PlainConfig, Spelling, as_plain


@dataclass(frozen=True)
class CapsNetConfig(PlainConfig):
    """A capsule network with dynamic routing."""

    kind: ClassVar[str] = "capsnet"
    settings: Settings = field(default_factory=Settings)

    @property
    def canvas(self) -> int:
        """Side of the images in pixels."""
        return self.settings.canvas

    @property
    def channels(self) -> int:
        """Of the images."""
        return self.settings.channels

    @property
    def n_classes(self) -> int:
        """Class capsules."""
        return self.settings.classes

    def to_arguments(self) -> dict[str, Any]:
        return as_plain({"model": self.kind} | dataclasses.asdict(self.settings))


SPELLING = Spelling(
    typing.get_type_hints(Settings),
    {name: dataclasses.asdict(preset(name)) for name in PRESETS},
    lambda values: CapsNetConfig(Settings(**values)))
