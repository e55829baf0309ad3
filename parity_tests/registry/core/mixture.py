"""Rows of `core/mixture.py`."""

from __future__ import annotations

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase


def _density(m: Maker) -> Case:
    shape = m.shape(1, 3)
    return m.case(x=m.normal(*shape), loc=m.normal(*shape), df=m.uniform(low=2.1, high=9.0),
                  scale=m.uniform(*shape, low=0.05, high=2.0))


def _pixels(m: Maker) -> tuple[tuple[int, ...], int, np.ndarray, np.ndarray]:
    batch, parts, height, width = m.sizes(4, 2, 5)
    channels = m.size(1, 3)
    shape = (batch, parts, height, width)
    mixing = m.logits(*shape, m.choice([1, channels]))
    return shape, channels, mixing, m.normal(*shape, channels, scale=1.0)


def _scale(m: Maker, shape: tuple[int, ...], channels: int) -> np.ndarray:
    size = m.choice([(), (shape[0], shape[1], 1, 1, 1), (*shape, channels)])
    return m.uniform(*size, low=0.3, high=2.0)


def _normal(m: Maker) -> Case:
    shape, channels, _, mean = _pixels(m)
    return m.case(x=m.uniform(*mean.shape) if m.flag() else m.normal(*mean.shape), mean=mean,
                  scale=_scale(m, shape, channels))


def _mixing(m: Maker) -> Case:
    shape, _, mixing, _ = _pixels(m)
    return m.case(terms=shape[1], mixing_logits=mixing)


def _mixture_log_prob(m: Maker) -> Case:
    shape, channels, mixing, mean = _pixels(m)
    return m.case(terms=shape[1], x=m.uniform(shape[0], *shape[2:], channels), mixing_logits=mixing,
                  mean=mean, scale=_scale(m, shape, channels))


def _mixture_mean(m: Maker) -> Case:
    shape, _, mixing, mean = _pixels(m)
    return m.case(terms=shape[1], mixing_logits=mixing, mean=mean)


def _mixture_mode(m: Maker) -> Case:
    shape, channels, mixing, mean = _pixels(m)
    mixing = m.spaced(*mixing.shape, gap=1.0)
    inputs = {"mixing_logits": mixing, "mean": mean, "scale": _scale(m, shape, channels)}
    if m.flag():
        inputs["presence"] = m.presence(*shape[:2])
    flags = {name: m.flag() for name in ("straight_through_gradient", "maximum")}
    return m.case(flags, terms=shape[1], **inputs)


def _tied_mode(straight: bool) -> Case:
    rng = np.random.default_rng(1)
    return Case({"mixing_logits": np.zeros((2, 3, 2, 2, 1)),
                 "mean": rng.standard_normal((2, 3, 2, 2, 2))},
                {"straight_through_gradient": straight, "maximum": False})


def _absent(value: float) -> Case:
    rng = np.random.default_rng(2)
    return Case({"x": rng.random((1, 2, 2, 1)), "mixing_logits": np.full((1, 3, 2, 2, 1), value),
                 "mean": rng.standard_normal((1, 3, 2, 2, 1)), "scale": np.ones(())})


PIXELS = {"mixing_logits": 2, "mean": 2, "scale": 2}

ROWS = (
    OpCase("core.mixture.student_log_prob", function("core.mixture.student_log_prob"), _density, oracle=True),
    OpCase("core.mixture.normal_log_prob", function("core.mixture.normal_log_prob", layouts={
        "x": 2, "mean": 2, "scale": 2, "out": 2}), _normal, oracle=True),
    OpCase("core.mixture.mixing_log_prob", function("core.mixture.mixing_log_prob", layouts={
        "mixing_logits": 2, "out": 2}), _mixing, (
            ("all absent", Case({"mixing_logits": np.full((1, 3, 2, 2, 1), -1e8)})),), oracle=True),
    OpCase("core.mixture.mixture_log_prob", function("core.mixture.mixture_log_prob", layouts=PIXELS | {
        "x": 1, "out": 1}), _mixture_log_prob, (("all absent", _absent(-1e8)),), oracle=True),
    OpCase("core.mixture.mixture_mean", function("core.mixture.mixture_mean", layouts=PIXELS | {"out": 1}),
           _mixture_mean, oracle=True),
    OpCase("core.mixture.mixture_mode", function("core.mixture.mixture_mode", layouts=PIXELS | {"out": 1}),
           _mixture_mode, (("tie", _tied_mode(False)), ("tie, straight through", _tied_mode(True))),
           oracle=True),
)
