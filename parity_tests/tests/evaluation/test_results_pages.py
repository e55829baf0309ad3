"""The README's table, the page of results and the reports, made of the committed results and of made-up ones."""

from __future__ import annotations

import numpy as np
import pytest

from parity_tests import goldens
from parity_tests.tests.evaluation.seeds_left import five, written
from pipelines import cli, report
from pipelines.evaluation import shown
from pipelines.results import paper, paper_report, plots
from pipelines.results import table as results_table
from pipelines.support import sections, settings
from pipelines.support.values import BadInput

pytestmark = pytest.mark.usefixtures("in_the_repository")


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


def test_verdicts_of_both_protocols_where_they_differ():
    within, below = ({"verdict": word, "reason": "d"} for word in ("within", "below"))
    few, short = ({"verdict": "none", "reason": reason} for reason in ("1 of 5 seeds", "unfinished: at 1 of 2 steps"))
    assert results_table.verdicts({"clean": within, "faithful": below}) == "clean within; faithful below"
    assert results_table.verdicts({"clean": within, "faithful": within}) == "within"
    assert results_table.verdicts({"clean": few, "faithful": None}) == "not comparable: 1 of 5 seeds"
    assert results_table.verdicts({"clean": short, "faithful": short}) == "not comparable: unfinished"
    assert results_table.verdicts({"clean": None, "faithful": None}) == "–"


def test_the_conditions_name_every_difference_and_every_device(tmp_path, mnist):
    """Of seeds whose time is not known there is no mean time."""
    written(tmp_path, mnist, [0.9], train={"lr": 1e-3, "batch_size": 8})
    row = results_table.conditions(tmp_path).splitlines()[2]
    assert "train.batch_size is 8, not 128; train.lr is 0.001, not 3e-05" in row
    known = [{"device": "a processor", "seconds": 7200.0}, {"device": "a card", "seconds": 3600.0}]
    assert results_table.places(known) == "a processor and a card, 1.5 h"
    assert results_table.places([*known, {"device": None, "seconds": None}]) == "a processor and a card and unknown"


def test_what_was_measured_on_validation_images_is_in_no_table(tmp_path, mnist):
    written(tmp_path, mnist, [0.9])
    (tmp_path / "aggregate/mnist").rename(tmp_path / "aggregate/mnist_on_validation")
    assert results_table.aggregates(tmp_path) == {} and "mnist_on_validation" not in results_table.markdown(tmp_path)


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


def test_a_seed_has_its_own_numbers_and_the_first_one_its_pictures(tmp_path, mnist):
    """The page's table of seeds in the order of the seeds; pictures of the first that has any."""
    measured = five(tmp_path, mnist, (0.90, 0.91, 0.92, 0.93, 0.94))
    shown = paper_report.per_seed(measured)
    assert [row["seed"] for row in shown] == [0, 1, 2, 3, 4]
    assert [row["cells"][0] for row in shown] == [[value, value] for value in (0.90, 0.91, 0.92, 0.93, 0.94)]
    for seed in (1, 3):
        folder = tmp_path / "evaluate/mnist" / str(seed) / "pictures"
        folder.mkdir()
        (folder / "templates.png").write_bytes(bytes([seed]))
    found = paper_report.looks("mnist", measured, tmp_path)
    assert found["looked_at"] == 1 and [one["name"] for one in found["pictures"]] == ["templates"]


@pytest.fixture
def drawn(monkeypatch):
    """The axes of each chart, in place of its SVG."""
    monkeypatch.setattr(plots, "_svg", lambda figure: figure.axes[0])


def test_the_chart_of_the_seeds(tmp_path, mnist, drawn):
    """Interval, seeds, mean and the paper's figure, in per cent."""
    measured = five(tmp_path, mnist)
    row = measured["protocols"]["clean"]["posterior_kmeans"]
    axes = plots.seeds_chart(measured)
    place = [label.get_text() for label in axes.get_yticklabels()].index("clustering, posterior, clean")
    lines = [line for line in axes.lines if line.get_ydata()[0] in (place, place - 0.24, place - 0.45)]
    found = [[round(float(x) / 100, 6) for x in line.get_xdata()] for line in lines]
    assert found == [[round(row["low"], 6), round(row["high"], 6)], row["values"], [round(row["mean"], 6)],
                     [0.987, 0.987]]


def test_the_mean_of_the_curves_is_over_steps_that_all_seeds_have(drawn):
    rows = [{"seed": seed, "step": step, "rec_ll": str(value)} for seed, step, value in (
        (0, 100, 1.0), (0, 200, 2.0), (1, 100, 3.0))]
    ((name, axes),) = plots.curves_over_seeds(rows)
    first, second, mean = axes.lines
    assert name == "reconstruction" and [list(line.get_ydata()) for line in (first, second)] == [[1.0, 2.0], [3.0]]
    assert (list(mean.get_xdata()), list(mean.get_ydata()), mean.get_label()) == ([100], [2.0], "training")


def test_a_confusion_has_the_true_class_down_and_the_given_one_across(tmp_path, drawn):
    """As it was written; clusters without a class are left out."""
    table = shown.confusion(np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 1, -1]), 2)
    assert table.tolist() == [[1, 2, 0], [0, 1, 1]]
    shown.write_confusions(tmp_path / "confusion.csv", {"clean": table})
    (read,) = plots.read_confusions(tmp_path / "confusion.csv").values()
    assert read.tolist() == [[1, 2], [0, 1]]
    places = {text.get_text(): text.get_position() for text in plots.confusion(read).texts}
    assert places["2"] == (1, 0)  # across, down


def test_the_chart_of_the_motions(drawn):
    """Before and after, half of the parts on the line, beside a part that stays."""
    errors = {"initial": {"25": 1.0, "50": 2.0, "75": 3.0}, "final": {"25": 0.1, "50": 0.2, "75": 0.3}}
    axes = plots.followed([{"motion": "shift", **{moment: {"error": error, "required": {"50": 5.0}}
                                                  for moment, error in errors.items()}}])
    found = {line.get_label(): list(line.get_xdata()) for line in axes.lines if not line.get_label().startswith("_")}
    assert found == {"untrained": [2.0], "trained": [0.2], "a part that stays": [5.0, 5.0]}
    assert [list(line.get_xdata()) for line in axes.lines[::2]][:2] == [[1.0, 3.0], [0.1, 0.3]]


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
