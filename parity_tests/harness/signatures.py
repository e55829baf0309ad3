"""Defaults are part of an op: both sides give every shared parameter the same one."""

from __future__ import annotations

import importlib
import inspect


def defaults(package: str, op: str) -> dict[str, object]:
    """Parameter → default of a public function, or of a class's constructor and call."""
    room, _, name = op.rpartition(".")
    value = getattr(importlib.import_module(f"{package}.{room}"), name)
    functions = [value]
    if inspect.isclass(value):
        call = "forward" if "forward" in vars(value) else "__call__"
        functions = [value.__init__, *([vars(value)[call]] if call in vars(value) else [])]
    return {parameter.name: parameter.default for function in functions
            for parameter in inspect.signature(function).parameters.values()
            if parameter.default is not inspect.Parameter.empty}


def check_signature(op: str) -> None:
    """Compare the defaults of the parameters that both sides have.

    Raises:
        AssertionError: names op, parameter and both defaults.
    """
    reference, port = defaults("reference", op), defaults("port", op)
    for name in reference.keys() & port.keys():
        both = (reference[name], port[name])
        if not all(isinstance(default, str | int | float | tuple | None) for default in both):
            continue  # `SILENT` and the like
        assert both[0] == both[1] and type(both[0]) is type(both[1]), (
            f"{op}: default of {name} is {both[0]!r} in reference and {both[1]!r} in port")
