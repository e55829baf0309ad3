"""Whether two bundles of runs come from one program: a test for a difference, and a test for equality.

**Statistics.** One number per run and column in each of two spans, fixed before any run of the port was looked at:
the mean over steps 1-200, where the object encoder still learns (later all its first hidden units give 0 in the
original, too), and the median of the windows of steps 801-1,200, which rare single-step spikes do not move.
Logarithms of what is positive and spread over decades.

**Difference.** The largest |Welch t| over all statistics, against its distribution when runs change sides: a
permutation test, so its level holds for any number of runs and any dependence between the columns, and looking at
many statistics costs nothing in false alarms. All exchanges are counted where there are few, else a drawn sample.

**Equality.** That no difference was found says little of few runs. So for each statistic in `EQUAL` the 90 % interval
of the difference of the means has to lie within ± `MARGIN` standard deviations of the original's runs (two one-sided
t tests at 5 %, Welch). The standard deviation is the recorded one of the original, so a port that scatters more makes
its interval wider and nothing else. All of them have to pass, which needs no correction: a program that is off by a
margin in one of them passes with at most 5 %.

With n runs on either side a statistic without any difference fails the equality with probability
2 · P(Z > (MARGIN - t₀.₉₅ · √(2/n)) / √(2/n)): .04 for n = 5, below 1e-4 for n = 10.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from parity_tests.curves.bundle import WINDOW, Bundle

LEVEL = 0.02           # of the test for a difference
CONFIDENCE = 0.90      # of the intervals: two one-sided tests at 5 %
MARGIN = 2.5           # standard deviations of the original's runs
MOST_EXCHANGES = 5000
SPANS = {"steps 1-200": (0, 200, np.mean), "steps 801-1200": (800, 1200, np.median)}
# Of what is positive and spread over decades; a gradient of exactly 0, as one wrong program has it, counts as FLOOR.
FLOOR = 1e-6
LOGARITHM = ("dynamic_weights_l2", "grad_global_norm", "own_vote_scale")
EQUAL = tuple((name, "steps 801-1200") for name in (
    "loss", "rec_ll", "log_prob", "primary_caps_l1", "posterior_within_sparsity_loss", "posterior_cls_xe"))


@dataclass(frozen=True)
class Interval:
    """A difference of means with its interval, beside the margin it has to keep.

    Attributes:
        name: column and span.
        difference: mean of the judged runs less that of the original's.
        half: half the width of the interval.
        margin: `MARGIN` standard deviations of the original's runs, in the column's unit.
    """

    name: str
    difference: float
    half: float
    margin: float

    @property
    def within(self) -> bool:
        """Whether the whole interval lies inside the margin."""
        return abs(self.difference) + self.half < self.margin


@dataclass(frozen=True)
class Verdict:
    """What was found, and whether the judged runs pass for the original's.

    Attributes:
        p: of the test for a difference.
        largest: the statistics that differ most, with their t.
        intervals: of the test for equality; none where only a difference was looked for.
    """

    p: float
    largest: tuple[tuple[str, float], ...]
    intervals: tuple[Interval, ...]

    @property
    def reasons(self) -> list[str]:
        """Why the runs do not pass; none where they do."""
        found = []
        if self.p < LEVEL:
            name, t = self.largest[0]
            found.append(f"{name} differs (t {t:+.1f}, p {self.p:.4f} over all statistics)")
        found += [f"{one.name}: {one.difference:+.3g} ± {one.half:.3g} is not within ± {one.margin:.3g}"
                  for one in self.intervals if not one.within]
        return found


def table(bundle: Bundle) -> tuple[list[str], np.ndarray]:
    """Names of all statistics and their values `[runs, statistics]`."""
    names, values = [], []
    for column in bundle.columns:
        curve = bundle.column(column)
        if column in LOGARITHM:
            curve = np.log(np.maximum(curve, FLOOR))
        for span, (first, last, reduce) in SPANS.items():
            names.append(f"{column}, {span}")
            values.append(reduce(curve[:, first // WINDOW:last // WINDOW], 1))
    return names, np.stack(values, 1)


def welch(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """t of the difference of the means, by column; 0 where nothing varies and nothing differs.

    Args:
        mine, theirs: `[runs, statistics]`.
    """
    difference = mine.mean(0) - theirs.mean(0)
    error = np.sqrt(mine.var(0, ddof=1) / len(mine) + theirs.var(0, ddof=1) / len(theirs))
    # Rounding of what is constant up to noise may not decide.
    error = np.maximum(error, 1e-9 * np.abs(theirs.mean(0)) + 1e-12)
    return difference / error


def difference(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, np.ndarray]:
    """p of the permutation test of max |t|, and t of each statistic as the runs stand.

    Args:
        mine, theirs: `[runs, statistics]`, two runs a side at least.
    """
    together, n = np.concatenate([mine, theirs]), len(mine)
    total = len(together)
    observed = welch(mine, theirs)
    largest = np.abs(observed).max()
    if math.comb(total, n) <= MOST_EXCHANGES:
        sides = [np.isin(np.arange(total), chosen) for chosen in itertools.combinations(range(total), n)]
        extreme = sum(np.abs(welch(together[side], together[~side])).max() >= largest - 1e-9 for side in sides)
        return extreme / len(sides), observed
    rng = np.random.default_rng(0)
    extreme = 1  # as the runs stand
    for _ in range(MOST_EXCHANGES - 1):
        order = rng.permutation(total)
        extreme += np.abs(welch(together[order[:n]], together[order[n:]])).max() >= largest - 1e-9
    return extreme / MOST_EXCHANGES, observed


def interval(name: str, mine: np.ndarray, theirs: np.ndarray, deviation: float) -> Interval:
    """Welch's interval of a difference of means.

    Args:
        name: of the statistic.
        mine, theirs: one number a run.
        deviation: of the original's runs, whichever of them stand in `theirs`.
    """
    parts = mine.var(ddof=1) / len(mine), theirs.var(ddof=1) / len(theirs)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(mine) - 1) + parts[1] ** 2 / (len(theirs) - 1))
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, freedom)
    return Interval(name, float(mine.mean() - theirs.mean()), float(quantile * math.sqrt(sum(parts))),
                    MARGIN * deviation)


def judge(mine: Bundle, theirs: Bundle, recorded: Bundle | None = None, equality: bool = True) -> Verdict:
    """Judge runs against the original's.

    Args:
        mine: the runs in question.
        theirs: the original's runs they are compared with.
        recorded: all of the original's runs, which the margins come from; by default `theirs`.
        equality: look at the intervals, too; without it only a difference can fail, as where all runs share
            their initial values and the standard deviation over initial values says nothing.
    """
    names, ours = table(mine)
    _, originals = table(theirs)
    p, t = difference(ours, originals)
    order = np.argsort(-np.abs(t))[:5]
    intervals = []
    if equality:
        deviations = table(recorded or theirs)[1].std(0, ddof=1)
        for column, span in EQUAL:
            i = names.index(f"{column}, {span}")
            intervals.append(interval(names[i], ours[:, i], originals[:, i], deviations[i]))
    return Verdict(p, tuple((names[i], float(t[i])) for i in order), tuple(intervals))


def halves(recorded: Bundle) -> list[tuple[Bundle, Bundle]]:
    """Every way to part runs into two halves, once: pairs of which neither is wrong."""
    n = len(recorded)
    found = []
    for chosen in itertools.combinations(range(n), n // 2):
        if n % 2 or 0 in chosen:  # of an even number each pair comes up twice
            rest = [i for i in range(n) if i not in chosen]
            found.append((recorded.of(list(chosen)), recorded.of(rest)))
    return found


def rejected(pairs: list[tuple[Bundle, Bundle]], recorded: Bundle) -> float:
    """Share of pairs that do not pass."""
    return sum(bool(judge(one, other, recorded).reasons) for one, other in pairs) / len(pairs)


def shifted(bundle: Bundle, column: str, by: float, recorded: Bundle) -> Bundle:
    """A bundle whose column is off by so many standard deviations of the original's late statistic, in every window."""
    names, values = table(recorded)
    deviation = values[:, names.index(f"{column}, steps 801-1200")].std(ddof=1)
    moved = bundle.values.copy()
    moved[..., bundle.columns.index(column)] += by * deviation
    return Bundle(bundle.names, bundle.columns, moved)
