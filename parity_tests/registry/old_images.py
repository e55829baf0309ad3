"""Rows of `preprocess`, `initializers`, `warp` and `mixture`: what happens on pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry import OpCase

NAN, INF = float("nan"), float("inf")
IMAGE = {"image": 1, "out": 1}


def _shift_offset(m: Maker) -> Case:
    padding = m.size(0, 13)
    return m.case({"padding": padding},
                  shift=m.rng.integers(-padding, padding + 1, m.shape(1, 2)))


def _pad_and_shift(m: Maker) -> Case:
    batch, height, width, channels = m.sizes(4, 2, 6)
    output = max(height, width) + m.size(0, 5)
    return m.case({"output_size": output}, image=m.uniform(batch, height, width, channels),
                  x=m.rng.integers(width - output, output - width + 1, batch),
                  y=m.rng.integers(height - output, output - height + 1, batch))


def _edges(m: Maker) -> Case:
    batch, channels = m.size(1, 3), m.size(1, 3)
    height, width = m.sizes(2, 3, 8)
    height, width = max(height, 2), max(width, 2)  # a reflected border needs two pixels
    return m.case(terms=height * width, image=m.uniform(batch, height, width, channels))


def _normalized(m: Maker) -> Case:
    """Four pixels a side at least: reflected, the responses of smaller images are tied by symmetry."""
    batch, channels = m.size(1, 3), m.size(1, 3)
    height, width = (4 + extra for extra in m.sizes(2, 1, 6))
    return m.case(terms=height * width, image=m.uniform(batch, height, width, channels))


def _initializer(name: str) -> Recipe:
    return Recipe(lambda lib, x, a, _: getattr(lib.core.initializers, name)(
        np.random.default_rng(a["seed"]), *a["arguments"]))


def _truncated_normal(m: Maker) -> Case:
    return m.case({"seed": m.seed, "arguments": (m.shape(), m.choice([1.0, 0.05]))})


def _glorot_uniform(m: Maker) -> Case:
    return m.case({"seed": m.seed, "arguments": (m.shape(1, 4),)})


def _orthogonal(m: Maker) -> Case:
    parts, height, width = m.sizes(3, 2, 6)
    return m.case({"seed": m.seed, "arguments": (parts, (height, width), m.size(1, 3))})


def _grid_axis(m: Maker) -> Case:
    return m.case({"size": m.size(2, 45), "template_size": m.size(1, 15)})


def _poses(m: Maker) -> Case:
    return m.case(pose=m.pose(*m.shape(1, 2)))


def _affine_grid(m: Maker) -> Case:
    n = m.size(1, 3)
    height, width, rows, columns = m.sizes(4, 2, 8)
    return m.case({"canvas_shape": (height, width), "template_shape": (rows, columns)},
                  inverse_pose=m.normal(n, 6))


def _resampler(m: Maker) -> Case:
    n, height, width, channels = m.sizes(4, 2, 6)
    inner = m.sizes(2, 2, 5)[:m.size(1, 2)]
    x = m.off_integers(n, *inner, low=-3.0, high=width + 2.0)
    y = m.off_integers(n, *inner, low=-3.0, high=height + 2.0)
    return m.case(data=m.normal(n, height, width, channels), warp=np.stack([x, y], -1))


def _at_edges() -> Case:
    """Integer coordinates, the border at -1 and w, just inside and outside, and not a number."""
    points = [(-1.0, 0.0), (0.0, -1.0), (-1.0, -1.0), (0.0, 0.0), (1.0, 2.0), (3.0, 2.0), (4.0, 1.0),
              (3.999, 1.0), (2.0, 3.0), (-0.999, 1.5), (1.5, 2.999), (1e9, 0.0), (-1e9, 1.0),
              (NAN, 1.0), (1.0, NAN), (INF, 1.0), (1.0, -INF)]
    rng = np.random.default_rng(0)
    return Case({"data": rng.standard_normal((1, 3, 4, 2)), "warp": np.array([points])})


def _warp_templates(m: Maker) -> Case:
    batch, parts, channels = m.sizes(3, 2, 4)
    rows, columns, height, width = m.sizes(4, 2, 8)
    return m.case({"canvas_shape": (height, width), "inverse": not m.flag(4)},
                  templates=m.normal(batch, parts, rows, columns, channels, scale=1.0),
                  pose=m.pose(batch, parts))


def _warp_cells(lib: Any, x: dict[str, Any], a: dict[str, Any]) -> Any:
    shape = x["templates"].shape
    rows, columns = (shape[2], shape[3]) if lib.side == "reference" else (shape[3], shape[4])
    pose = x["pose"].reshape(-1, 6) if lib.side == "port" else _tf_reshape(x["pose"])
    pose = lib.core.warp.inverse_affine(pose) if a["inverse"] else pose
    return lib.core.warp.affine_grid(pose, a["canvas_shape"], (rows, columns))


def _tf_reshape(pose: Any) -> Any:
    import tensorflow as tf
    return tf.reshape(pose, [-1, 6])


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
    OpCase("core.preprocess.shift_offset", function("core.preprocess.shift_offset"), _shift_offset, (
        ("all of the original", Case({"shift": np.arange(-12, 13)}, {"padding": 12})),),
        exact=True, oracle=True),
    OpCase("core.preprocess.pad_and_shift", function("core.preprocess.pad_and_shift", layouts=IMAGE),
           _pad_and_shift, exact=True, oracle=True),
    OpCase("core.preprocess.sobel_edges", function("core.preprocess.sobel_edges", layouts=IMAGE), _edges,
           oracle=True),
    OpCase("core.preprocess.normalized_sobel_edges",
           function("core.preprocess.normalized_sobel_edges", layouts=IMAGE), _normalized, (
               ("constant image", Case({"image": np.full((1, 4, 5, 1), 0.5)})),), oracle=True),
    OpCase("core.initializers.truncated_normal", _initializer("truncated_normal"), _truncated_normal,
           exact=True),
    OpCase("core.initializers.glorot_uniform", _initializer("glorot_uniform"), _glorot_uniform, exact=True),
    OpCase("core.initializers.orthogonal_templates", _initializer("orthogonal_templates"), _orthogonal,
           exact=True),
    OpCase("core.warp.grid_axis", Recipe(
        lambda lib, x, a, _: lib.core.warp.grid_axis(a["size"], a["template_size"])), _grid_axis,
        exact=True, oracle=True),
    OpCase("core.warp.inverse_affine", function("core.warp.inverse_affine"), _poses, (
        ("singular", Case({"pose": np.array([[1.0, 2, 0, 2, 4, 1], [0, 0, 0, 0, 0, 0]])})),),
        oracle=True),
    OpCase("core.warp.affine_grid", function("core.warp.affine_grid"), _affine_grid, oracle=True),
    OpCase("core.warp.resampler", function("core.warp.resampler", layouts={"data": 1, "out": 1}), _resampler,
           (("cell edges", _at_edges()),), oracle=True),
    OpCase("core.warp.warp_templates",
           function("core.warp.warp_templates", layouts={"templates": 2, "out": 2}), _warp_templates,
           cells=_warp_cells, oracle=True),
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
