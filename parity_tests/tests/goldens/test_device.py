"""The device tier: all of it with `--tier=device`, else its short form in a process without TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parity_tests.device import checks, fast, repeat
from parity_tests.goldens import REPOSITORY
from port.core import warp_hat


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a check; beside the rest of the suite only what the other files do not compare."""
    if "check" in metafunc.fixturenames:
        every = checks.every() if metafunc.config.getoption("--tier") == "device" else [
            check for check in fast.checks() if check.short]
        metafunc.parametrize("check", every, ids=[check.name for check in every])


def test_check(check: checks.Check) -> None:
    """Each on the GPU where there is one, and seen."""
    outcome = checks.run(check, checks.default_device())
    if outcome.verdict == "skipped":
        pytest.skip(outcome.says)
    assert outcome.verdict == "pass", outcome.says


@pytest.fixture
def beside(tier: str) -> None:
    """Only beside the rest of the suite."""
    if tier in ("device", "smoke"):
        pytest.skip(f"{tier} tier: the checks themselves, or none")


def device_tier(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The tier as a machine without a terminal runs it."""
    return subprocess.run([sys.executable, "-m", "parity_tests.device", *words], cwd=REPOSITORY, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, capture_output=True,
                          timeout=500)


@pytest.mark.golden
@pytest.mark.parametrize("device", ["pretended", "cpu"])
def test_without_pytest_and_tensorflow(beside: None, device: str, tier: str, tmp_path: Path) -> None:
    """A part of the short form in a process of its own (deep tier: all of it, on both devices).

    On the pretended device, that is not the CPU, what a check forgets to move ends it, as on a GPU.
    """
    if tier != "deep" and device == "cpu":
        pytest.skip("deep tier: the same process again on the CPU")
    if device == "pretended" and importlib.util.find_spec("torch.utils.backend_registration") is None:
        pytest.skip("this torch knows no device in Python")
    words = ["--short"] if tier == "deep" else ["--short", "--only", "models/options/enc"]
    done = device_tier(*words, "--device", device, "--json", str(tmp_path / "device.json"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "device.json").read_text())
    assert found["verdict"] == "pass" and found["device"] == device
    verdicts = {check["check"]: check["verdict"] for check in found["checks"]}
    assert {"models/options/enc_linear-noise-float64", "models/options/enc_linear-noise-float32",
            "models/options/enc_linear-noise-gradients in float32"} <= set(verdicts)
    assert set(verdicts.values()) == {"pass"} or tier == "deep"
    assert f"{len(verdicts)} of {len(verdicts)} checks" in done.stdout


def test_time_is_kept_and_said(beside: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
                               tmp_path: Path) -> None:
    """A limit of nothing lets the first check finish at most, and the rest is told as not reached."""
    from parity_tests.device import __main__ as tier_alone
    monkeypatch.setattr(checks, "every", lambda short: [
        checks.Check("ops/one", lambda device: 0.5), checks.Check("ops/two", lambda device: 2.0)])
    code = tier_alone.main(["--seconds", "-1", "--device", "cpu", "--json", str(tmp_path / "x.json")])
    assert code == 1 and "2 not reached" in capsys.readouterr().out
    assert json.loads((tmp_path / "x.json").read_text())["verdict"] == "nothing compared"


def test_every_kind_is_there() -> None:
    """Each kind has a check in the short form but the rungs, which need a compiler."""
    names = [check.name for check in checks.every()]
    assert len(names) == len(set(names))
    assert {check.kind for check in checks.every(short=True)} == set(checks.KINDS) - {"rungs"}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_wrong_fast_path_fails(dtype: str, beside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound by a hundredth part of the values."""
    (check,) = [c for c in fast.checks() if c.name == f"fast/warp by hat weights, drawn, {dtype}"]
    assert checks.run(check, "cpu").verdict == "pass"
    right = warp_hat.resampler
    monkeypatch.setattr(warp_hat, "resampler", lambda data, warp: right(data, warp) * 1.01)
    outcome = checks.run(check, "cpu")
    assert outcome.verdict == "fail" and "times the bound" in outcome.says


def test_other_bits_fail(beside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that is not repeatable is one whose second run differs in one bit."""
    trained, count = repeat.trained, []

    def unsteady(*arguments: object, **changed: object) -> dict:
        left = trained(*arguments, **changed)
        count.append(left)
        next(iter(left.values())).view(-1)[0] *= 1.0 + 2.0**-23 * (len(count) == 2)
        return left
    monkeypatch.setattr(repeat, "trained", unsteady)
    (check,) = [c for c in repeat.checks() if c.name == "repeat/scae without alpha"]
    outcome = checks.run(check, "cpu")
    assert outcome.verdict == "fail" and "1 of" in outcome.says


def test_what_raises_costs_nothing_else() -> None:
    """An error, a skip and a failure are outcomes; only the message tells them apart from others."""
    def broken(device: str) -> float:
        raise RuntimeError("no kernel image is available for execution")

    def nothing(device: str) -> float:
        raise checks.Skipped("not here")
    assert checks.run(checks.Check("ops/x", broken), "cpu").verdict == "error"
    assert "RuntimeError at test_device.py:" in checks.run(checks.Check("ops/x", broken), "cpu").says
    assert checks.run(checks.Check("ops/x", nothing), "cpu").verdict == "skipped"
