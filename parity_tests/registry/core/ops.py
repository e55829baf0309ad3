"""Rows of `core/ops.py`."""

from __future__ import annotations

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase

NAN, INF = float("nan"), float("inf")


def _vector(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def _one(m: Maker) -> Case:
    return m.case(x=m.normal(*m.shape()))


def _softplus(m: Maker) -> Case:
    return m.case(x=m.logits(*m.shape()))


def _safe_log(m: Maker) -> Case:
    eps = m.choice([1e-16, 1e-3])
    return m.case({"eps": eps}, tensor=m.probability(*m.shape()))


def _safe_ce(m: Maker) -> Case:
    shape = m.shape(2, 3)
    labels, probs = m.probability(*shape), m.probability(*shape)
    axis = m.choice(list(range(len(shape))) + [-1])
    return m.case({"axis": axis}, terms=labels.size, labels=labels, probs=probs)


def _flat_reduce(m: Maker) -> Case:
    tensor = m.normal(*m.shape(2, 4))
    attributes = {"reduce_type": m.choice(["sum", "mean", "max", "min"]),
                  "final_reduce": m.choice([None, "sum", "mean", "max", "min"])}
    return m.case(attributes, terms=tensor.size, tensor=tensor)


def _log_sum_exp(m: Maker) -> Case:
    shape = m.shape(1, 4)
    axis = m.choice(list(range(len(shape))))
    return m.case({"axis": axis, "keepdims": m.flag()}, terms=shape[axis], x=m.logits(*shape))


def _normalize(m: Maker) -> Case:
    shape = m.shape(1, 3)
    axis = m.choice(list(range(len(shape))))
    return m.case({"axis": axis}, terms=shape[axis], tensor=m.probability(*shape))


def _make_broadcastable(m: Maker) -> Case:
    shape = m.shape(2, 4)
    return m.case(tensor=m.normal(*shape[:m.size(1, len(shape))]), against=m.normal(*shape))


def _expand_dims(m: Maker) -> Case:
    tensor = m.normal(*m.shape(1, 3))
    axis = m.choice([-1, *range(tensor.ndim + 1)])
    return m.case({"axis": axis, "n_dims": m.size(0, 3)}, tensor=tensor)


def _to_homogeneous(m: Maker) -> Case:
    return m.case(tensor=m.normal(*m.shape(1, 3)))


def _from_homogeneous(m: Maker) -> Case:
    tensor = m.normal(*m.shape(1, 2), m.size(2, 4))
    tensor[..., -1] = np.sign(tensor[..., -1]) * (0.1 + np.abs(tensor[..., -1]))
    return m.case(tensor=tensor)


def _apply_transform(m: Maker) -> Case:
    batch, points = m.sizes(2)
    kind = m.choice(["none", "affine", "broadcast", "many", "projective"])
    if kind == "none":
        return m.case(transform=m.normal(batch, points, 3, 3))
    if kind == "many":  # no batch: the translation is one vector
        return m.case({"affine": True}, transform=m.normal(3, 3), tensor=m.normal(points, 2))
    if kind == "broadcast":  # Q18: [B, 2] added to [B, 1, 2] gives [B, B, 2]
        return m.case({"affine": True}, transform=m.normal(batch, 3, 3), tensor=m.normal(batch, 1, 2))
    transform, tensor = m.normal(batch, 3, 3, scale=1.0), m.uniform(batch, batch, 2, low=-1, high=1)
    if kind == "affine":  # as many points as examples, or the original cannot add
        return m.case({"affine": True}, transform=transform, tensor=tensor)
    # The last homogeneous coordinate stays in [2, 4]: dividing by it is no discontinuity here.
    transform[..., 2, :] = transform[..., 2, :] * 0 + m.uniform(batch, 3, low=-0.5, high=0.5)
    transform[..., 2, 2] += 3.0
    return m.case({"affine": False}, transform=transform,
                  tensor=m.uniform(batch, points, 2, low=-1, high=1))


def _geometric_transform(m: Maker) -> Case:
    flags = {name: m.flag() for name in ("similarity", "nonlinear", "as_matrix")}
    pose = m.normal(*m.shape(1, 3), 6, scale=m.choice([0.3, 1.0, 3.0]))
    if m.flag(3):
        pose[..., :2] = m.sprinkle(pose[..., :2], [-60.0, 60.0], 0.3)
    return m.case(flags, pose_tensor=pose)


def _transform_entries(m: Maker) -> Case:
    case = _geometric_transform(m)
    del case.attributes["as_matrix"]
    return case


_TIES = ("kinks", Case({"x": _vector(0.0, 1.0, -0.0, 0.5, 2.0, -1.0)}))

ROWS = (
    OpCase("core.ops.relu1", function("core.ops.relu1"), _one, (_TIES,), oracle=True),
    OpCase("core.ops.softplus", function("core.ops.softplus"), _softplus, (
        ("tails", Case({"x": _vector(-1e4, -745.0, -90.0, -30.0, 0.0, 14.0, 19.9, 20.1, 30.0, 1e4)})),
        ("infinite", Case({"x": _vector(INF, -INF)}))), oracle=True),
    OpCase("core.ops.safe_log", function("core.ops.safe_log"), _safe_log, (
        ("floor", Case({"tensor": _vector(0.0, 1e-30, 9.9e-17, 1e-16, 1.1e-16, 1.0)})),
        ("not a probability", Case({"tensor": _vector(-1.0, INF, 3.0)}))), oracle=True),
    OpCase("core.ops.safe_ce", function("core.ops.safe_ce"), _safe_ce, oracle=True),
    OpCase("core.ops.flat_reduce", function("core.ops.flat_reduce"), _flat_reduce, oracle=True),
    OpCase("core.ops.log_sum_exp", function("core.ops.log_sum_exp"), _log_sum_exp, (
        ("all absent", Case({"x": np.full((2, 3), -1e8)}, {"axis": 1})),
        ("all -inf", Case({"x": np.full((2, 3), -INF)}, {"axis": 1})),
        ("one inf", Case({"x": np.array([[INF, 0.0], [1.0, -INF]])}, {"axis": 1, "keepdims": True})),
        ("tie", Case({"x": np.array([[2.0, 2.0, 2.0], [5.0, 5.0, 1.0]])}, {"axis": 1}))),
        oracle=True),
    OpCase("core.ops.normalize", function("core.ops.normalize"), _normalize, (
        ("zeros", Case({"tensor": np.zeros((2, 3))}, {"axis": 1})),), oracle=True),
    OpCase("core.ops.make_broadcastable",
           function("core.ops.make_broadcastable", constants=("against",)), _make_broadcastable,
           exact=True, oracle=True),
    OpCase("core.ops.expand_dims", function("core.ops.expand_dims"), _expand_dims, exact=True, oracle=True),
    OpCase("core.ops.to_homogeneous", function("core.ops.to_homogeneous"), _to_homogeneous, oracle=True),
    OpCase("core.ops.from_homogeneous", function("core.ops.from_homogeneous"), _from_homogeneous, (
        ("point at infinity", Case({"tensor": np.array([[1.0, 2.0, 0.0], [0.0, 0.0, -1e-8]])})),),
        oracle=True),
    OpCase("core.ops.apply_transform", function("core.ops.apply_transform"), _apply_transform, oracle=True),
    OpCase("core.ops.geometric_transform", function("core.ops.geometric_transform"), _geometric_transform, (
        ("zeros", Case({"pose_tensor": np.zeros((2, 6))})),
        ("zeros, linear", Case({"pose_tensor": np.zeros((2, 6))}, {"nonlinear": False}))),
        oracle=True),
    OpCase("core.ops.transform_entries", function("core.ops.transform_entries", ("a", "b", "tx", "c", "d", "ty")),
           _transform_entries, oracle=True),
)
