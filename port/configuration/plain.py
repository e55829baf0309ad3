"""Configurations of plain values: the base class, and how such a family is spelled.

A flat name is the setting's own. `program` starts from a published program's settings, which the others overlay.
Where a family has several sections with the same settings (matrix capsules have two kinds of routing), the plain
name reaches all of them and `section.name` one. A family says how it is spelled with one `Spelling`; `port.config`
reads every configuration and asks the spelling of its `model`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, NamedTuple

from port.configuration.fields import ConfigError, convert_value, mapping, refuse_unknown, unknown, word


def as_plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON would hold it: lists for tuples."""
    return json.loads(json.dumps(values))


class PlainConfig:
    """What such configurations share: plain values, and nothing unset or repaired."""

    kind: ClassVar[str]
    repairs: ClassVar[tuple[str, ...]] = ()
    unset: ClassVar[tuple[str, ...]] = ()

    def to_arguments(self) -> dict[str, Any]:
        """Every setting as plain values; `port.config.from_arguments` reads it back."""
        raise NotImplementedError

    def to_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(self.to_arguments(), indent=1)


class Spelling(NamedTuple):
    """How a family is spelled.

    Attributes:
        hints: setting → its type; sections among them.
        programs: name of a published program → its settings.
        build: makes the configuration of converted values, sections as dictionaries.
        sections: names of the sections.
        shared: setting of a section → its type; every section has the same.
    """

    hints: dict[str, Any]
    programs: Mapping[str, Mapping[str, Any]]
    build: Callable[[dict[str, Any]], PlainConfig]
    sections: tuple[str, ...] = ()
    shared: Mapping[str, Any] = {}

    def nested(self, settings: Mapping[str, Any], ignored: Collection[str] = ()) -> dict[str, Any]:
        """Flat settings with their sections, and a `program` spelled out.

        Args:
            settings: flat names, `model` among them; sections may be there already.
            ignored: names that belong to training.

        Raises:
            ConfigError: a name or a program that does not exist.
        """
        arguments: dict[str, Any] = {"model": settings["model"]}
        if "program" in settings:
            program = word(settings, "program")
            if program not in self.programs:
                raise ConfigError(unknown("program", program, self.programs))
            arguments |= as_plain(self.programs[program])
        # A plain name reaches every section that has it; the dotted one is applied last.
        for key, value in sorted(settings.items(), key=lambda pair: "." in pair[0]):
            section, dot, name = key.rpartition(".")
            if key in ("model", "program") or key in ignored:
                continue
            if not dot and key in self.hints:
                if key in self.sections:
                    value = arguments.get(key, {}) | dict(mapping(key, value))
                arguments[key] = value
            elif (name if dot else key) in self.shared and (not dot or section in self.sections):
                for place in (section,) if dot else self.sections:
                    arguments[place] = arguments.get(place, {}) | {name: value}
            else:
                names = [*self.hints, *self.shared, "program", *ignored]
                raise ConfigError(unknown("key", key, [each for each in names if each not in self.sections]))
        return arguments

    def flat(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What nested arguments say, by flat name and in the settings' types.

        Raises:
            ConfigError: an unknown name, or a value of another type.
        """
        found: dict[str, Any] = {}
        for key, value in arguments.items():
            if key == "model":
                continue
            if key not in self.hints:
                raise ConfigError(unknown("key", key, self.hints))
            if key in self.sections:
                refuse_unknown(value, self.shared, key)
                for name, inner in value.items():
                    found[f"{key}.{name}"] = convert_value(f"{key}.{name}", self.shared[name], inner)
            else:
                found[key] = convert_value(key, self.hints[key], value)
        return found

    def outright(self, arguments: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
        """`flat`, without what a `program` has in common with all others of its kind, such as its sizes.

        Of a program there remains what makes it that program; the rest are defaults that a checkpoint of
        another size does not contradict.

        Args:
            arguments: nested, a `program` spelled out.
            source: the settings as they were given, flat or nested.

        Raises:
            ConfigError: as `flat`.
        """
        found = self.flat(arguments)
        if source.get("program") is None:
            return found
        programs = [self.flat(as_plain(values)) for values in self.programs.values()]

        def given(key: str) -> bool:
            section, _, name = key.rpartition(".")
            inner = source.get(section)
            return key in source or name in source or (isinstance(inner, Mapping) and name in inner)
        return {key: value for key, value in found.items()
                if given(key) or any(each[key] != programs[0][key] for each in programs)}

    def read(self, arguments: Mapping[str, Any]) -> PlainConfig:
        """The configuration from nested arguments; what is not given keeps its default.

        Raises:
            ConfigError: an unknown name, a value of another type or one that is not allowed.
        """
        values: dict[str, Any] = {}
        for key, value in self.flat(self.nested(arguments)).items():
            section, dot, name = key.rpartition(".")
            if dot:
                values.setdefault(section, {})[name] = value
            else:
                values[key] = value
        try:
            return self.build(values)
        except ValueError as error:
            raise ConfigError(f"model {arguments['model']}: {error}") from None

    def written(self, config: PlainConfig) -> dict[str, Any]:
        """Every setting under its flat name; `port.config.from_flat` reads it back."""
        return {"model": config.kind} | self.flat(config.to_arguments())
