"""The model card of a folder, in the form that model hubs read: a head in YAML, then Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from port.checkpoints.evaluations import Evaluation, index, table
from port.families import Model, family_of

LIBRARY = "scae-port"
# A licence nobody stated: that of this code says nothing about weights that others trained.
UNKNOWN = "unknown"


def text(model: Model, note: str = "", license: str = UNKNOWN, metrics: Mapping[str, float] | None = None,
         evaluations: Sequence[Evaluation] = ()) -> str:
    """A card.

    Args:
        model: the model.
        note: Markdown about where it comes from.
        license: of the weights, as hubs name it, such as `apache-2.0`.
        metrics: what was measured, by name; without it the card names none.
        evaluations: accuracies on test images (`port.checkpoints.evaluations.of_run`); the head lists them too, in
            the form `model-index` that hubs show beside a model.

    Raises:
        ValueError: the licence is no such name.
    """
    check_license(license)
    family = family_of(model.config)
    n_parameters = sum(p.numel() for p in model.parameters())
    tags = ("pytorch", "safetensors", "capsule-networks", model.config.kind.replace("_", "-"))
    head = [f"library_name: {LIBRARY}", f"license: {license}", "tags:", *(f"- {tag}" for tag in tags)]
    body = [f"# {family.title}", f"{family.words(model.config)}, {n_parameters:,} parameters.", note]
    if license == UNKNOWN:
        body.append("The licence of these weights was not stated; whoever trained them decides it.")
    # JSON is YAML too, whatever a name holds.
    names = [*(["accuracy"] if evaluations else ()), *(metrics or ())]
    if names:
        head += ["metrics:", *(f"- {json.dumps(name)}" for name in names)]
    if evaluations:
        entry = index(evaluations)
        head += ["model-index:", f"- name: {json.dumps(entry['name'])}", "  results:",
                 *(f"  - {json.dumps(result)}" for result in entry["results"])]
        body.append(table(evaluations))
    if metrics:
        body.append("\n".join(["| measured | value |", "|---|---|",
                               *(f"| {name} | {value:.6g} |" for name, value in metrics.items())]))
    body.append("    import port\n    model = port.load(\"<this folder>\")")
    return "\n".join(["---", *head, "---", ""]) + "\n" + "\n\n".join(filter(None, body)) + "\n"


def check_license(name: str) -> None:
    """Raise unless it reads like a hub's name of a licence.

    Raises:
        ValueError: it does not.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name):
        raise ValueError(f"{name!r} names no licence; expected a name such as apache-2.0, mit or {UNKNOWN}")
