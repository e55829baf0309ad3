"""A checkpoint that the original trained for 1,200 steps: read, converted, and run to the original's numbers.

The original ran in float32. What it may differ by from exact arithmetic is estimated by what the port differs by from
itself in float64 on the same weights, sixteen times that (two programs that round in another order, and the largest
entry of a tap stands for all of it), and 64 units in the last place where the port happens to round alike.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import port
from parity_tests import goldens
from parity_tests.curves import learn
from parity_tests.harness import tolerances
from port.data import sources

EPS = np.finfo(np.float32).eps
LOG_PRESENCE = ("res/mixing_logits", "res/mixing_log_prob")
pytestmark = pytest.mark.shared

EVALUATED, BATCH, DRAWS = 2000, 50, 5


@pytest.fixture(scope="module")
def folder() -> Path:
    """The recorded curves, which are too large to be committed with their checkpoints."""
    found = [root / "curves" for root in goldens.roots() if (root / "curves" / "checkpoints").is_dir()]
    if not found:
        pytest.skip("the original's trained checkpoints are not at hand")
    return found[0]


@pytest.fixture(scope="module")
def weights(folder: Path) -> dict[str, np.ndarray]:
    return port.read_checkpoint(folder / "checkpoints" / "seed_0.ckpt-1200")


@pytest.mark.parametrize("kind", ["nonoise", "noise"])
def test_outputs(folder: Path, weights: dict[str, np.ndarray], kind: str) -> None:
    """Every tap that was stored, without noise and with the recorded draws; loss and norms of all gradients."""
    recorded = np.load(folder / f"forward_{kind}_seed_0.npz")
    batch = np.load(folder / "batch16.npz")
    image = torch.from_numpy(batch["image"].transpose(0, 3, 1, 2).copy())
    found = {}
    for dtype in (torch.float32, torch.float64):
        model = port.from_tf(weights, learn.SETTINGS).to(dtype)
        noise = None if kind == "nonoise" else port.Noise(
            **{f"raw_{j}": torch.from_numpy(recorded[f"noise/raw_{j}"]).to(dtype) for j in range(3)})
        result = model(image.to(dtype), torch.from_numpy(batch["label"]), noise, taps=True)
        result.loss.backward()
        taps = {name: result.taps[name] for name in recorded.files if name in result.taps}
        found[dtype] = {name: np.asarray(value.detach() if torch.is_tensor(value) else value, np.float64)
                        for name, value in taps.items()}
        found[dtype] |= {f"gradnorm/{name}": np.asarray(norm) for name, norm in norms(model).items()
                         if f"gradnorm/{name}" in recorded}
    compared = 0
    for name, exact in found[torch.float64].items():
        if recorded[name].shape != exact.shape:
            continue
        bound = 16 * np.abs(found[torch.float32][name] - exact).max() + 64 * EPS * np.abs(exact).max()
        if name in LOG_PRESENCE:  # the original's own sigmoid, see there
            bound = bound + tolerances.sigmoid_tail32(found[torch.float64]["res/mixing_logits"])
        off = np.abs(recorded[name] - exact)
        assert (off <= bound).all(), f"{name}: off by {off.max():.3g}, {np.max(off / bound):.3g} times the bound"
        compared += 1
    assert compared > 120, f"only {compared} of {len(recorded.files)} arrays were compared"


def norms(model: torch.nn.Module) -> dict[str, float]:
    """Norm of every gradient, by the original's name of the variable, without its scopes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    # The converter backwards gives the names; it changes places of numbers, which no norm notices.
    return {name: float(np.linalg.norm(value.astype(np.float64).ravel())) for name, value in port.to_tf(model).items()}


def test_evaluation(folder: Path, weights: dict[str, np.ndarray]) -> None:
    """What the original measured on 2,000 test images with its noise lies where the port's own draws of noise lie.

    Five evaluations of the port differ in their noise. Batches draw theirs one by one, so the variance of a mean over
    40 batches is the sum of the batches' own variances over 40², each seen with 4 degrees of freedom, 160 together (a
    deviation from a few means alone came out a third of this one). The original's value is one more draw, so it lies
    within t(.9995, 160 degrees) · sd · √(1 + 1/5) but once in a thousand; ten values are compared.
    """
    with open(folder / "eval_0.csv", newline="") as file:
        original = {name: float(value) for name, value in list(csv.DictReader(file))[-1].items()}
    try:
        test = sources.load("mnist", download=False).test
    except Exception as error:  # DataError says which file is missing
        pytest.skip(str(error))
    images, labels = test.images[:EVALUATED].float() / 255.0, test.labels[:EVALUATED]
    model = port.from_tf(weights, learn.SETTINGS)
    scalars: dict[str, list[float]] = {}
    for seed in range(DRAWS):
        generator = torch.Generator().manual_seed(seed)
        for first in range(0, EVALUATED, BATCH):
            chosen = slice(first, first + BATCH)
            with torch.no_grad():
                result = model(images[chosen], labels[chosen], port.Noise.draw(generator, model.config, BATCH))
            for name, value in result.scalars.items():
                scalars.setdefault(name, []).append(float(value))
    names = {"posterior_acc": "posterior_cls_acc", "prior_acc": "prior_cls_acc", "rec_ll": "rec_ll",
             "log_prob": "log_prob", "posterior_xe": "posterior_cls_xe", "prior_xe": "prior_cls_xe",
             "dynamic_weights_l2": "dynamic_weights_l2", "posterior_within": "posterior_within_sparsity_loss",
             "prior_within": "prior_within_sparsity_loss", "part_presence_sum": "primary_caps_l1"}
    n_batches = EVALUATED // BATCH
    quantile = stats.t.ppf(0.9995, (DRAWS - 1) * n_batches)
    for theirs, ours in names.items():
        values = np.array(scalars[ours]).reshape(DRAWS, n_batches)
        off = abs(original[theirs] - values.mean())
        deviation = np.sqrt(values.var(0, ddof=1).sum()) / n_batches
        bound = quantile * deviation * np.sqrt(1 + 1 / DRAWS) + 64 * EPS * abs(values.mean())
        assert off <= bound, (f"{theirs}: the original's {original[theirs]:.6g}, "
                              f"ours {values.mean():.6g} ± {deviation:.2g}")
