"""What `scae evaluate` measured of a run, as its model card shows it: accuracies with images, protocol and interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from port.checkpoints import run_folder
from port.data.dataset import DataError

# Accuracies by their names in metrics.json; whatever else stands there is no accuracy.
MEASURES = {
    "posterior_kmeans": "clusters of the posterior presences",
    "posterior_probe": "linear probe trained along, on posterior presences",
    "posterior_logistic": "logistic probe fitted afterwards, on posterior presences",
    "prior_kmeans": "clusters of the prior presences",
    "prior_probe": "linear probe trained along, on prior presences",
    "prior_logistic": "logistic probe fitted afterwards, on prior presences",
    "logistic": "logistic probe on poses and presences of the parts",
    "accuracy": "test accuracy",
    "segmentation": "points assigned to the right pattern",
}
PROTOCOLS = {"clean": "without noise; clusters and fitted probes know training images alone",
             "faithful": "as the original program evaluates, with noise and clusters fitted to the test images"}


class Accuracy(NamedTuple):
    """A share of examples that are right, in [0, 1], with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """Accuracies of one model on one data set under one protocol.

    Attributes:
        preset: that the model was trained with.
        data: the data set, under the name of what was really used.
        protocol: `clean` or `faithful`.
        examples: test images, or of a constellation model its test examples.
        level: of the intervals, such as 0.95.
        accuracies: by their names in `MEASURES`.
    """

    preset: str
    data: str
    protocol: str
    examples: int
    level: float
    accuracies: Mapping[str, Accuracy]


def of_run(folder: str | Path) -> list[Evaluation]:
    """All evaluations of a run's very weights, those of the last step; empty where there are none.

    They lie beside the run, in `evaluate/<preset>/<seed>` and, on other data, `evaluate/<preset>_on_<source>/<seed>`
    of the same results. An evaluation of other weights is passed over.

    Raises:
        DataError: a file of metrics cannot be read, or is none.
    """
    found = []
    for path, metrics in run_folder.evaluated(folder):
        try:
            found += [one for protocol in PROTOCOLS
                      for one in _under(protocol, metrics) if one.accuracies]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: holds no evaluation ({type(error).__name__}: {error})") from None
    return found


def _under(protocol: str, metrics: Mapping[str, Any]) -> list[Evaluation]:
    """The evaluation under a protocol, where the model's family has it."""
    if protocol not in metrics["protocols"]:
        return []
    final = metrics["protocols"][protocol]["final"]
    told = {name: final[name] for name in MEASURES
            if isinstance(final.get(name), dict) and final[name].get("value") is not None}
    counts = [final[name] for name in ("test_images", "test_examples") if name in final]
    counts += [one["n"] for one in told.values() if "n" in one]
    return [Evaluation(metrics["preset"], metrics["data"], protocol, int(counts[0]), float(metrics["level"]),
                       {name: Accuracy(float(one["value"]), float(one["low"]), float(one["high"]))
                        for name, one in told.items()})] if counts else []


def table(evaluations: Sequence[Evaluation]) -> str:
    """A table in Markdown, a row for each accuracy, and what the protocols are."""
    rows = ["| data set | images | protocol | accuracy | value | interval |", "|---|---|---|---|---|---|"]
    rows += [f"| {one.data} | {one.examples:,} | {one.protocol} | {MEASURES[name]} | {100 * found.value:.2f} % | "
             f"{100 * found.low:.2f} to {100 * found.high:.2f} % ({100 * one.level:g} %) |"
             for one in evaluations for name, found in one.accuracies.items()]
    protocols = dict.fromkeys(one.protocol for one in evaluations)
    return "\n".join(rows) + "\n\n" + "\n".join(f"- *{name}*: {PROTOCOLS[name]}." for name in protocols)


def index(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """The entry of `model-index` in a card's head, as hubs read it: a result for each data set and protocol."""
    return {"name": evaluations[0].preset, "results": [{
        "task": {"type": "image-classification", "name": "classes of the presences of capsules"},
        "dataset": {"type": one.data, "name": one.data, "split": "test",
                    "args": {"examples": one.examples, "protocol": one.protocol}},
        "metrics": [{"type": "accuracy", "name": name, "value": found.value,
                     "args": {"low": found.low, "high": found.high, "level": one.level}}
                    for name, found in one.accuracies.items()]} for one in evaluations]}
