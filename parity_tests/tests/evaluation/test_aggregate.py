"""Statistics over seeds, what may not be put together, on made-up results.

Results are written as the stages write them, with chosen accuracies; nothing is trained here.
"""

from __future__ import annotations

import csv
import json
import math

import pytest

from parity_tests.tests.evaluation.seeds_left import N, five, summarised, write_seed, written
from pipelines import aggregate
from pipelines.results import table as results_table
from pipelines.support import settings
from pipelines.support.values import BadInput
from port.data.dataset import DataError
from port.evaluation import clustering as evaluate

pytestmark = pytest.mark.usefixtures("in_the_repository")


def test_seeds_of_another_origin_are_refused(mnist, tmp_path) -> None:
    """What was trained on a GPU is another sample than what travelled along from a CPU."""
    write_seed(tmp_path, mnist, 0)
    write_seed(tmp_path, mnist, 1, origin={"device": "cuda"})
    with pytest.raises(BadInput, match="seeds 0 and 1 do not belong together: the device trained on is "
                                       "'cuda', not 'cpu'"):
        aggregate.run(mnist, tmp_path)
    write_seed(tmp_path, mnist, 1, origin={"device": "cpu", "device_name": "another processor"})
    aggregate.run(mnist, tmp_path)


def test_an_evaluation_of_other_weights_is_refused(mnist, tmp_path) -> None:
    """Steps may be the same where the weights were replaced."""
    write_seed(tmp_path, mnist, 0, origin={"device": "cpu", "weights": "aa"}, weights="bb")
    with pytest.raises(BadInput, match="was measured with other weights"):
        aggregate.run(mnist, tmp_path)
    for given in ({"weights": "aa"}, {}):  # the same, or an evaluation from before they were noted
        write_seed(tmp_path, mnist, 0, origin={"device": "cpu", "weights": "aa"}, **given)
        aggregate.run(mnist, tmp_path)


# -------------------------------------------------------------------------------------- statistics

def test_mean_deviation_and_interval_over_seeds(tmp_path, mnist):
    row = five(tmp_path, mnist)["protocols"]["clean"]["posterior_kmeans"]
    assert row["mean"] == pytest.approx(0.92)
    assert row["std"] == pytest.approx(math.sqrt(0.001 / 4))  # ddof 1
    assert row["values"] == [0.90, 0.91, 0.92, 0.93, 0.94] and row["initial"] == pytest.approx(0.1)
    # Percentiles of the mean of five draws from five seeds: its deviation is √(0.0002 / 5).
    assert row["low"] == pytest.approx(0.92 - 1.96 * math.sqrt(0.0002 / 5), abs=2e-3)
    assert row["high"] == pytest.approx(0.92 + 1.96 * math.sqrt(0.0002 / 5), abs=2e-3)
    # 2.132 · √(0.0158² / 5 + 0.0035² / 5) is 1.54 points.
    assert (row["paper"], row["verdict"], row["reason"]) == (
        0.987, "below", "-6.70 points (-8.24 to -5.16), margin 0.7")


def test_one_seed_has_no_deviation_and_an_interval_over_examples(tmp_path, mnist):
    measured = five(tmp_path, mnist, [0.9])
    row = measured["protocols"]["clean"]["posterior_kmeans"]
    assert row["std"] is None and measured["interval_over"] == "examples"
    error = 1.96 * math.sqrt(0.9 * 0.1 / N["clean"])
    assert row["low"] == pytest.approx(0.9 - error, abs=5e-4)
    assert row["high"] == pytest.approx(0.9 + error, abs=5e-4)
    assert (row["verdict"], row["reason"]) == ("none", "1 of 5 seeds")


def test_identical_seeds_keep_the_uncertainty_of_the_examples(tmp_path, mnist):
    """All seeds see the same images: five equal ones say no more about images than one."""
    row = five(tmp_path, mnist, [0.9] * 5)["protocols"]["clean"]["posterior_kmeans"]
    one = evaluate.seeds_interval([0.9], [N["clean"]], seed=0, n_draws=2000)
    assert row["std"] == 0.0
    assert row["high"] - row["low"] == pytest.approx(one[1] - one[0], rel=0.15)


def test_the_interval_is_that_of_the_settings(tmp_path, mnist):
    """Level, draws and seed of section `evaluate`; n is a number of examples."""
    wanted = settings.overridden(mnist, ["evaluate.level=0.8", "evaluate.bootstrap_draws=300", "evaluate.seed=5"])
    row = five(tmp_path, wanted)["protocols"]["clean"]["posterior_kmeans"]
    expected = evaluate.seeds_interval(row["values"], [N["clean"]] * 5, seed=5, n_draws=300, level=0.8)
    assert (row["low"], row["high"], row["n"]) == (*expected, N["clean"])


def test_what_is_handed_on_from_each_seed(tmp_path, mnist):
    """The raw pixels' values, where and how fast it was trained, and why nobody has a measure."""
    def change(c):
        c["baseline"] = {"shifted": {"fitted_on": 30, "logistic": {"value": 0.8, "low": 0.7, "high": 0.9}}}
        c["protocols"]["clean"]["final"]["prior_kmeans"] = None
        c["not_measured"] = {"protocols.clean.final.prior_kmeans": "5 examples are fewer than 10 clusters"}
    for seed in (0, 1):
        write_seed(tmp_path, mnist, seed)
        damage(tmp_path, seed, "evaluate/mnist/{seed}/metrics.json", change)
    measured = summarised(tmp_path, mnist)
    assert measured["baseline"] == {"shifted": {"logistic": 0.8}}
    assert measured["environments"][1] == {"seed": 1, "device": "a processor", "revision": "0123456789",
                                           "torch": "2.15.0", "seconds": 60.0, "steps_per_second": 10.0}
    assert measured["not_measured"] == {"clean.prior_kmeans": "5 examples are fewer than 10 clusters"}
    assert "prior_kmeans" not in measured["protocols"]["clean"] and "prior_kmeans" in measured["protocols"]["faithful"]


def test_the_table_on_the_terminal(tmp_path, mnist, capsys):
    measured = five(tmp_path, mnist)
    aggregate.say(measured | {"not_evaluated": [7]})
    lines, row = capsys.readouterr().out.splitlines(), measured["protocols"]["clean"]["posterior_kmeans"]
    assert lines[0].endswith("MNIST, 5 seed(s), 300,000 steps; interval over seeds and examples")
    words = next(line.split() for line in lines if line.split()[:2] == ["clean", "posterior_kmeans"])
    assert " ".join(words[2:]) == (f"92.00 ± 1.58 % [{100 * row['low']:.2f}, {100 * row['high']:.2f}] below "
                                   f"({row['reason']})")
    assert lines[-1] == "  trained but not evaluated: seeds [7]"


@pytest.mark.parametrize(("changed", "says"), [
    ({"steps": 2000}, "unfinished: at 2,000 of 300,000 steps"),
    ({"data": "affnist_like"}, "not the published affNIST"),
    ({"data": "usps"}, "no figure in the paper"),
    ({"train": {"lr": 1e-3}}, "not the preset's settings: train.lr is 0.001, not 3e-05"),
])
def test_no_verdict_where_the_runs_do_not_allow_one(tmp_path, mnist, changed, says):
    measured = five(tmp_path, mnist, [0.99] * 5, **changed)
    for protocol in measured["protocols"].values():
        assert (protocol["posterior_kmeans"]["verdict"],
                protocol["posterior_kmeans"]["reason"]) == ("none", says)
    assert measured["finished"] == ("steps" not in changed)


def test_how_products_are_rounded_is_named_and_is_no_obstacle(tmp_path, mnist):
    """Five seeds with TF32 are judged as five without; the table says TF32."""
    measured = five(tmp_path, mnist, [0.987] * 5, train={"tf32": True})
    assert measured["protocols"]["clean"]["posterior_kmeans"]["verdict"] == "within"
    assert measured["unlike_preset"] == ["train.tf32 is True, not False"]
    assert results_table.runs(measured) == "5 seeds, 300,000 steps, TF32"
    assert results_table.runs(five(tmp_path, mnist, [0.987] * 5)) == "5 seeds, 300,000 steps"


def test_a_preset_that_is_no_model_of_the_paper_has_no_figure(tmp_path):
    """Whatever its data set's headline is."""
    row = five(tmp_path, settings.load_preset("mnist_small"))["protocols"]["clean"]["posterior_kmeans"]
    assert (row["paper"], row["verdict"], row["reason"]) == (None, "none", "no figure in the paper")


def test_a_logistic_probe_is_held_beside_no_figure(tmp_path, mnist):
    row = five(tmp_path, mnist, [0.99] * 5)["protocols"]["clean"]["posterior_logistic"]
    assert (row["paper"], row["verdict"]) == (None, "none")


# ---------------------------------------------------------------------------------- mixtures refused

def damage(folder, seed, file, change):
    path = folder / file.format(seed=seed)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(("file", "change", "says"), [
    ("train/mnist/{seed}/config.json", lambda c: c["train"].update(lr=1.0), "train.lr is 1.0, not"),
    ("train/mnist/{seed}/config.json", lambda c: c["arguments"]["part_encoder"].update(n_caps=24),
     "arguments.part_encoder.n_caps is 24, not 40"),
    ("train/mnist/{seed}/config.json", lambda c: c["prepare"].update(options={"test_share": 0.5}),
     "prepare.options.test_share is 0.5, not left out"),
    ("evaluate/mnist/{seed}/config.json", lambda c: c["evaluate"].update(fit_images=100),
     "evaluate.fit_images is 100, not 0"),
    ("evaluate/mnist/{seed}/metrics.json", lambda c: c.update(data="digits"), "data is 'digits'"),
    ("evaluate/mnist/{seed}/metrics.json", lambda c: c.update(steps=7), "measured at 7 steps"),
    ("evaluate/mnist/{seed}/metrics.json",
     lambda c: c["protocols"]["clean"]["final"]["posterior_kmeans"].update(value=float("nan")),
     "seed 3: clean posterior_kmeans (final) is nan"),
    ("evaluate/mnist/{seed}/metrics.json",
     lambda c: c["protocols"]["faithful"]["final"].pop("prior_kmeans"),
     "seed 3: faithful prior_kmeans (final) is None"),
])
def test_what_does_not_belong_together_is_refused(tmp_path, mnist, capsys, file, change, says):
    for seed in (0, 1, 3):
        write_seed(tmp_path, mnist, seed)
    damage(tmp_path, 3, file, change)
    assert aggregate.main(["--preset", "mnist", "--results", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and says in lines[0] and "3" in lines[0]
    assert not (tmp_path / "aggregate").exists()


def test_steps_that_differ_are_refused(tmp_path, mnist):
    write_seed(tmp_path, mnist, 0)
    write_seed(tmp_path, mnist, 1, steps=1000)
    with pytest.raises(BadInput, match="steps is 1000, not 300000"):
        summarised(tmp_path, mnist)


def test_what_decides_nothing_may_differ(tmp_path, mnist):
    write_seed(tmp_path, mnist, 0)
    write_seed(tmp_path, mnist, 1, train={"threads": 7, "compile": True, "log_every": 50,
                                          "lr_decay": 0.5})  # of a constant rate
    summarised(tmp_path, mnist)


def test_a_setting_unknown_to_an_older_run_counts_as_its_default(tmp_path, mnist):
    for seed in (0, 1):
        write_seed(tmp_path, mnist, seed)
    damage(tmp_path, 1, "train/mnist/{seed}/config.json",
           lambda c: (c["train"].pop("shift"), c["arguments"]["autoencoder"].pop("target")))
    assert not summarised(tmp_path, mnist)["unlike_preset"]


def test_a_decay_that_applies_decides(tmp_path, mnist):
    for seed, decay in ((0, 0.5), (1, 0.6)):
        write_seed(tmp_path, mnist, seed, train={"lr_schedule": "exponential", "lr_decay": decay})
    with pytest.raises(BadInput, match="train.lr_decay is 0.6, not 0.5"):
        aggregate.run(mnist, tmp_path)


def test_missing_results_and_files_are_named(tmp_path, mnist):
    with pytest.raises(BadInput, match="no evaluation in .*evaluate/mnist"):
        aggregate.run(mnist, tmp_path)
    write_seed(tmp_path, mnist, 0)
    (tmp_path / "train/mnist/0/config.json").unlink()
    with pytest.raises(DataError, match="config.json is missing"):
        aggregate.run(mnist, tmp_path)


def test_trained_seeds_without_evaluation_are_listed(tmp_path, mnist):
    for seed in (0, 1):
        write_seed(tmp_path, mnist, seed)
    (tmp_path / "evaluate/mnist/1/metrics.json").unlink()
    measured = summarised(tmp_path, mnist)
    assert (measured["seeds"], measured["not_evaluated"]) == ([0], [1])


def test_curves_are_thinned_and_kept_where_the_history_is_gone(tmp_path, mnist):
    written(tmp_path, mnist, [0.9, 0.8])
    path = tmp_path / "aggregate/mnist/curves.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    of_seed = [row for row in rows if row["seed"] == "1"]
    assert 100 <= len(of_seed) <= 130 and of_seed[-1]["step"] == "30000"
    assert float(of_seed[-1]["held_out_posterior_probe"]) == pytest.approx(0.8)
    before = path.read_text()
    (tmp_path / "train/mnist/0/history.csv").unlink()  # as in results brought from elsewhere
    aggregate.run(mnist, tmp_path)
    assert path.read_text() == before


def test_seeds_at_hand_are_numbers_with_metrics(tmp_path):
    for name in ("0", "10", "2", "old", "3"):
        (tmp_path / name).mkdir()
        if name != "3":
            (tmp_path / name / "metrics.json").write_text("{}")
    assert aggregate.seeds_in(tmp_path) == [0, 2, 10]
