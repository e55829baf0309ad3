"""Intervals over seeds and verdicts on the paper: their rules, on made-up numbers."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from parity_tests import goldens
from pipelines.results import paper
from pipelines.results import table as results_table
from port.evaluation import clustering as evaluate


def test_perfect_and_useless_seeds_have_intervals():
    assert evaluate.seeds_interval([1.0, 1.0], [100, 100]) == (1.0, 1.0)
    assert evaluate.seeds_interval([0.0], [100]) == (0.0, 0.0)
    low, high = evaluate.seeds_interval([0.0, 1.0], [100, 100])
    assert (low, high) == (0.0, 1.0)


def test_the_interval_covers_the_true_mean_where_seeds_share_their_images():
    """In 150 trials five seeds, spread by 0.003, are right on those images whose draw is below p.

    A 95 % interval was measured to hold 0.8 in 0.94 of 300 such trials; a bootstrap over the seeds
    alone, blind to the luck of the images (0.004), in far fewer.
    """
    rng = np.random.default_rng(0)
    both = seeds_alone = 0
    for i in range(150):
        ease = rng.random(10_000)
        values = [float((ease < rng.normal(0.8, 0.003)).mean()) for _ in range(5)]
        low, high = evaluate.seeds_interval(values, [10_000] * 5, seed=i, n_draws=300)
        both += low <= 0.8 <= high
        low, high = np.quantile(rng.choice(values, (300, 5)).mean(1), [0.025, 0.975])
        seeds_alone += low <= 0.8 <= high
    assert 0.87 <= both / 150 <= 0.99 and seeds_alone / 150 < 0.75


def test_the_interval_is_seeded():
    first, again, other = (evaluate.seeds_interval([0.8, 0.9], [5000, 5000], seed) for seed in (3, 3, 4))
    assert first == again != other


MADE_UP = paper.Figure(0.90, "made up", std=0.01, margin=2.0, runs=5)


def seeds_around(mean: float, std: float, n: int = 5) -> list[float]:
    """Shares with exactly this mean and standard deviation (ddof 1)."""
    steps = np.linspace(-1, 1, n)
    return list(mean + std * steps / steps.std(ddof=1))


@pytest.mark.parametrize(("mean", "std", "word"), [
    # The half width is 2.132 · √(std² / 5 + 0.01² / 5): 0.95 points at std 0, 1.35 at 0.01, 2.13 at 0.02.
    (0.900, 0.00, "within"), (0.910, 0.00, "within"), (0.890, 0.00, "within"), (0.911, 0.00, "undecided"),
    (0.906, 0.01, "within"), (0.907, 0.01, "undecided"), (0.900, 0.02, "undecided"),
    (0.870, 0.00, "below"), (0.866, 0.01, "below"), (0.867, 0.01, "undecided"), (0.930, 0.00, "above")])
def test_verdict_rule(mean, std, word):
    assert paper.verdict(seeds_around(mean, std), MADE_UP).word == word


@pytest.mark.parametrize("mean", np.linspace(0.86, 0.94, 33))
def test_scatter_makes_nothing_within(mean):
    """Of our seeds and of the paper's runs: what is not within stays so, and all ends undecided."""
    for ours, theirs in ((1, 0), (0, 1), (1, 1)):
        words = [paper.verdict(seeds_around(mean, 0.0005 * i * ours), replace(
            MADE_UP, std=0.005 + 0.0005 * i * theirs)).word for i in range(200)]
        assert words[-1] == "undecided" and all(word == words[0] for word in words[:words.index("undecided")])
        assert set(words[words.index("undecided"):]) == {"undecided"}


def test_more_seeds_of_the_same_scatter_decide():
    assert paper.verdict(seeds_around(0.895, 0.02), MADE_UP).word == "undecided"
    assert paper.verdict(seeds_around(0.895, 0.02, n=40), MADE_UP).word == "within"


def test_the_reason_states_distance_interval_and_margin():
    assert paper.verdict(seeds_around(0.895, 0.01), MADE_UP).reason == "-0.50 points (-1.85 to +0.85), margin 2.0"


def test_an_equal_port_is_found_within_seven_times_in_ten():
    """What the margin of two deviations was derived from, with seeds that scatter as the paper's runs."""
    rng = np.random.default_rng(0)
    draws = [(rng.normal(0.9, 0.01, 5), rng.normal(0.9, 0.01, 5).mean()) for _ in range(2000)]
    found = np.mean([paper.verdict(list(ours), replace(MADE_UP, value=theirs)).word == "within"
                     for ours, theirs in draws])
    assert 0.62 <= found <= 0.76


@pytest.mark.parametrize("figure", [
    *(figure for figures in paper.FIGURES.values() for figure in figures.values()),
    *(figure for figures in paper.PRESETS.values() for figure in figures.values() if figure)],
    ids=lambda figure: f"{figure.value}")
def test_margins_follow_their_rule(figure):
    """Two deviations of a run, rounded up to 0.1 points, from 0.2 to 3.5."""
    assert figure.margin == pytest.approx(min(max(math.ceil(round(2000 * figure.std, 6)) / 10, 0.2), 3.5))


def test_the_page_states_every_margin():
    """docs/results.md has the figure, its scatter, its runs and the margin of each comparison."""
    text = (goldens.REPOSITORY / "docs/results.md").read_text()
    figures = {figure for table in (paper.FIGURES, paper.PRESETS) for figures in table.values()
               for figure in figures.values() if figure}
    for one in figures:
        shown = results_table.percent(one).split()[0]
        assert re.search(rf"\| {shown} \({100 * one.std:.4g}(\.0)?, {one.runs}\) \| {one.margin} \|", text), one
    assert len(re.findall(r"\| [\d.]+ \([\d.]+, \d+\) \| [\d.]+ \|", text)) == len(figures)


@pytest.mark.parametrize(("changed", "says"), [
    ({}, ""), ({"trained_on": "mnist_other_1a2b3c4d"}, "trained on another data set, mnist_other_1a2b3c4d"),
    ({"data": "mnist_validation"}, "validation images, not the test split"),
    ({"data": "svhn_head"}, "not the published SVHN"), ({"full_steps": None}, "no such preset any more"),
    ({"differences": ["train.lr is 1, not 2", "x"]}, "not the preset's settings: train.lr is 1, not 2"),
    ({"steps": 999}, "unfinished: at 999 of 1,000 steps"), ({"steps": 1001}, ""), ({"n_seeds": 4}, "4 of 5 seeds")])
def test_what_stands_in_the_way_of_a_verdict(changed, says):
    plain = {"data": "mnist", "n_seeds": 5, "steps": 1000, "full_steps": 1000, "differences": [], "trained_on": "mnist"}
    assert paper.obstacle_to(**plain | changed) == says


def test_no_verdict_without_the_scatter_of_the_paper():
    figure = paper.ANCESTORS[("em_mnist", "mnist")]
    assert paper.verdict([0.9956] * 5, figure) == ("none", "the paper does not say how its runs scatter")
