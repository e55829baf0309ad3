"""Statistics over seeds, verdicts on the paper, the README's table and the page, on made-up results.

Results are written as the stages write them, with chosen accuracies; nothing is trained here.
"""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from parity_tests import goldens
from pipelines import aggregate, cli, report
from pipelines.results import paper, paper_report
from pipelines.results import table as results_table
from pipelines.support import sections, settings
from pipelines.support.values import BadInput
from port.evaluation import clustering as evaluate

N = {"clean": 10_000, "faithful": 9_984}
MEASURES = ("posterior_kmeans", "prior_kmeans", "posterior_probe", "posterior_logistic")


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(goldens.REPOSITORY)


@pytest.fixture
def mnist():
    return settings.load_preset("mnist")


def accuracy(value: float, n: int) -> dict:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "standard_error": 0.003,
            "n": n}


def write_seed(folder, preset, seed: int, value=0.9, steps=None, data="mnist", on=None,
               history=True, train=None, origin=None, weights=None) -> None:
    """What the stages would leave of one seed whose every accuracy is `value`."""
    wanted, _ = preset.train(seed)
    config = preset.resolved() | {"train": asdict(wanted) | (train or {}),
                                  "arguments": preset.config().to_arguments()}
    steps = wanted.steps if steps is None else steps
    at = settings.folder_of("train", preset.name, seed, folder)
    beside = settings.folder_of("evaluate", settings.evaluation_name(preset.name, on), seed, folder)
    environment = {"device_name": "a processor", "revision": "0123456789",
                   "packages": {"torch": "2.15.0"}, "seed": seed} | (origin or {"device": "cpu"})
    protocols = {protocol: {moment: {
        "test_images": n, "fit_images": 60_000, "rec_ll": -1400.0, "log_prob": 20.0,
        **{name: accuracy(0.1 if moment == "initial" else value, n) for name in MEASURES}}
        for moment in ("initial", "final")} for protocol, n in N.items()}
    evaluated = {"preset": preset.name, "seed": seed, "steps": steps, "data": data,
                 "trained_on": "mnist", "level": 0.95, "protocols": protocols, "baseline": {},
                 "checks": [], "learned": True} | ({"weights": weights} if weights else {})
    for path, content in (
            (at / "config.json", config), (at / "environment.json", environment),
            (at / "metrics.json", {"steps": steps, "seconds": 60.0, "steps_per_second": 10.0}),
            (beside / "metrics.json", evaluated), (beside / "environment.json", environment),
            (beside / "config.json", {"preset": preset.name, "on": on,
                                      "evaluate": asdict(preset.evaluate())})):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    if history:
        with open(at / "history.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "rec_ll", "held_out_posterior_probe"])
            for i in range(1, 301):
                writer.writerow([100 * i, -1500 + 0.1 * i + seed, value * i / 300 if i % 10 == 0
                                 else ""])


def test_seeds_of_another_origin_are_refused(mnist, tmp_path) -> None:
    """What was trained on a GPU is another sample than what travelled along from a CPU."""
    write_seed(tmp_path, mnist, 0)
    write_seed(tmp_path, mnist, 1, origin={"device": "cuda"})
    with pytest.raises(BadInput, match="seeds 0 and 1 do not belong together: the device trained on is "
                                       "'cuda' against 'cpu'"):
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



def summarised(folder, preset) -> dict:
    """What metrics.json would say; drawing the charts takes longer than all the rest."""
    runs, missing = aggregate.read_runs(preset.name, preset.name, folder)
    return aggregate.summarise(runs, preset) | {"not_evaluated": missing}


def five(folder, preset, values=(0.90, 0.91, 0.92, 0.93, 0.94), **more) -> dict:
    for seed, value in enumerate(values):
        write_seed(folder, preset, seed, value, **more)
    return summarised(folder, preset)


def written(folder, preset, values, **more) -> None:
    five(folder, preset, values, **more)
    aggregate.run(preset, folder)


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


def test_no_verdict_without_the_scatter_of_the_paper():
    figure = paper.ANCESTORS[("em_mnist", "mnist")]
    assert paper.verdict([0.9956] * 5, figure) == ("none", "the paper does not say how its runs scatter")


@pytest.mark.parametrize(("changed", "says"), [
    ({"steps": 2000}, "unfinished: at 2,000 of 300,000 steps"),
    ({"data": "affnist_like"}, "not the published affNIST"),
    ({"data": "usps"}, "no figure in the paper"),
    ({"train": {"lr": 1e-3}}, "not the preset's settings: train.lr is 0.001 against 3e-05"),
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
    assert measured["unlike_preset"] == ["train.tf32 is True against False"]
    assert results_table.runs(measured) == "5 seeds, 300,000 steps, TF32"
    assert results_table.runs(five(tmp_path, mnist, [0.987] * 5)) == "5 seeds, 300,000 steps"


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
    ("train/mnist/{seed}/config.json", lambda c: c["train"].update(lr=1.0), "train.lr is 1.0 against"),
    ("train/mnist/{seed}/config.json", lambda c: c["arguments"]["part_encoder"].update(n_caps=24),
     "arguments.part_encoder.n_caps is 24 against 40"),
    ("train/mnist/{seed}/config.json", lambda c: c["prepare"].update(options={"test_share": 0.5}),
     "prepare.options.test_share is 0.5 against 'absent'"),
    ("evaluate/mnist/{seed}/config.json", lambda c: c["evaluate"].update(fit_images=100),
     "evaluate.fit_images is 100 against 0"),
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
    with pytest.raises(BadInput, match="steps is 1000 against 300000"):
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
    with pytest.raises(BadInput, match="train.lr_decay is 0.6 against 0.5"):
        aggregate.run(mnist, tmp_path)


def test_missing_results_and_files_are_named(tmp_path, mnist):
    with pytest.raises(BadInput, match="no evaluation in .*evaluate/mnist"):
        aggregate.run(mnist, tmp_path)
    write_seed(tmp_path, mnist, 0)
    (tmp_path / "train/mnist/0/config.json").unlink()
    with pytest.raises(BadInput, match="config.json is missing"):
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


# ------------------------------------------------------------------------------------ table and page

@pytest.mark.parametrize(("file", "made", "markers"), [
    ("README.md", results_table.short, (results_table.BEGIN, results_table.END)),
    ("docs/results.md", results_table.markdown, (results_table.BEGIN, results_table.END)),
    ("docs/results.md", results_table.conditions, results_table.CONDITIONS)])
def test_the_tables_are_what_the_committed_results_say(file, made, markers):
    text = (goldens.REPOSITORY / file).read_text()
    table = text.split(markers[0])[1].split(markers[1])[0].strip()
    assert table == made(goldens.REPOSITORY / "results")


def test_the_table_tells_done_unfinished_and_not_yet_run(tmp_path, mnist, capsys):
    written(tmp_path, mnist, [0.987] * 5)
    written(tmp_path, settings.load_preset("digits"), [0.5, 0.6], data="digits", steps=1600)
    lines = results_table.markdown(tmp_path).splitlines()
    row = next(line for line in lines if "`mnist`" in line and "clustering" in line)
    assert row == ("| MNIST, `mnist` | clustering | 98.7 % | 98.7 ± 0.0 % (98.5–98.9) | "
                   "98.7 ± 0.0 % (98.5–98.9) | 5 seeds, 300,000 steps | within |")
    row = next(line for line in lines if "`digits`" in line and "clustering" in line)
    assert "55.0 ± 7.1 %" in row and "2 seeds, 1,600 of 3,200 steps" in row
    assert sum("not yet run" in line for line in lines) == (  # two rows each, a classifier's one
        2 * (len(results_table.EXPECTED) - 2)
        - sum(name.startswith(("capsnet", "em")) for name, _ in results_table.EXPECTED))
    short = results_table.short(tmp_path).splitlines()
    assert len(short) == 2 + 4 and short[2] == (
        "| MNIST, `mnist` | clustering | 98.7 ± 0.0 % (98.5–98.9) | 98.7 % | within | "
        "5 seeds, 300,000 steps | a processor, 1 min |")
    assert "| – | – | 2 seeds, 1,600 of 3,200 steps |" in short[4]
    conditions = results_table.conditions(tmp_path).splitlines()
    assert conditions[2].startswith("| `digits` | 0, 1 | 1,600 | a processor: ") and len(conditions) == 2 + 2
    files = {name: tmp_path / name for name in ("README.md", "page.md")}
    marked = "\n".join(results_table.CONDITIONS)
    for path in files.values():
        path.write_text(f"before\n{results_table.BEGIN}\nold\n{results_table.END}\nafter\n{marked}\n")
    arguments = ["--results", str(tmp_path), "--readme", str(files["README.md"]), "--page",
                 str(files["page.md"]), "--write"]
    assert results_table.main(arguments) == 0
    between = "\n".join([results_table.CONDITIONS[0], *conditions, results_table.CONDITIONS[1]])
    for path, table, last in zip(files.values(), (short, lines), (marked, between)):
        assert path.read_text() == (f"before\n{results_table.BEGIN}\n" + "\n".join(table)
                                    + f"\n{results_table.END}\nafter\n{last}\n")
    files["README.md"].write_text("no markers")
    assert results_table.main(arguments) == 2
    assert "must hold" in capsys.readouterr().err and files["README.md"].read_text() == "no markers"


@pytest.mark.parametrize(("seconds", "words"), [(20, "1 min"), (480, "8 min"), (3599, "60 min"), (14160, "3.9 h")])
def test_times_are_short(seconds, words):
    assert results_table.hours(seconds) == words


def test_every_figure_has_a_source_and_a_row():
    shown = {(row["data"], row["figure"].value) for row in results_table.rows("nowhere")
             if row["figure"]}
    everything = [(data, figure) for data, figures in paper.FIGURES.items() for figure in figures.values()]
    everything += [(data, figure) for (_, data), figure in paper.ANCESTORS.items()]
    everything += [("mnist", figure) for figures in paper.PRESETS.values() for figure in figures.values()
                   if figure]
    assert shown == {(data, figure.value) for data, figure in everything}
    assert all(figure.source for _, figure in everything)


def test_the_page_is_made_from_aggregates_alone(tmp_path, mnist):
    written(tmp_path, mnist, [0.987] * 5)
    written(tmp_path, settings.load_preset("digits"), [0.5], data="digits", history=False)
    kept = tmp_path / "kept"
    for path in tmp_path.glob("aggregate/*/*.*"):
        target = kept / path.relative_to(tmp_path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert cli.main(["report", "--presets", "all", "--results", str(kept)]) == 0
    page = (kept / "paper.html").read_text()
    assert "within" in page and "not yet run" in page and "pictures are not kept" in page
    assert page.count("<svg") == 2 + 2  # accuracy of both, two curves of the first
    assert "http" not in page.replace("http://www.w3.org", "")
    assert 'id="mnist"' in page and 'id="digits"' in page
    only = paper_report.run(["digits"], kept, tmp_path / "one.html").read_text()
    assert 'id="mnist"' not in only
    with pytest.raises(BadInput, match="no aggregate of svhn"):
        paper_report.run(["svhn"], kept)


def test_the_page_without_any_result_names_the_command(tmp_path):
    page = paper_report.run(["all"], tmp_path).read_text()
    assert "python -m pipelines.aggregate" in page
    assert page.count("not yet run") == len(results_table.EXPECTED)


def test_the_root_report_is_made_from_committed_metrics_alone(tmp_path):
    """A fresh clone has metrics and environments only, or nothing at all."""
    committed = sections.Report()
    for stage in ("train", "evaluate"):
        for file in ("metrics.json", "environment.json"):
            source = goldens.REPOSITORY / "results" / stage / "digits" / "0" / file
            target = tmp_path / stage / "digits" / "0" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    page = report.run(committed, tmp_path).read_text()
    assert "clean protocol" in page and "faithful protocol" in page and "No pictures yet" in page
    page = report.run(committed, tmp_path / "nothing").read_text()
    assert "No evaluation yet" in page and "No training run yet" in page


def test_seeds_at_hand_are_numbers_with_metrics(tmp_path):
    for name in ("0", "10", "2", "old", "3"):
        (tmp_path / name).mkdir()
        if name != "3":
            (tmp_path / name / "metrics.json").write_text("{}")
    assert aggregate.seeds_in(tmp_path) == [0, 2, 10]
