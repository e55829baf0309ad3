"""What a newcomer sees: short stages, a failure that says what to do, a report even then."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from parity_tests.goldens import REPOSITORY
from pipelines import evaluate, parity, report
from pipelines.checkpoints.comparison import Report
from pipelines.results import unfinished
from pipelines.results.unfinished import Unfinished
from pipelines.support import console, sections
from pipelines.support.values import CheckFailed

MOST_LINES = 12


def test_a_long_training_prints_few_lines(capsys: pytest.CaptureFixture) -> None:
    """Six lines of progress however many rows, so that a stage with what it says besides stays below a
    dozen."""
    with console.progress(3200) as bar:
        for step in range(1, 3201):
            bar.step(step)
            if step % 100 == 0:
                bar.row({"loss": 1.0})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= console.PLAIN_LINES + 1 <= MOST_LINES - 3
    assert lines[-1].startswith("train 3200/3200")


def test_hours_of_training_print_a_line_in_ten_minutes(capsys: pytest.CaptureFixture,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """Six lines over thirteen hours would look like a process that hangs."""
    clock = iter(range(10**9))
    monkeypatch.setattr(console.time, "perf_counter", lambda: 60.0 * next(clock))
    with console.progress(10**6) as bar:
        for step in range(1, 40):
            bar.step(step)
            bar.row({"loss": 1.0})
    assert len(capsys.readouterr().out.splitlines()) >= 5


def test_the_accuracies_are_a_short_table(capsys: pytest.CaptureFixture) -> None:
    """Six measures under two protocols, two baselines, the checks that were missed."""
    value = {"value": 0.5, "low": 0.4, "high": 0.6}
    moment = {"test_images": 450} | {f"{kind}_{measure}": value for kind in ("posterior", "prior")
                                     for measure in ("kmeans", "logistic", "probe")}
    evaluate.say({
        "preset": "digits", "seed": 0, "baseline": {name: {"logistic": value} for name in ("a", "b")},
        "protocols": {name: {"initial": moment, "final": moment} for name in ("clean", "faithful")},
        "checks": [{"passed": False, "required": True, "says": "rec_ll 2 -> 1"},
                   {"passed": True, "required": True, "says": "probe 0.1 -> 0.6"}]})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= MOST_LINES
    assert "posterior_kmeans     clean 0.500 -> 0.500 [0.400, 0.600]  faithful 0.500" in lines[1]
    assert lines[-1] == "  1 of 2 checks passed; FAILED: rec_ll 2 -> 1"


def test_a_comparison_of_many_rows_is_counted(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    """The stage names the files in which the rows stand."""
    found = Report("Verification of model")
    section = found.section("forward", "the recording")
    for i in range(400):
        section.add(f"tap {i}", "port", "float64", 1.0 + 5e-13, 1.0, bound=1e-12)
    found.print_counts("rows.json", "rows.html")
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["Verification of model: 1 tables, 400 rows; 0 exact, 400 pass, 0 fail",
                     "closest to its bound: port float64, 50% of it", "row by row: rows.json and rows.html"]


# -------------------------------------------------------------------------------------------- parity

SUITE = '''import sys
for i in range(40):
    print("." * 72, f"[{i * 2.5 + 2.5:3.0f}%]", flush=True)
print("FAILED parity_tests/tests/ops/test_ops.py::test_op[core.warp.resampler] - ParityError: "
      "core.warp.resampler  tap grad")
sys.exit(int(sys.argv[1]))
'''


def suite(monkeypatch: pytest.MonkeyPatch, program: str, code: int) -> None:
    """Put a program in the place of pytest."""
    monkeypatch.setattr(parity, "command",
                        lambda wanted, table: [sys.executable, "-c", program, str(code)])


def test_what_the_parity_stage_counts() -> None:
    """Rows that passed, examples, and the largest margin of each type; what has no margin counts for nothing."""
    def op(verdict: str, forward: float | None, gradient: float) -> dict:
        return {"verdict": verdict, "examples": 6, "worst_forward_margin": {"float32": forward, "float64": 0.1},
                "worst_gradient_margin": {"float64": gradient}}
    found = parity.count({"ops": [op("pass", 0.2, 0.5), op("fail", 0.9, 3.0), op("pass", None, 0.4)], "goldens": [
        {"verdict": "pass", "worst_margin": 0.3}, {"verdict": "pass", "worst_margin": 0.7}, {"verdict": "skipped"}]})
    assert found == {"ops": 3, "ops_passed": 2, "goldens": 3, "goldens_passed": 2, "examples": 18,
                     "worst_forward_margin": {"float32": 0.9, "float64": 0.1},
                     "worst_gradient_margin": {"float64": 3.0}, "worst_golden_margin": 0.7}


def test_the_parity_stage_prints_quarters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                          capsys: pytest.CaptureFixture) -> None:
    """pytest's own lines go to a log, whose name is said; the last line says what to do."""
    suite(monkeypatch, SUITE, 1)
    assert console.exit_code(lambda: parity.run(sections.Parity("smoke", 2), tmp_path)) == 1
    out, err = capsys.readouterr()
    log = tmp_path / "parity" / "pytest.log"
    assert log.read_text().count("\n") == 41 and str(log) in out
    assert [line.split()[1] for line in out.splitlines()[1:5]] == ["25", "50", "75", "100"]
    assert "test_op[core.warp.resampler]" in out.splitlines()[-1] and len(out.splitlines()) <= MOST_LINES
    assert err == (f"failed: 1 tests of parity_tests failed; {log} has op, tap and values of each and the "
                   "command that runs it alone\n")


def test_a_suite_that_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                     capsys: pytest.CaptureFixture) -> None:
    """The end of what it said, and where the rest is."""
    suite(monkeypatch, "raise SystemExit('no such plugin')", 0)
    with pytest.raises(CheckFailed, match="before it could name a test; the reason is in .*pytest.log"):
        parity.run(sections.Parity("smoke", 2), tmp_path)
    assert "no such plugin" in capsys.readouterr().out


def test_the_failure_is_the_last_line_of_a_log(tmp_path: Path) -> None:
    """A stream that is no terminal keeps what is printed; the line on the other one comes after it."""
    program = ("from pipelines.support import console, values\n"
               "def work():\n    print('a table')\n    raise values.CheckFailed('row 3')\n"
               "raise SystemExit(console.exit_code(work))")
    with open(tmp_path / "log", "w") as log:
        done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, stdout=log, stderr=log)
    lines = (tmp_path / "log").read_text().splitlines()
    assert (done.returncode, lines[-2:]) == (1, ["a table", "failed: row 3"])


# -------------------------------------------------------------------------------- unfinished pipelines

PIPELINE = {"stages": {
    "prepare": {"cmd": "echo 1 > prepared", "outs": ["prepared"]},
    "train": {"cmd": "echo 1 > trained", "deps": ["prepared"], "outs": ["trained"]},
    "parity": {"cmd": "exit 3", "outs": ["table"]},
    "compare": {"cmd": "cat table trained > both", "deps": ["table", "trained"], "outs": ["both"]},
    "report": {"cmd": "cat both > page", "deps": ["both", "trained"], "outs": ["page"]}}}


def pipeline(folder: Path) -> Path:
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    (folder / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE, sort_keys=False))
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc.*")
def test_stages_without_a_result_are_found(tmp_path: Path) -> None:
    """One that failed, one that waited for it; those that could run did."""
    repo = pytest.importorskip("dvc.repo", reason="needs DVC").Repo
    with contextlib.chdir(pipeline(tmp_path)):
        with pytest.raises(Exception, match="parity"), repo() as one:
            one.reproduce(on_error="keep-going")
        assert Path("trained").exists() and not Path("page").exists()
        assert unfinished.find() == [Unfinished("parity"), Unfinished("compare", ("parity",))]


ROWS = [Unfinished("parity"), Unfinished("compare", ("parity",))]


def test_the_report_says_on_top_what_failed(tmp_path: Path) -> None:
    page = report.run(sections.Report(), tmp_path, unfinished=ROWS).read_text()
    top = page[:page.index('class="tiles"')]
    assert "2 stages of the\npipeline did not finish" in top and "results/parity/pytest.log" in top
    assert top.index("<code>parity</code>") < top.index("<code>compare</code>") and "needs parity" in top
    assert "did not finish" not in report.run(sections.Report(), tmp_path).read_text()


def test_the_command_names_the_page_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture) -> None:
    """The last line of an interrupted `make repro`: what failed and how to run it alone."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(report, "find", lambda: ROWS)
    assert report.main(["--unfinished", "--results", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == f"Report: {tmp_path / 'report.html'}\n"
    assert err.startswith("failed: stage parity failed (dvc repro -s parity runs it alone; ") and \
        err.endswith("stage compare not run (needs parity)\n")
    monkeypatch.setattr(report, "find", list)
    assert report.main(["--unfinished", "--results", str(tmp_path)]) == 0


def test_make_repro_goes_on_and_reports() -> None:
    """The recipe: every stage that can run, the page all the same, and an exit code that is not 0."""
    recipe = (REPOSITORY / "Makefile").read_text().partition("\nrepro:")[2].partition("\n\n")[0]
    assert "dvc repro --keep-going || { python -m pipelines.report --unfinished; exit 1; }" in recipe
