"""`scae inspect`: what is in an original checkpoint, and which model it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.checkpoints import original
from pipelines.support.output import write_json
from port.checkpoints import contents, infer, open_settings
from port.checkpoints import programs as origins
from port.checkpoints.strangers import Choices
from port.checkpoints.tensor_bundle.errors import printable

GROUPS = ("model", "optimizer slots", "averages of reported scalars", "step", "not the original's")


def run(source: str, json_file: str | None = None, choices: Choices | None = None) -> None:
    """Print every variable by group and the architecture that names and shapes tell.

    Raises:
        BadInput: the checkpoint cannot be read, or is no model of the original (its variables are
            printed all the same).
    """
    found = original.read(source, choices)
    print_groups(found.arrays)
    for note in found.notes:
        print(note)
    sorted_out = found.sorted_out()
    with original.in_words(str(found.prefix)):
        inference = infer.infer({name: array.shape for name, array in sorted_out.variables.items()},
                                {name.rpartition("/")[0] for name in sorted_out.slots})
    facts = describe(found, sorted_out, inference)
    print_facts(facts)
    if json_file:
        write_json(json_file, facts)
    bad = sorted_out.nonfinite()
    if bad:
        print(f"NaN or infinite entries in {len(bad)} arrays: {contents.listed(list(bad))}")


def describe(found: original.Original, sorted_out: contents.Contents, inference: infer.Inference
             ) -> dict[str, Any]:
    """What `--json` writes: flat settings as the original's flags, and the lists of the rest."""
    known = {name: _plain(name, value) for name, value in sorted(inference.known.items())}
    return {"checkpoint": found.prefix.name, "sha256": found.digest, "model": inference.model,
            "parameters": sorted_out.parameters, **known,
            "embedding": None if inference.grid is None else [inference.grid] * 2,
            "canvas_sizes": list(inference.canvas_sizes), "slots": bool(sorted_out.slots),
            "step": sorted_out.step, "required": inference.required, "unknown": inference.unknown,
            "assumed": {name: _plain(name, value) for name, value in inference.assumed.items()},
            "skipped": sorted_out.skipped, "chosen": list(found.notes), "nonfinite": sorted_out.nonfinite(),
            "variables": {name: {"shape": list(np.shape(array)), "dtype": str(np.asarray(array).dtype),
                                 "group": group}
                          for group, arrays in grouped(found.arrays).items()
                          for name, array in arrays.items()}}


def _plain(name: str, value: Any) -> Any:
    if name == "template_size":
        return value[0] if value[0] == value[1] else list(value)
    return list(value) if isinstance(value, tuple) else value


def grouped(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Every array in its group; also those that no model of the original has."""
    variables, slots, skipped = contents.split_checkpoint(arrays)
    groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in GROUPS}
    origin = origins.origin_of(variables)
    known = (*(scope for each in origins.ORIGINS if each.table is origin.table for scope in each.scopes
               if each.kind == "constellation"), "set_transformer/")
    for name, array in variables.items():
        ours = contents.is_original(name, origin.table) or name.startswith(known)
        groups[GROUPS[0] if ours else GROUPS[4]][name] = array
    groups[GROUPS[1]] = slots
    for name in skipped:
        groups[GROUPS[3] if name == "global_step" else GROUPS[2]][name] = arrays[name]
    return groups


def print_groups(arrays: dict[str, np.ndarray]) -> None:
    """A list of all arrays by group."""
    width = max((len(printable(name)) for name in arrays), default=0)
    for group, members in grouped(arrays).items():
        if not members:
            continue
        print(f"{group}: {len(members)} arrays, {sum(np.size(a) for a in members.values()):,} numbers")
        for name, array in members.items():
            kind = "string" if array.dtype == object else str(array.dtype)
            print(f"  {printable(name):{width}} {kind:8} {list(array.shape)}")
        print()


def print_facts(facts: dict[str, Any]) -> None:
    """The architecture in words."""
    print(f"model: {facts['model']}, {facts['parameters']:,} parameters, step "
          f"{'not recorded' if facts['step'] is None else facts['step']}, optimizer slots "
          f"{'yes' if facts['slots'] else 'none'}")
    hidden = ("checkpoint", "sha256", "model", "parameters", "step", "slots", "required", "unknown",
              "assumed", "skipped", "chosen", "nonfinite", "variables", "embedding", "canvas_sizes")
    print("inferred: " + ", ".join(f"{k} {v}" for k, v in facts.items() if k not in hidden))
    if facts["embedding"]:
        strides = facts["assumed"].get("strides")
        print("embedding {}×{}".format(*facts["embedding"]) + ": canvas of "
              + infer.either(facts["canvas_sizes"])
              + (f" with the original's strides {', '.join(map(str, strides))}" if strides else ""))
    if facts["required"]:
        print("to be given when converting: " + "; ".join(
            f"{name} ({values})" for name, values in facts["required"].items()))
    rest = [name for name in facts["unknown"] if name not in facts["required"]]
    told_apart = facts["model"] in open_settings.KINDS
    deciding = open_settings.deciding(rest) if told_apart else rest
    others = [name for name in rest if name not in deciding]
    for names, words in ((deciding, ", able to change what the model answers" if told_apart else ""),
                         (others, ", of the noise and the loss alone")):
        if names:
            print(f"unknown, optional{words}: {', '.join(names)}")
    if facts["skipped"]:
        print(f"skipped when converting: {len(facts['skipped'])} arrays ("
              + ", ".join(sorted(set(facts["skipped"].values()))) + ")")


