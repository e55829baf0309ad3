"""The README's table of claims: each command exists and runs, and writes the file that it names.

In their shortest form: a few of the tests, one planted bug, help instead of a training run. What a command
of hours measures is compared with the committed file it names.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import port
from parity_tests import goldens
from parity_tests.curves import __main__ as curves
from parity_tests.goldens import REPOSITORY
from parity_tests.goldens import routing as goldens_routing
from parity_tests.mutants import random_bugs
from parity_tests.mutants import table as mutant_table
from pipelines import cli

# Of each file that a claim names, tests that take no time.
QUICK = " or ".join((
    "enc_linear-noise-float64-port", "(test_record and safe_log)", "(test_op and relu1)",
    "(test_covering and 0 and not 10)", "squash_s12_f64", "paper_one_child_parent_s309_f64-port"))


def claims() -> list[dict[str, str]]:
    """Rows of the table by column."""
    text = (REPOSITORY / "README.md").read_text().partition("## Claims and how to check them")[2]
    lines = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("|")]
    columns, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert columns == ["claim", "command", "result file", "measured at"]
    return [dict(zip(columns, row, strict=True)) for row in rows]


def in_backticks(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


CLAIMS = {in_backticks(row["command"])[0]: row for row in claims()}


def commands(*beginning: str) -> list[list[str]]:
    """The words of the table's commands that begin so."""
    return [words for words in map(shlex.split, CLAIMS) if words[:len(beginning)] == list(beginning)]


def result_files(command: str) -> list[str]:
    return in_backticks(CLAIMS[command]["result file"])


def only_claim(*beginning: str) -> tuple[str, dict[str, str]]:
    """The one command that begins so, with its row."""
    (words,) = commands(*beginning)
    command = next(command for command in CLAIMS if shlex.split(command) == words)
    return command, CLAIMS[command]


def test_every_command_is_tried() -> None:
    """A row of a kind that no test here runs would only be text."""
    tried = [*commands("pytest"), *commands("python", "-m", "parity_tests.mutants.table"),
             *commands("make", "mutants"), *commands("make", "repro"), *commands("dvc", "repro"),
             *commands("python", "-m", "parity_tests.curves")]
    assert len(tried) == len(CLAIMS) >= 7


def test_the_tests_of_the_claims_write_their_table() -> None:
    """All files of the pytest rows in one run, a few tests of each, with the table where the row says."""
    files = list(dict.fromkeys(file for words in commands("pytest") for file in words[1:]))
    assert all((REPOSITORY / file).is_file() for file in files)
    named = {result_files(command)[0] for command in CLAIMS if command.startswith("pytest")}
    assert named == {"results/tests/parity.json"}
    table = REPOSITORY / named.pop()
    before = table.read_bytes() if table.is_file() else None
    try:
        table.unlink(missing_ok=True)
        run = subprocess.run(
            [sys.executable, "-m", "pytest", *files, "--tier=smoke", "-q", "-k", QUICK, "-p", "no:xdist",
             "-p", "no:cacheprovider"], cwd=REPOSITORY, capture_output=True, text=True,
            stdin=subprocess.DEVNULL)
        assert run.returncode == 0, run.stdout[-3000:]
        found = json.loads(table.read_text())
    finally:
        table.unlink(missing_ok=True)
        if before is not None:
            table.write_bytes(before)
    assert {"core.ops.relu1", "scae.model.ImageAutoencoder"} <= {row["op"] for row in found["ops"]}
    recorded = " ".join(row["golden"] for row in found["goldens"])
    assert all(name in recorded for name in ("options/enc_linear", "safe_log", "routing/capsnet/squash",
                                             "routing/em/paper_one_child"))
    assert {row["verdict"] for row in (*found["ops"], *found["goldens"])} == {"pass"}


# ------------------------------------------------------------------------------------- planted bugs

class Inline:
    """A pool of processes that is this one."""

    def __init__(self, *_: object, **__: object) -> None:
        self.imap = map

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def apply(self, function: Callable, arguments: list) -> object:
        return function(*arguments)


def run_inline(module: object, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A module's command line in this process."""
    context = type("Context", (), {"Pool": Inline})
    monkeypatch.setattr(module.multiprocessing, "get_context", lambda _: context)
    monkeypatch.setattr(module, "prepare_worker", lambda: None)
    monkeypatch.setattr(sys, "argv", ["python -m", *words])
    assert module.main() == 0


def named_by_default(module: object) -> str:
    """The file that a command writes when nothing else is said."""
    (option,) = [one for one in module.main.command.params if one.opts == ["--json"]]
    return option.default


def test_planted_bugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one, caught; the committed table has the counts that the claim states."""
    command, row = only_claim("python", "-m", "parity_tests.mutants.table")
    assert result_files(command) == [named_by_default(mutant_table)]
    monkeypatch.setattr(mutant_table, "MUTANTS", mutant_table.MUTANTS[:1])
    run_inline(mutant_table, ["--json", str(tmp_path / "table.json")], monkeypatch)
    found = json.loads((tmp_path / "table.json").read_text())
    assert (found["caught"], found["total"]) == (1, 1)
    committed = json.loads((REPOSITORY / result_files(command)[0]).read_text())
    assert f"{committed['caught']} of {committed['total']} planted bugs" in row["claim"]


def test_learning_curves(tmp_path: Path) -> None:
    """The command of the claim on the committed runs: as many as it says; the port passes, the wrong ones do not."""
    command, row = only_claim("python", "-m", "parity_tests.curves")
    assert curves.main([*shlex.split(command)[3:], "--json", str(tmp_path / "verdicts.json")]) == 0
    found = json.loads((tmp_path / "verdicts.json").read_text())
    wrong = [verdict for name, verdict in found.items() if name.startswith("wrong_")]
    assert f"{found['port']['runs']} short runs" in row["claim"] and "two wrong programs" in row["claim"]
    assert found["port"]["passes"] and len(wrong) == 2 and not any(verdict["passes"] for verdict in wrong)
    assert (REPOSITORY / result_files(command)[0] / "port.npz").is_file()


def test_random_bugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None drawn is the shortest table; the committed one has the number and seed of the command."""
    command, row = only_claim("make", "mutants")
    assert result_files(command) == [named_by_default(random_bugs)]
    recipe = subprocess.run([*shlex.split(command), "--dry-run", "env="], cwd=REPOSITORY, text=True,
                            capture_output=True, check=True).stdout
    n, seed = (int(value) for value in re.search(r"N=(\d+) SEED=(\d+)", command).groups())
    assert f"python -m parity_tests.mutants.random_bugs --n {n} --seed {seed}" in recipe
    monkeypatch.setattr(random_bugs, "sample", lambda n, seed: [])  # to draw takes seconds
    run_inline(random_bugs, ["--n", "0", "--json", str(tmp_path / "table.json")], monkeypatch)
    assert json.loads((tmp_path / "table.json").read_text())["mutants"] == []
    committed = json.loads((REPOSITORY / result_files(command)[0]).read_text())
    assert (committed["n"], committed["seed"]) == (n, seed)
    assert f"{committed['caught']} of {n} bugs" in row["claim"]
    assert f"the {len(committed['survivors'])} that survive" in row["claim"]


# -------------------------------------------------------------------------------- pipeline, training

def test_the_default_pipeline() -> None:
    """make repro runs DVC, whose pipeline writes the file; its committed numbers are the claim's."""
    command, row = only_claim("make", "repro")
    recipe = subprocess.run([*shlex.split(command), "--dry-run"], cwd=REPOSITORY, text=True,
                            capture_output=True, check=True).stdout
    assert "dvc repro" in recipe
    (file,) = result_files(command)
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    metrics = [one for stage in stages.values() for one in stage.get("metrics", [])]
    assert file in [one if isinstance(one, str) else next(iter(one)) for one in metrics]
    final = json.loads((REPOSITORY / file).read_text())["protocols"]["clean"]["final"]
    clusters, probe = (final[name]["value"] for name in ("posterior_kmeans", "posterior_probe"))
    assert f"{clusters:.1%} by clustering, {probe:.1%} by the probe".replace("%", " %") in row["claim"]


def test_raw_pixels_beside_digits() -> None:
    """What the README says of raw pixels is what the evaluation of seed 0 measured."""
    found = json.loads((REPOSITORY / "results/evaluate/digits/0/metrics.json").read_text())["baseline"]
    said = (REPOSITORY / "README.md").read_text().partition("`digits` is an example")[2].partition("\n\n")[0]
    assert re.findall(r"(\d+\.\d) (?:%|and)", said) == [
        f"{100 * found[place][measure]['value']:.1f}" for measure in ("kmeans_clean", "logistic")
        for place in ("shifted", "centred")]


def test_all_seeds_of_a_preset_can_be_asked_for() -> None:
    """The command of what was not run yet names a stage that there is, with five seeds, and the file that it writes."""
    command, _ = only_claim("dvc", "repro")
    (_, _, target), (file,) = shlex.split(command), result_files(command)
    place, _, name = target.rpartition(":")
    stage, _, preset = name.partition("@")
    matrix = yaml.safe_load((REPOSITORY / "params.yaml").read_text())["matrix"]
    assert preset in matrix["presets"] and len(matrix["seeds"]) == 5
    metrics = yaml.safe_load((REPOSITORY / place).read_text())["stages"][stage]["metrics"]
    written = [one if isinstance(one, str) else next(iter(one)) for one in metrics]
    assert file in [one.replace("${item.preset}", preset) for one in written]


def test_the_motions_of_parts_are_those_of_the_file() -> None:
    """The table of docs/looking.md, row by row."""
    motions = json.loads((REPOSITORY / "results/equivariance/digits/0/metrics.json").read_text())["motions"]
    text = (REPOSITORY / "docs/looking.md").read_text()
    assert motions
    for motion in motions:
        first, last = motion["initial"], motion["final"]
        cells = [f"{number:.2f}" for each in (first, last) for number in (each["error"]["50"], each["slope"])]
        shares = ", ".join(f"{last[name]:.0%}" for name in ("same_object", "by_chance"))
        row = " | ".join((motion["motion"], *cells, shares)).replace("%", " %").replace("-", "−")
        assert f"| {row} |" in text


# -------------------------------------------------------------------------------------- the three boxes

def test_the_commands_of_the_boxes() -> None:
    """A target of make, a registry file that is there, and a conversion whose words the program takes."""
    text = (REPOSITORY / "README.md").read_text().partition("\n## ")[0]
    repro, parity, convert = map(shlex.split, re.findall(r"^> `([^`]+)`<br>$", text, re.M))
    subprocess.run([*repro, "--dry-run"], cwd=REPOSITORY, capture_output=True, check=True)
    program, registry = parity
    assert program == "pytest" and (REPOSITORY / registry.removeprefix("--registry=")).is_file()
    program, command, *words = convert
    parsed = cli.typer.main.get_command(cli.app).commands[command].make_context(command, words)
    assert program == "scae" and {"source", "out", "config"} <= {
        name for name, value in parsed.params.items() if isinstance(value, str)}


def test_the_report_of_make_repro() -> None:
    """The page that the first box promises is what the default pipeline leaves."""
    text = (REPOSITORY / "README.md").read_text().partition("\n## ")[0]
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    outs = [one for stage in stages.values() for one in stage.get("outs", [])]
    left = [one if isinstance(one, str) else next(iter(one)) for one in outs]
    assert "results/report.html" in left and "`results/report.html`" in text


# ------------------------------------------------------------------------------------------ release

def test_every_file_names_the_same_release() -> None:
    """The newest dated section of the changelog, the package, its metadata, the citation, and the wheel on its page."""
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert newest[1] == port.__version__ == project["version"] == citation["version"]
    assert f"scae_port-{port.__version__}-py3-none-any.whl" in (REPOSITORY / "docs/parity_in_your_ci.md").read_text()
    assert newest[2] == str(citation["date-released"]) and citation["license"] == project["license"]


# ---------------------------------------------------------------------------------------------- GPU

def test_what_a_gpu_measured_is_what_was_kept() -> None:
    """The README's speeds and counts of checks, from the file that a visit left."""
    kept = json.loads((REPOSITORY / "results/visit/metrics.json").read_text())
    text = " ".join((REPOSITORY / "README.md").read_text().split())
    assert kept["card"]["name"] in text and kept["step_of"] == {"preset": "mnist", "batch": 128}
    speeds = {name: row["steps_per_second"] for name, row in kept["steps"].items()}
    assert f"| eager, float32 | {speeds['eager']} |" in text
    assert f"| captured as a CUDA graph, float32 | {speeds['captured']} |" in text
    assert f"of training | {kept['training']['steps_per_second']:.0f} |" in text
    assert all(row["steps_per_second"] == round(1 / row["step_s"], 1) for row in kept["steps"].values())
    counts = kept["device_tier"]["checks"]
    assert (f"of {sum(counts.values())} checks {counts['pass']} passed, {counts['skipped']} were skipped and "
            f"{counts['fail']} failed") in text
    failed = kept["device_tier"]["failed"]
    assert len(failed) == counts["fail"] and all(check["check"] in text for check in failed)
    together = kept["training_side_by_side"]
    assert (f"over {together['steps_of_each']:,} steps of each | {together['steps_per_second_together']:.0f} together |"
            ) in text
    assert together["steps_per_second_together"] == len(together["seeds"]) * together["steps_per_second_of_each"]


# ------------------------------------------------------------------------------------------- counts

def number(text: str, before: str) -> int:
    """The number that stands before these words."""
    return int(re.search(rf"([\d,]+) {before}", text)[1].replace(",", ""))


def claim_about(words: str) -> dict[str, str]:
    return next(row for row in CLAIMS.values() if words in row["claim"])


def test_the_committed_recordings_are_counted() -> None:
    committed = sum(len(goldens_routing.committed(family)) for family in goldens_routing.FAMILIES)
    assert number(claim_about("matrix capsules")["measured at"], "are committed") == committed


@pytest.mark.shared
def test_all_recordings_are_counted() -> None:
    """Where they are at hand."""
    if goldens.missing() or any(map(goldens_routing.missing, goldens_routing.FAMILIES)):
        pytest.skip("the recordings beyond the committed ones are not here (SCAE_GOLDENS)")
    row = claim_about("reference equals the original")
    assert number(row["claim"], "recorded image models") == len(goldens.models())
    ops = [record for record in goldens.records() if record.ok and record.golden.name == "ops"]
    # Those repeated with patched default dtypes show the same functions once more.
    assert number(row["claim"], "recorded calls") == sum("patched" not in record.key for record in ops)
    routing = sum(len(goldens_routing.records(family)) for family in goldens_routing.FAMILIES)
    assert number(claim_about("matrix capsules")["claim"], "recordings") == routing
