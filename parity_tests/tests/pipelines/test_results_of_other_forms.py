"""Results folders whose JSON has another form than the stages give it: one line and exit code 2, never a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from pipelines import cli, evaluate, prepare
from pipelines import train as stage
from pipelines.commands import add
from pipelines.results import accuracy_over_time
from pipelines.support import console
from pipelines.support import settings as stage_settings
from pipelines.training import rows
from port.checkpoints import run_files
from port.data.dataset import DataError

CHANGED = ["prepare.options={enlarge: 12, test_share: 0.25, split_seed: 0}", "train.steps=2", "train.log_every=1",
           "train.held_out_every=2", "train.held_out_images=32", "train.batch_size=8", "evaluate.fit_images=200",
           "evaluate.require_learning=false", "evaluate.bootstrap_draws=20", "evaluate.tsne_images=0",
           "evaluate.n_pictures=1",
           *(f"model.{key}={str(value).lower() if value is True else value}" for key, value in runs.TINY.items())]
RUN, MEASURED = "train/digits/0", "evaluate/digits/0"
METRICS, CONFIG, ENVIRONMENT = (f"{RUN}/{name}.json" for name in ("metrics", "config", "environment"))
EVALUATION, EVALUATED_WITH = f"{MEASURED}/metrics.json", f"{MEASURED}/config.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A tiny run and its evaluation, without the digests by which a change of its files would be seen."""
    results = tmp_path_factory.mktemp("whole") / "r"
    preset = stage_settings.load_preset("digits", CHANGED, REPOSITORY / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "RUNS", results.parent / "runs")
        prepare.run(preset, results)
        stage.run(preset, 0, results, "cpu", "none")
        evaluate.run(preset, 0, results, "cpu")
    for name in (ENVIRONMENT, EVALUATION):
        found = json.loads((results / name).read_text())
        (results / name).write_text(json.dumps({key: value for key, value in found.items()
                                                if key not in ("files", "weights")}))
    return results


def commands(place: Path) -> dict[str, Any]:
    """Each command that reads a run's JSON, by name; `place` holds the results in `r`."""
    results, run = str(place / "r"), str(place / "r" / RUN)
    params = ["--params", str(REPOSITORY / "params.yaml")]
    return {
        "aggregate": lambda: cli.main(["aggregate", "--preset", "digits", "--results", results, *params]),
        "report": lambda: cli.main(["report", "--results", results, *params]),
        "runs": lambda: cli.main(["report", run, run, "--out", str(place / "runs.html")]),
        "diff": lambda: cli.main(["report", "--diff", run, run]),
        "accuracy": lambda: accuracy_over_time.main(["digits", "--results", results, "--out", str(place / "a.png")]),
        "export": lambda: cli.main(["export", run, str(place / "exported"), "--format", "folder"]),
        "add": lambda: console.exit_code(lambda: add.run([run], place / "here", measure=False, params=params[1]))}


def broken(whole: Path, place: Path, name: str, path: tuple, value: Any) -> None:
    """A copy in `place/r` with another value at a path of a file."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(whole, place / "r")
    found: Any = json.loads((whole / name).read_text())
    if path:
        within = found
        for key in path[:-1]:
            within = within[key]
        if value is GONE:
            del within[path[-1]]
        else:
            within[path[-1]] = value
    else:
        found = {} if value is GONE else value
    (place / "r" / name).write_text(json.dumps(found))


GONE = range(0)  # nothing that JSON has; its name is the same in every process
CASES = [
    (METRICS, (), [1]), (METRICS, ("steps",), GONE), (METRICS, ("steps",), "6"), (METRICS, ("seconds",), float("nan")),
    (METRICS, ("steps",), 10**400), (METRICS, ("steps_per_second",), GONE),
    *((CONFIG, ("train", "seed"), value) for value in ("abc", None, [0], float("inf"))),
    (CONFIG, ("prepare", "options"), [1]), (CONFIG, ("train",), []), (CONFIG, ("model", "model"), ["a"]),
    (CONFIG, ("train", "shift"), [1]), (CONFIG, ("train", "batch_size"), GONE), (CONFIG, ("arguments",), [1]),
    (ENVIRONMENT, (), [1]), (ENVIRONMENT, ("packages",), ["torch"]), (ENVIRONMENT, ("tf32",), None),
    (ENVIRONMENT, ("threads",), "x"), (EVALUATION, (), []), (EVALUATION, ("protocols",), GONE),
    (EVALUATION, ("protocols",), []), (EVALUATION, ("protocols", "clean"), GONE),
    (EVALUATION, ("protocols", "clean", "final"), GONE), (EVALUATION, ("protocols", "clean", "final"), "x"),
    (EVALUATION, ("protocols", "clean", "initial"), GONE), (EVALUATION, ("baseline",), [1]),
    (EVALUATION, ("protocols", "clean", "final", "posterior_probe"), "x"),
    (EVALUATION, ("protocols", "clean", "final", "posterior_probe", "low"), GONE),
    (EVALUATION, ("protocols", "clean", "final", "posterior_probe", "n"), GONE),
    (EVALUATION, ("protocols", "clean", "final", "posterior_probe", "value"), 7), (EVALUATION, ("level",), "x"),
    (EVALUATION, ("checks",), None), (EVALUATION, ("data",), GONE), (EVALUATED_WITH, (), {}), (EVALUATED_WITH, (), [])]


@pytest.mark.parametrize(("name", "text", "says"), [
    (f"{RUN}/history.csv", "step,loss\n1,abc\n", "history.csv is no table"),
    (f"{MEASURED}/confusion.csv", "clustering,actual\nx,1\n", "confusion.csv is no table"),
    ("equivariance/digits/0/metrics.json", '{"a": 1}', "motions is missing"),
    ("equivariance/digits/0/metrics.json", '{"motions": [{"motion": "m"}]}', "motions[0].initial is missing")])
def test_tables_and_motions_of_the_page(name: str, text: str, says: str, whole, tmp_path, capsys) -> None:
    broken(whole, tmp_path / "x", METRICS, ("seconds",), 1.0)
    place = tmp_path / "x/r" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    assert commands(tmp_path / "x")["report"]() == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and says in said


def test_what_a_page_is_not_for(whole, tmp_path, capsys) -> None:
    """Another kind of model is not called damaged: the page and the statistics say whom they are for."""
    broken(whole, tmp_path / "x", CONFIG, ("arguments", "model"), "pcae")
    assert commands(tmp_path / "x")["aggregate"]() == 2
    assert "models of kind pcae have measures of their own" in capsys.readouterr().err
    broken(whole, tmp_path / "x", CONFIG, ("model", "model"), "capsnet")
    assert commands(tmp_path / "x")["report"]() == 2
    assert "not models of kind capsnet" in capsys.readouterr().err


# Which commands read a file; of `runs` and `diff` the readers are the same.
READERS = {METRICS: ("aggregate", "report", "runs", "export", "add"), EVALUATED_WITH: ("aggregate",),
           EVALUATION: ("aggregate", "report", "runs", "export"),
           CONFIG: ("aggregate", "report", "runs", "accuracy", "export", "add"),
           ENVIRONMENT: ("aggregate", "report", "runs", "accuracy", "export", "add")}


def ended(place: Path, capsys, name: str = "") -> dict[str, int]:
    """Exit code of each command that reads a file; where it is 2 a line says why, and `add` leaves no run."""
    codes = {}
    for what, command in commands(place).items():
        if what not in READERS.get(name, (what,)):
            continue
        codes[what] = command()
        said = capsys.readouterr().err
        assert codes[what] in (0, 2), (what, codes, said)
        if codes[what] == 2:
            assert said.startswith("error: ") and said.count("\n") == 1, (what, said)
            assert what != "add" or not list((place / "here").glob("train/*/*"))
    return codes


def test_a_whole_one(whole, tmp_path, capsys) -> None:
    broken(whole, tmp_path / "x", METRICS, ("seconds",), 1.0)
    assert set(ended(tmp_path / "x", capsys).values()) == {0}


@pytest.mark.parametrize(("name", "path", "value"), CASES, ids=lambda value: str(value)[-24:].replace("/", "."))
def test_a_known_one(name: str, path: tuple, value: Any, whole, tmp_path, capsys) -> None:
    """Somebody refuses it, or nobody needs it; what is refused by name says where."""
    broken(whole, tmp_path / "x", name, path, value)
    ended(tmp_path / "x", capsys, name)


ANYTHING = st.recursive(st.none() | st.booleans() | st.integers() | st.sampled_from([10**400, -1, 2**63])
                        | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)
                        | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=4)


def paths(value: Any, here: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, one in inner for path in paths(one, (*here, key)))]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_any_value_at_any_path(drawn, whole, tmp_path, capsys) -> None:
    name = drawn.draw(st.sampled_from([METRICS, CONFIG, ENVIRONMENT, EVALUATION, EVALUATED_WITH]))
    path = drawn.draw(st.sampled_from(paths(json.loads((whole / name).read_text()))))
    broken(whole, tmp_path / "x", name, path, drawn.draw(ANYTHING))
    ended(tmp_path / "x", capsys, name)


@pytest.mark.parametrize(("pattern", "form"), [
    ("train/*/*/metrics.json", run_files.METRICS), ("train/*/*/config.json", run_files.CONFIG),
    ("*/*/*/environment.json", run_files.ENVIRONMENT), ("evaluate/*/*/metrics.json", run_files.EVALUATION),
    ("evaluate/*/*/config.json", run_files.EVALUATED_WITH), ("ablation/*/*/metrics.json", rows.METRICS),
    ("ablation/*/*/config.json", rows.CONFIG)])
def test_what_was_measured_has_these_forms(pattern: str, form: dict) -> None:
    """Of every family and every earlier version whose results lie here."""
    found = list((REPOSITORY / "results").glob(pattern))
    assert found
    for path in found:
        run_files.read(path, form)


@pytest.mark.parametrize(("value", "says"), [
    ({"steps": "6"}, 'x.json: steps is "6", not a whole number from 0'), ({}, "x.json: steps is missing"),
    ([1], r"x.json \(?is \[1\]|x.json is|x.json"), ({"steps": 1, "seconds": -1}, "seconds is -1, not a finite number"),
    ({"steps": 1, "seconds": [1]}, r"seconds is \[1\]")])
def test_the_words(value: Any, says: str, tmp_path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=says):
        run_files.read(path, run_files.METRICS)
