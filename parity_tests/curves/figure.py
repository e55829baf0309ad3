"""Curves of the original and of the port over each other, wrong twins pale behind them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from parity_tests.curves import bundle

SHOWN = {"loss": (640, 860), "rec_ll": (-790, -735), "log_prob": (-60, 100), "primary_caps_l1": (6, 17),
         "own_obj_presence_sum": (0, 10), "posterior_cls_acc": (0.05, 0.32)}
TITLES = {"loss": "loss", "rec_ll": "log-likelihood of the image", "log_prob": "log-likelihood of the part poses",
          "primary_caps_l1": "parts present an image", "own_obj_presence_sum": "objects present an image",
          "posterior_cls_acc": "accuracy of the posterior read-out"}
TWINS = {"wrong_torch_rmsprop": ("torch's RMSProp", "tab:red"),
         "wrong_relu_capsule_mlp": ("ReLU ends the MLPs", "tab:green")}


def draw(path: Path) -> None:
    """Draw the committed bundles: mean and range of the runs of each."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = np.arange(bundle.WINDOW, bundle.STEPS + 1, bundle.WINDOW)
    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6.4), layout="constrained")
    sides = {"original": ("original (TensorFlow 1.15)", "black"), "port": ("port (PyTorch)", "tab:blue")}
    shown = {**TWINS, **sides}
    bundles = {name: bundle.read(bundle.FIXTURES / f"{name}.npz") for name in shown}
    for axis, (column, limits) in zip(axes.flat, SHOWN.items(), strict=True):
        for name, (label, colour) in shown.items():
            curves = bundles[name].column(column)
            if name in TWINS:
                axis.plot(steps, curves.T, color=colour, alpha=0.35, lw=1)
                axis.plot([], [], color=colour, alpha=0.35,
                          label=f"wrong twin of the original: {label}, {len(curves)} runs")
                continue
            axis.fill_between(steps, curves.min(0), curves.max(0), color=colour, alpha=0.18, lw=0)
            axis.plot(steps, curves.mean(0), color=colour, lw=2 if name == "original" else 1.6,
                      ls="-" if name == "original" else "--", label=f"{label}: mean and range of {len(curves)} runs")
        axis.set(title=TITLES[column], ylim=limits, xlabel="step")
        axis.grid(alpha=0.25)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    print(f"curves: {path}")
