"""The port learns as the original learned: committed runs of both, judged; wrong programs are told apart.

The runs of the port are made again by `python -m parity_tests.curves learn` (a minute of one core each).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from parity_tests.curves import __main__ as program
from parity_tests.curves import bundle, judge, learn
from port.data import sources
from port.data.dataset import DataError

WRONG = sorted(path.stem for path in bundle.FIXTURES.glob("wrong_*.npz"))


def read(name: str) -> bundle.Bundle:
    """A committed bundle."""
    return bundle.read(bundle.FIXTURES / f"{name}.npz")


@pytest.fixture(scope="module")
def original() -> bundle.Bundle:
    """Ten runs of the original."""
    return read("original")


def test_port_passes(original: bundle.Bundle) -> None:
    """Ten runs from the port's own initial values: no difference is found, and all means are equal within margins."""
    verdict = judge.judge(read("port"), original)
    assert not verdict.reasons
    assert len(verdict.intervals) == len(judge.EQUAL)


def test_port_passes_from_the_same_weights() -> None:
    """From the original's initial weights and batches the port lies among the original's runs with other noise."""
    verdict = judge.judge(read("start_port"), read("start_original"), equality=False)
    assert not verdict.reasons


@pytest.mark.parametrize("name", WRONG)
def test_wrong_programs_fail(name: str, original: bundle.Bundle) -> None:
    """Twins that were recorded with the original, and mistakes put into the port."""
    assert judge.judge(read(name), original).reasons


def test_wrong_programs_are_there() -> None:
    assert WRONG == ["wrong_relu_capsule_mlp", "wrong_torch_rmsprop"]


def test_false_alarms(original: bundle.Bundle, tier: str) -> None:
    """Halves of the original's own runs pass for each other: 2 of all 126 pairs do not (here every ninth pair)."""
    pairs = judge.halves(original)
    assert len(pairs) == 126
    chosen = pairs if tier == "deep" else pairs[::9]
    assert judge.rejected(chosen, original) <= (2 / 126 if tier == "deep" else 1 / 14)


@pytest.mark.parametrize("column", ["rec_ll", "loss", "primary_caps_l1"])
def test_power(column: str, original: bundle.Bundle) -> None:
    """Five runs against five, one column off by four standard deviations: always found."""
    pairs = [(judge.shifted(one, column, 4.0, original), other) for one, other in judge.halves(original)[::18]]
    assert judge.rejected(pairs, original) == 1.0


def test_order_of_runs_does_not_matter(original: bundle.Bundle) -> None:
    """A bundle against its own runs in another order: t is 0 everywhere."""
    names, values = judge.table(original)
    p, t = judge.difference(values, values[::-1])
    assert p == 1.0
    assert np.abs(t).max() < 1e-6


def test_equality_needs_its_interval_inside() -> None:
    """Equal means with so much scatter that nothing is known are no equality."""
    rng = np.random.default_rng(1)
    still, wild = rng.normal(size=10), 20 * rng.normal(size=10)
    wild += still.mean() - wild.mean()
    assert judge.interval("x", still + 0.1, still, still.std(ddof=1)).within
    found = judge.interval("x", wild, still, still.std(ddof=1))
    assert abs(found.difference) < 1e-9
    assert not found.within


def test_committed_runs_are_the_ports() -> None:
    """The first 50 steps of a run, made again: the committed values, but for rounding that training amplifies."""
    try:
        data = sources.load("mnist", download=False)
    except DataError as error:
        pytest.skip(str(error))
    committed = read("port")
    made = learn.run(data.train.images, data.train.labels, 0, steps=bundle.WINDOW)
    threads = torch.get_num_threads()
    for name in ("loss", "rec_ll", "primary_caps_l1"):
        place = committed.columns.index(name)
        # Rounding grows to 2e-5 of a gradient in 12 steps and 1e-2 in 50 (recorded of the original's own formula).
        np.testing.assert_allclose(made[0, place], committed.values[0, 0, place], rtol=2e-3,
                                   err_msg=f"{name}, {threads} threads")


def test_csv_of_another_length(tmp_path) -> None:
    """A recording with missing rows is refused with its name."""
    path = tmp_path / "seed_0.csv"
    path.write_text(",".join(("step", *bundle.COLUMNS)) + "\n" + ",".join(["50"] * (1 + len(bundle.COLUMNS))) + "\n")
    with pytest.raises(ValueError, match="seed_0.csv: expected a row"):
        bundle.from_csv([path])


NAMES, COLUMNS = np.array(["seed_0"]), np.array(bundle.COLUMNS)
VALUES = np.zeros((1, bundle.STEPS // bundle.WINDOW, len(bundle.COLUMNS)), np.float32)
NO_RUNS = {
    "another archive": (lambda path: np.savez(path, weights=VALUES), "names"),
    "no archive": (lambda path: path.write_bytes(b"no archive at all"), "pickle"),
    "one array": (lambda path: path.write_bytes(b"\x93NUMPY" + bytes(40)), "npz"),
    "cut off": (lambda path: path.write_bytes((bundle.FIXTURES / "port.npz").read_bytes()[:5000]), "zip"),
    "empty": (lambda path: path.write_bytes(b""), "data"),
    "a window too few": (lambda path: np.savez(path, names=NAMES, columns=COLUMNS, values=VALUES[:, 1:]), "23"),
    "a column too few": (lambda path: np.savez(path, names=NAMES, columns=COLUMNS[1:], values=VALUES[..., 1:]),
                         "no column loss")}


@pytest.mark.parametrize("how", NO_RUNS)
def test_a_damaged_file_is_one_line(how: str, tmp_path, capsys) -> None:
    """What, which file, and what to do; code 2, and no figures are written."""
    write, says = NO_RUNS[how]
    write(path := tmp_path / "port.npz")
    assert program.main(["judge", "--port", str(path), "--json", str(tmp_path / "x.json")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path} holds no runs (") and said.count("\n") == 1 and "learn` writes" in said
    assert says in said and not (tmp_path / "x.json").exists(), said


def test_a_file_that_is_not_there(tmp_path, capsys) -> None:
    assert program.main(["judge", "--port", str(tmp_path / "port.npz")]) == 2
    assert "port.npz: No such file" in capsys.readouterr().err
