"""`compile: auto`: decided by what was measured, said in one line, and no trace of the trial is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from parity_tests.harness import runs
from port.core import compiler_cache
from port.training import compiling, rungs
from port.training import loop as train
from port.training.compiling import Times


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No record of this machine, and a compiler that gives back what it is given."""
    monkeypatch.setenv(compiler_cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(torch, "compile", lambda function: lambda *arguments: function(*arguments))
    monkeypatch.setattr(torch, "__version__", "2.15.0")  # whatever compiler is really installed


def times(monkeypatch: pytest.MonkeyPatch, eager: float, compiled: float, first: float) -> None:
    """As if the updates took so many seconds; they are made all the same."""
    measured = compiling.timed

    def timed(step):
        measured(step)
        return (first, compiled) if step.rung.compiled else (eager, eager)
    monkeypatch.setattr(compiling, "timed", timed)


@pytest.mark.parametrize(("eager", "compiled", "first", "rung", "words"), [
    (1.0, 0.5, 5.0, "eager", "no: 12 steps of 1000.0 ms, of which it saves 10%, against 60 s of start-up (expected)"),
    (100.0, 50.0, 80.0, "compiled", "found 50% and 30 s"),
    (100.0, 101.0, 80.0, "eager", "no: a compiled step takes 101000.0 ms, an eager one 100000.0 ms")])
def test_decided_by_the_length(eager, compiled, first, rung, words, monkeypatch, capsys) -> None:
    """A short run stays eager, a long one compiles unless that is slower; the bits are those of a plain run."""
    times(monkeypatch, eager, compiled, first)
    made = runs.model()
    trained = train.train(made, runs.dataset(), runs.settings(compile="auto"))
    assert trained.rung == rung and any(words in note for note in trained.notes)
    assert sum("compile: auto" in line for line in capsys.readouterr().out.splitlines()) == 1
    plain = runs.model()
    without = train.train(plain, runs.dataset(), runs.settings())
    assert not runs.differing(runs.left(made, trained), runs.left(plain, without))
    assert trained.history == [row | {"seconds": mine["seconds"]} for row, mine
                               in zip(without.history, trained.history, strict=True)]


def test_measured_once_then_known(monkeypatch, capsys) -> None:
    """The next run of the same kind decides by what the last one found; another batch does not."""
    times(monkeypatch, 100.0, 99.99, 2100.0)
    train.train(runs.model(), runs.dataset(), runs.settings(compile="auto"))
    (known,) = json.loads((compiler_cache.folder() / compiling.FILE).read_text()).values()
    assert known["start_up"] == pytest.approx(2000.01) and known["saved"] == pytest.approx(1e-4)
    trained = train.train(runs.model(), runs.dataset(), runs.settings(compile="auto"))
    assert trained.rung == "eager" and "(measured before)" in trained.notes[-1]
    trained = train.train(runs.model(), runs.dataset(), runs.settings(compile="auto", batch_size=4))
    assert "(expected)" in trained.notes[-1]


def test_what_is_left_to_do_counts(monkeypatch, tmp_path) -> None:
    """Of a run that goes on without saying how it was made, not its whole length."""
    times(monkeypatch, 1.0, 0.5, 5.0)
    train.train(runs.model(), runs.dataset(), runs.settings(steps=6), tmp_path)
    state = train.begin(runs.model(), runs.dataset(), runs.settings())
    state.load(tmp_path, 12)
    notes: list[str] = []
    compiling.make(state, runs.settings(compile="auto"), notes)
    assert "no: 6 steps of" in notes[-1]


def test_what_was_measured_holds_for_the_same_kind_of_step_alone(monkeypatch) -> None:
    """Another batch, precision, noise, model, number of threads or torch is another kind."""
    def key(threads: int = 1, model: dict | None = None, **changed: object) -> str:
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        wanted = runs.settings(**changed)
        return compiling.key(train.begin(runs.model(**model or {}), runs.dataset(), wanted, saved=False), wanted)
    same = key()
    assert same == key(lr=1.0, steps=99)
    assert same not in (found := {key(2), key(model={"n_obj_caps": 4}), key(batch_size=4), key(amp="bf16"),
                                  key(noise=False)}) and len(found) == 5


def test_a_run_that_goes_on_keeps_to_it(monkeypatch, tmp_path) -> None:
    """Whatever the clock would say now: the bits are those of the run that was not stopped."""
    times(monkeypatch, 1000.0, 500.0, 900.0)
    train.train(runs.model(), runs.dataset(), runs.settings(compile="auto", steps=6), tmp_path)
    times(monkeypatch, 1e-6, 1e-6, 1e-6)
    trained = train.train(runs.model(), runs.dataset(), runs.settings(compile="auto"), tmp_path)
    assert trained.resumed_at == 6 and trained.rung == "compiled"
    assert trained.notes == ["torch.compile: yes, as the run began"]


def test_a_record_that_cannot_be_kept_costs_nothing(monkeypatch) -> None:
    monkeypatch.setattr(compiling, "EXPECTED", Times(0.0, 0.5))
    path = compiler_cache.folder()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file where the folder should be")
    assert train.train(runs.model(), runs.dataset(), runs.settings(compile="auto")).step == 12


def test_not_by_a_compiler_that_is_known_to_be_wrong(monkeypatch, capsys) -> None:
    """The trial itself could end the process; who asks for it by name is told."""
    times(monkeypatch, 100.0, 50.0, 80.0)
    monkeypatch.setattr(torch, "__version__", "2.11.0+cpu")
    trained = train.train(runs.model(), runs.dataset(), runs.settings(compile="auto"))
    assert trained.rung == "eager" and "no: the compiler of torch 2.11.0+cpu may write past" in trained.notes[-1]
    trained = train.train(runs.model(), runs.dataset(), runs.settings(compile=True))
    assert trained.rung == "compiled" and "as the settings say, though the compiler" in capsys.readouterr().out


@pytest.mark.parametrize(("version", "device", "sound"), [
    ("2.11.0", "cpu", False), ("2.14.9", "cpu", False), ("2.15.0a0+git1", "cpu", True), ("3.0.1", "cpu", True),
    ("2.11.0", "cuda", True)])
def test_compilers(version: str, device: str, sound: bool, monkeypatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    assert (rungs.compiler_fault(device) == "") is sound


def test_refused() -> None:
    with pytest.raises(ValueError, match="compile must be one of False, True, auto, not 'yes'"):
        runs.settings(compile="yes")
