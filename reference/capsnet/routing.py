"""Squash, votes and dynamic routing between capsules, in TensorFlow.

Read beside `port/capsnet/routing.py`: same names, same order. Votes are
`[batch, child, parent, atom]`, with trailing axes where each position of a grid routes by itself.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Float

Array = Float[tf.Tensor, "..."]


class Routing(NamedTuple):
    """Parents `[batch, parent, atom, …]`, and logits and coupling of the last iteration,
    `[batch, child, parent, …]`."""

    capsules: Array
    logits: Array
    coupling: Array


def capsule_lengths(capsules: Array, axis: int = -1) -> Array:
    """|v| along an axis, with gradient 0 at the zero vector.

    Args:
        capsules: vectors.
        axis: of their numbers.

    Returns:
        Lengths, without that axis.

    Source: CapsNet paper, section 2. The root is masked, not shifted by an epsilon, so that value and
    gradient are exact wherever the sum of squares is a number above 0.
    """
    square = tf.reduce_sum(tf.square(capsules), axis)
    above = square > 0.0
    return tf.where(above, tf.sqrt(tf.where(above, square, 1.0)), 0.0)


def squash(s: Array, axis: int = -1, epsilon: float = 0.0) -> Array:
    """s · n / (1 + n²), n = |s|: the direction of s, a length below 1; value and gradient 0 at 0.

    With an epsilon s · n² / ((1 + n²)(n + ε)).

    Args:
        s: vectors.
        axis: of their numbers.
        epsilon: ε.

    Returns:
        Vectors of the same shape.

    Source: CapsNet paper, equation 1. The official code divides by |s| and is not a number at 0;
    XifengGuo's has ε = 1e-8.
    """
    norm = tf.expand_dims(capsule_lengths(s, axis), axis)
    factor = norm / (1.0 + tf.square(norm))
    return s * (factor if epsilon == 0.0 else factor * norm / (norm + epsilon))


def capsule_votes(capsules: Float[tf.Tensor, "batch child atom_in"],
                  weights: Float[tf.Tensor, "child atom_in both"], n_parents: int
                  ) -> Float[tf.Tensor, "batch child parent atom_out"]:
    """û_ij = u_i W_ij: what each child predicts for each parent.

    Args:
        capsules: u, `[batch, child, atom_in]`.
        weights: W, `[child, atom_in, parent·atom_out]`, parent-major.
        n_parents: number of parents.

    Returns:
        Votes `[batch, child, parent, atom_out]`.

    Source: CapsNet paper, equation 2.
    """
    votes = tf.transpose(tf.matmul(tf.transpose(capsules, [1, 0, 2]), weights), [1, 0, 2])
    return tf.reshape(votes, [*votes.shape[:2], n_parents, votes.shape[2] // n_parents])


def coupling_coefficients(logits: Array, leaky: bool = False) -> Array:
    """c_ij = exp b_ij / Σ_k exp b_ik: a child's share for each parent.

    Args:
        logits: b, `[batch, child, parent, …]`.
        leaky: a further logit 0 takes part; its share goes to no parent.

    Returns:
        c, of the same shape; over the parents it sums to 1, or less if leaky.

    Source: CapsNet paper, equation 3; official `layers.py: _leaky_routing`.
    """
    if not leaky:
        return tf.nn.softmax(logits, 2)
    leak = tf.zeros_like(logits[:, :, :1])
    return tf.nn.softmax(tf.concat([leak, logits], 2), 2)[:, :, 1:]


def dynamic_routing(votes: Array, bias: Array | None = None, iterations: int = 3, leaky: bool = False,
                    gradient: str = "all", epsilon: float = 0.0) -> Routing:
    """Routing by agreement: s_j = Σ_i c_ij û_ij + bias_j, v_j = squash(s_j), b_ij += û_ij · v_j.

    Logits b start at 0 for every example; the update after the last iteration is left out, as nothing
    uses it.

    Args:
        votes: û, `[batch, child, parent, atom, …]`.
        bias: `[parent, atom, …]`, broadcast over trailing axes; None is none.
        iterations: number of times v is computed, 1 to 5.
        leaky: see `coupling_coefficients`.
        gradient: `all`: through every iteration; `last`: the coupling is a constant.
        epsilon: see `squash`.

    Returns:
        Parents, logits and coupling of the last iteration.

    Source: CapsNet paper, procedure 1; official `layers.py: _update_routing`.
    """
    logits = tf.zeros_like(tf.reduce_sum(votes, 3))
    for _ in range(iterations - 1):
        coupling = coupling_coefficients(logits, leaky)
        weighted = tf.reduce_sum(coupling[:, :, :, None] * votes, 1)
        capsules = squash(weighted if bias is None else weighted + bias, 2, epsilon)
        logits += tf.reduce_sum(votes * capsules[:, None], 3)
    if gradient == "last":
        logits = tf.stop_gradient(logits)
    coupling = coupling_coefficients(logits, leaky)
    weighted = tf.reduce_sum(coupling[:, :, :, None] * votes, 1)
    return Routing(squash(weighted if bias is None else weighted + bias, 2, epsilon), logits, coupling)
