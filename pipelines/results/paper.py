"""What the paper reports, with the source of each figure, and the rule that compares with it.

The verdict on a mean over seeds with its interval [low, high], against a figure printed to a unit
(0.001 for 98.7 %):

    reproduced   mean >= figure - unit / 2: the mean reaches the figure as it is printed
    within       the mean does not, but high + spread >= figure - unit / 2
    below        neither

`spread` is 1.96 · std / √runs of the paper's own runs where its std is known, else 0. There is no
verdict on fewer than five seeds, on runs shorter than the preset's full length, on settings other
than the preset's, on a data set other than the published one, or where the paper has no figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from port.data import standard_sets

MIN_SEEDS = 5


@dataclass(frozen=True)
class Figure:
    """One figure of the paper.

    Attributes:
        value: share of test images.
        source: where it stands, and how we know.
        std: its standard deviation over `runs`; None is not known to us.
        runs: how many runs it is the mean of.
        unit: the last digit printed.
    """

    value: float
    source: str
    std: float | None = None
    runs: int = 5
    unit: float = 0.001


class Verdict(NamedTuple):
    """`word` is reproduced, within, below or none; `reason` says why there is none."""

    word: str
    reason: str = ""


RECALLED = "recalled from Table 1 of the paper, not read again"
# Data set -> what is measured -> figure. Clustering is k-means on presences with bipartite matching
# (LIN-MATCH), the probe a linear classifier on presences (LIN-PRED).
FIGURES: dict[str, dict[str, Figure]] = {
    "mnist": {"clustering": Figure(0.987, "abstract of the paper (NeurIPS 2019)"),
              "probe": Figure(0.990, RECALLED)},
    "svhn": {"clustering": Figure(0.553, "abstract of the paper, there as 55 %; the decimal is "
                                         + RECALLED),
             "probe": Figure(0.673, RECALLED)},
    "cifar10": {"clustering": Figure(0.250, RECALLED), "probe": Figure(0.335, RECALLED)},
    "affnist": {"clustering": Figure(0.922, "the first author's blog, trained on MNIST")},
}
# Where a preset is another row or column than its data set's headline; None where the paper has
# nothing for it.
PRESETS: dict[str, dict[str, Figure | None]] = {
    "mnist28_paper": {"clustering": Figure(0.953, "Table 2 of the paper, MNIST (28x28), full model, test "
                                                  "split", std=0.0465, runs=10), "probe": None},
}
# The routing ancestors: preset and data set -> test accuracy of the network that the preset is.
ANCESTORS: dict[tuple[str, str], Figure] = {
    ("capsnet_mnist", "mnist"): Figure(0.9975, "CapsNet paper, table 1: 0.25 % error, 3 iterations with "
                                       "reconstruction", runs=3, unit=0.0001),
    ("capsnet_mnist40", "affnist"): Figure(0.79, "CapsNet paper, section 5.1, trained on shifted MNIST "
                                           "digits", unit=0.01),
    ("capsnet_svhn", "svhn"): Figure(0.957, "CapsNet paper, section 7: 4.3 % error; recalled, not read "
                                     "again"),
    ("em_mnist", "mnist"): Figure(0.9956, "EM paper, section 5: 0.44 % error", unit=0.0001),
    ("em_smallnorb", "smallnorb"): Figure(0.982, "EM paper, table 1: 1.8 % error, 3 iterations"),
}
# Data sets that stand in for a published one: its figure is shown beside them, without a verdict.
STAND_INS = {"affnist_like": "affnist", "svhn_head": "svhn"}
NAMES = {"mnist": "MNIST", "svhn": "SVHN", "cifar10": "CIFAR-10", "usps": "USPS",
         "affnist": "affNIST", "affnist_like": "affNIST-like (regenerated)",
         "smallnorb": "smallNORB", "svhn_head": "svhn_head (first 1,083 SVHN digits)",
         "digits": "digits (scikit-learn)"}
# Measures of the evaluation that a figure of the paper speaks of.
MEASURES = {"posterior_kmeans": "clustering", "prior_kmeans": "clustering",
            "posterior_probe": "probe", "prior_probe": "probe"}


def name_of(data: str) -> str:
    """The data set's name as shown."""
    return NAMES.get(data, data)


def figure(data: str, measure: str, preset: str = "") -> Figure | None:
    """The figure that a measure on a data set is held beside, if the paper has one.

    The autoencoder's paper speaks of a data set, but for some rows of a table; those of its ancestors
    speak of one network each. There the preset counts.
    """
    if standard_sets.is_other(data):
        return None
    if measure == "accuracy":
        return ANCESTORS.get((preset, STAND_INS.get(data, data)))
    kind, own = MEASURES.get(measure, measure), PRESETS.get(preset, {})
    return own[kind] if kind in own else FIGURES.get(STAND_INS.get(data, data), {}).get(kind)


def verdict(mean: float, high: float, paper: Figure | None, obstacle: str = "") -> Verdict:
    """Compare a mean over seeds with the paper; the rule stands at the top of this file.

    Args:
        mean: over the seeds.
        high: upper end of its interval.
        paper: the figure; None where the paper has none.
        obstacle: what stands in the way of a verdict (`obstacle_to`), empty for nothing.
    """
    if paper is None:
        return Verdict("none", "no figure in the paper")
    if obstacle:
        return Verdict("none", obstacle)
    goal = paper.value - paper.unit / 2
    spread = 1.96 * paper.std / paper.runs ** 0.5 if paper.std is not None else 0.0
    # Shares are multiples of 1/n and so may meet the goal exactly, but for the last bits of the sum.
    goal -= 1e-12
    return Verdict("reproduced" if mean >= goal else "within" if high + spread >= goal else "below")


def obstacle_to(data: str, n_seeds: int, steps: int, full_steps: int | None,
                differences: list[str], trained_on: str = "") -> str:
    """Why results are not yet to be judged, or an empty string.

    Args:
        data: what was evaluated on.
        n_seeds: seeds with results.
        steps: each was trained.
        full_steps: of the preset; None where there is no such preset.
        differences: of the runs' settings from the preset's.
        trained_on: the data set of the training images.
    """
    if standard_sets.is_other(trained_on):
        return f"trained on another data set, {trained_on}"
    if data in STAND_INS:
        return f"not the published {name_of(STAND_INS[data])}"
    if full_steps is None:
        return "no such preset any more"
    if differences:
        return f"not the preset's settings: {differences[0]}"
    if steps < full_steps:
        return f"unfinished: at {steps:,} of {full_steps:,} steps"
    if n_seeds < MIN_SEEDS:
        return f"{n_seeds} of {MIN_SEEDS} seeds"
    return ""
