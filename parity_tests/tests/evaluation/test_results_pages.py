"""The README's table, the page of results and the reports, made of the committed results and of made-up ones."""

from __future__ import annotations

import pytest

from parity_tests import goldens
from parity_tests.tests.evaluation.seeds_left import written
from pipelines import cli, report
from pipelines.results import paper, paper_report
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
