"""Oracles of the loss terms: sparsity of capsules, weight decay, the weighted total."""

from collections.abc import Iterable, Mapping

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.core import ops
from parity_tests.oracles.scalars import as64


def _column_sums(p: np.ndarray) -> np.ndarray:
    """sum_b p[b, o], as one row [1, O]."""
    out = np.zeros((1, p.shape[1]))
    for b in range(p.shape[0]):
        for o in range(p.shape[1]):
            out[0, o] += float(p[b, o])
    return out


def _mean_row_sum(rows: np.ndarray, function) -> np.float64:
    """mean over the rows of sum_o function(row[o])."""
    total = 0.0
    for b in range(rows.shape[0]):
        for o in range(rows.shape[1]):
            total += function(float(rows[b, o]))
    return np.float64(total / rows.shape[0])


def capsule_entropy(p) -> tuple[np.float64, np.float64]:
    """(mean_b H(p_b / sum), H(sum_b p / sum)) with H(q) = -sum q safe_log(q).

    Normalised as q = p / (sum_o p + 1e-8).
    Args: p [B, O], not negative. Returns (within, between).
    Source: capsule.py, _capsule_entropy.
    """
    p = as64(p)

    def term(q: float) -> float:
        return -q * scalars.safe_log(q)

    within = _mean_row_sum(ops.normalize(p, 1), term)
    between = _mean_row_sum(ops.normalize(_column_sums(p), 1), term)
    return within, between


def neg_capsule_kl(p) -> tuple[np.float64, np.float64]:
    """The same sums with -q safe_log(n q), n the number of columns.

    Args: p [B, O]. Returns (within, between).
    Source: capsule.py, _neg_capsule_kl.
    """
    p = as64(p)
    n_caps = p.shape[1]

    def term(q: float) -> float:
        return -q * scalars.safe_log(n_caps * q)

    within = _mean_row_sum(ops.normalize(p, 1), term)
    between = _mean_row_sum(ops.normalize(_column_sums(p), 1), term)
    return within, between


def capsule_presence_l2(
    p, num_classes: float, within_example_constant: float = 0.0
) -> tuple[np.float64, np.float64]:
    """(sum_b (sum_o p - c)^2 / B, -sum_o (sum_b p - B / num_classes)^2 / O).

    c = within_example_constant, and O / num_classes where that is zero. The second is returned
    negated, so that subtracting it in the loss is a penalty.
    Args: p [B, O]. Returns (within, between).
    Source: capsule.py, _caps_pres_l2.
    """
    p = as64(p)
    n_examples, n_caps = p.shape
    wanted = within_example_constant
    if wanted == 0.0:
        wanted = n_caps / num_classes
    within = 0.0
    for b in range(n_examples):
        present = 0.0
        for o in range(n_caps):
            present += float(p[b, o])
        within += (present - wanted) ** 2
    between = 0.0
    for total in _column_sums(p)[0].tolist():
        between += (total - n_examples / num_classes) ** 2
    return np.float64(within / n_examples), np.float64(-between / n_caps)


def sparsity_loss(
    loss_type: str, p, num_classes: float = 10.0, within_example_constant: float = 0.0
) -> tuple[np.float64, np.float64]:
    """The two sparsity terms by name: 'entropy', 'kl' or 'l2'.

    Args: p [B, O]; the last two for 'l2' alone. Returns (within, between).
    Source: capsule.py, sparsity_loss.
    """
    if loss_type == "entropy":
        return capsule_entropy(p)
    if loss_type == "kl":
        return neg_capsule_kl(p)
    if loss_type == "l2":
        return capsule_presence_l2(p, num_classes, within_example_constant)
    raise ValueError(f"unknown sparsity loss {loss_type!r}")


def l2_loss(x) -> np.float64:
    """sum x^2 / 2.

    Source: tf.nn.l2_loss.
    """
    x = as64(x)
    total = 0.0
    for index in np.ndindex(x.shape):
        total += float(x[index]) * float(x[index])
    return np.float64(total / 2.0)


def weight_decay_loss(weights: Mapping | Iterable) -> np.float64:
    """sum over the weights of sum w^2 / 2, not yet times the decay.

    Args: arrays, all of which count; or variables by name, of which those whose last name is `w`
    or `weights` count.
    Source: scae.py, ImageAutoencoder, weight_decay_loss.
    """
    if isinstance(weights, Mapping):
        weights = [
            value for name, value in weights.items() if name.split("/")[-1] in ("w", "weights")
        ]
    total = 0.0
    for weight in weights:
        total += float(l2_loss(weight))
    return np.float64(total)


def total_loss(terms: Mapping[str, float], weights: Mapping[str, float]) -> np.float64:
    """The optimised loss of the image model, a weighted sum of its scalars.

    L = -rec_ll - w_ll log_prob + w_dyn dynamic_weights_l2 + w_l1 primary_caps_l1
      + w_pw posterior_within - w_pb posterior_between + w_qw prior_within - w_qb prior_between
      + posterior_cls_xe + prior_cls_xe (both with labels only) + decay weight_decay_loss
    and, of other ports, a weight of rec_ll (else 1), w_t template_l1 and w_m rec_mse (else none).
    Args: terms by result name; weights by class argument name (a manifest's
    `arguments.autoencoder`).
    Source: scae.py:331-352, ImageAutoencoder._loss.
    """
    factors = {
        "rec_ll": -weights.get("rec_ll_weight", 1.0),
        "template_l1": weights.get("template_l1_weight", 0.0),
        "rec_mse": weights.get("mse_weight", 0.0),
        "log_prob": -weights["caps_ll_weight"],
        "dynamic_weights_l2": weights["dynamic_l2_weight"],
        "primary_caps_l1": weights["primary_caps_sparsity_weight"],
        "posterior_within_sparsity_loss": weights["posterior_within_example_sparsity_weight"],
        "posterior_between_sparsity_loss": -weights["posterior_between_example_sparsity_weight"],
        "prior_within_sparsity_loss": weights["prior_within_example_sparsity_weight"],
        "prior_between_sparsity_loss": -weights["prior_between_example_sparsity_weight"],
        "posterior_cls_xe": 1.0,
        "prior_cls_xe": 1.0,
        "weight_decay_loss": weights["weight_decay"],
    }
    total = 0.0
    for name, factor in factors.items():
        if name in terms:
            total += factor * float(terms[name])
    return np.float64(total)
