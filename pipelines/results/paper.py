"""What the paper reports, with the source of each figure, and the rule that compares with it.

Two means are compared, each with its own scatter over runs: ours over seeds, and the paper's, whose standard
deviation and number of runs it prints. With d = ours - paper, s² = s_ours² / n_ours + s_paper² / n_paper and t
the 95 % quantile of Student's distribution with min(n_ours, n_paper) - 1 degrees of freedom, the interval d ± t s
(two one-sided tests at 5 % each) is held against a margin that is fixed beforehand for every figure:

    within       the whole interval lies inside ± margin
    above        the whole interval lies over + margin
    below        the whole interval lies under - margin
    undecided    it crosses one of them: there are too few seeds, or the paper's runs scatter too much

A larger scatter widens the interval, so it turns any verdict into undecided and never into within. (With Welch's
degrees of freedom it would not always: a little scatter raises them from 4 towards 8, and t falls faster than s
grows.)

The margin is twice the standard deviation of one run of the paper, in percentage points and rounded up to 0.1.
With that, a port whose seeds scatter as the paper's runs do, five against five, has an interval of about ± 1.35
deviations (t = 2.13 at 4 degrees of freedom, s = 0.63 deviations) and is found within in about seven cases of ten
if it is equal. It is at least 0.2, two standard errors of a share of 99 % on 10,000 test images, since below that the
choice of images decides; and at most 3.5, so that on 40x40 MNIST a model without posterior sparsity, which
costs 3.7 points in the paper's Table 2, is never within. The luck of the test images is not in the interval:
both means are of published images, of which the paper's clusterings count those for training and validation, too.

There is no verdict on fewer than five seeds, on runs shorter than the preset's full length, on settings other
than the preset's, on a data set other than the published one, or where the paper has no figure or does not say
how its runs scatter. One setting may differ and is named in the table instead: with train.tf32 a GPU rounds the
factors of products and convolutions to 11 bits. It changes how the same program is rounded, and whether the paper's
accuracy is reached in spite of it is what the comparison then says.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy import stats

from port.data import standard_sets, validation

MIN_SEEDS = 5
SIDE = 0.95  # of each one-sided test


@dataclass(frozen=True)
class Figure:
    """One figure of the paper.

    Attributes:
        value: share of test images.
        source: where it stands, and how we know.
        std: its standard deviation over `runs`; None where the paper does not say it.
        margin: of equivalence, in percentage points; the rule stands at the top of this file.
        runs: how many runs it is the mean of.
        unit: the last digit printed.
    """

    value: float
    source: str
    std: float | None = None
    margin: float | None = None
    runs: int = 5
    unit: float = 0.001


class Verdict(NamedTuple):
    """`word` is within, above, below, undecided or none; `reason` is the interval, or why there is none."""

    word: str
    reason: str = ""


TABLE_1 = "Table 1 of the paper (NeurIPS 2019), 5 runs"
TABLE_2 = "Table 2 of the paper, full model, test split, 10 runs"
# Data set -> what is measured -> figure. Clustering is k-means on presences with bipartite matching
# (LIN-MATCH), the probe a linear classifier on presences (LIN-PRED).
FIGURES: dict[str, dict[str, Figure]] = {
    "mnist": {"clustering": Figure(0.987, TABLE_1, std=0.0035, margin=0.7),
              "probe": Figure(0.990, TABLE_1, std=0.0007, margin=0.2)},
    "svhn": {"clustering": Figure(0.5533, TABLE_1, std=0.034, margin=3.5, unit=0.0001),
             "probe": Figure(0.6727, TABLE_1, std=0.045, margin=3.5, unit=0.0001)},
    "cifar10": {"clustering": Figure(0.2501, TABLE_1, std=0.010, margin=2.0, unit=0.0001),
                "probe": Figure(0.3348, TABLE_1, std=0.003, margin=0.6, unit=0.0001)},
    "affnist": {"clustering": Figure(0.922, f"{TABLE_2}, trained on 40x40 MNIST", std=0.0059, margin=1.2,
                                     runs=10)},
}
# Where a preset is another row or column than its data set's headline; None where the paper has nothing for it.
PLAIN_MNIST: dict[str, Figure | None] = {
    "clustering": Figure(0.953, f"{TABLE_2}, MNIST (28x28)", std=0.0465, margin=3.5, runs=10), "probe": None}
NO_FIGURE: dict[str, Figure | None] = {"clustering": None, "probe": None}
PRESETS: dict[str, dict[str, Figure | None]] = {
    "mnist28_paper": PLAIN_MNIST, "mnist28_paper_as_published": PLAIN_MNIST,
    # fewer and narrower capsules than any model there
    "cifar10_small": NO_FIGURE, "mnist_small": NO_FIGURE, "mnist_small_step_decay": NO_FIGURE,
    "mnist_small_repaired": NO_FIGURE,
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


def verdict(values: Sequence[float], paper: Figure | None, obstacle: str = "") -> Verdict:
    """Compare a mean over seeds with the paper; the rule stands at the top of this file.

    Args:
        values: one share a seed.
        paper: the figure; None where the paper has none.
        obstacle: what stands in the way of a verdict (`obstacle_to`), empty for nothing.
    """
    if paper is None:
        return Verdict("none", "no figure in the paper")
    if obstacle:
        return Verdict("none", obstacle)
    if paper.std is None or paper.margin is None:
        return Verdict("none", "the paper does not say how its runs scatter")
    distance = 100 * (statistics.fmean(values) - paper.value)
    half = 100 * half_width(values, paper)
    low, high = distance - half, distance + half
    word = ("within" if -paper.margin <= low and high <= paper.margin else
            "above" if low > paper.margin else "below" if high < -paper.margin else "undecided")
    return Verdict(word, f"{distance:+.2f} points ({low:+.2f} to {high:+.2f}), margin {paper.margin}")


def half_width(values: Sequence[float], paper: Figure) -> float:
    """t · s of the difference of the two means, a share."""
    squared = statistics.variance(values) / len(values) + paper.std ** 2 / paper.runs
    return float(stats.t.ppf(SIDE, min(len(values), paper.runs) - 1)) * math.sqrt(squared)


def obstacle_to(data: str, n_seeds: int, steps: int, full_steps: int | None,
                differences: list[str], trained_on: str = "") -> str:
    """Why results are not yet to be judged, or an empty string.

    Args:
        data: what was evaluated on.
        n_seeds: seeds with results.
        steps: each was trained.
        full_steps: of the preset; None where there is no such preset.
        differences: of the runs' settings from the preset's, but for how products are rounded.
        trained_on: the data set of the training images.
    """
    if standard_sets.is_other(trained_on):
        return f"trained on another data set, {trained_on}"
    if data.endswith(f"_{validation.NAME}"):
        return "validation images, not the test split"
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
