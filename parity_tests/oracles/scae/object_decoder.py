"""Oracles of the object decoder: capsules that vote for part poses, and their likelihood."""

import math
from collections.abc import Mapping

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.core import layers, ops
from parity_tests.oracles.scalars import as64, sub_scope

Variables = Mapping[str, np.ndarray]
DUMMY = -2.0 * math.log(10.0)  # logit of the dummy component, and its log-density


def vote_log_prob(x, vote, scale: float, df: float | None = None) -> float:
    """Log-density of one point under one vote: the sum over the coordinates.

    Args: x, vote [D]; df degrees of freedom of a Student's t, None for a normal.
    Source: capsule.py, CapsuleLikelihood (argument pdf).
    """
    density = 0.0
    for d in range(len(vote)):
        if df is None:
            density += scalars.normal_log_prob(float(x[d]), float(vote[d]), scale)
        else:
            density += scalars.student_log_prob(float(x[d]), df, float(vote[d]), scale)
    return density


def degrees_of_freedom(raw) -> float:
    """softplus(raw) + 2. Source: capsule.py, CapsuleLikelihood (pdf student)."""
    return scalars.softplus(float(raw)) + 2.0


def capsule_likelihood(
    votes, scales, vote_presence_prob, x, presence=None, dummy_vote=None, df=None
) -> dict[str, np.ndarray]:
    """Parts explained by the votes of O capsules and a dummy, one vote per capsule and part.

    For part n: logit_o = safe_log(vote presence), p_o = sum_d log N(x_d; vote_d, scale), dummy
    logit and log-density -2 ln 10 each, j = logit + p over O + 1.
    log_prob = mean_b sum_n presence lse(j), the logits NOT normalised; mixing_log_prob =
    logit - lse(logit); posterior = softmax(j) without the dummy; winner = the vote of the
    argmax over O of j, winner_pres its soft presence, is_from_capsule its index; soft_winner =
    sum over O + 1 of softmax(j) (vote | dummy_vote), soft_winner_pres the same of the presences
    over O; vote_presence = 1 where logit > dummy logit.
    Args: votes [B, O, N, D]; scales, vote_presence_prob [B, O, N]; x [B, N, D]; presence [B, N]
    or None; dummy_vote [1, 1, N, D] (zeros if None); df see vote_log_prob. Returns a dict of these
    names, parts before capsules in posterior_mixing_probs [B, N, O], capsules first in the mixing
    tensors [B, O + 1, N].
    Source: capsule.py, CapsuleLikelihood.
    """
    votes, scales, x = as64(votes), as64(scales), as64(x)
    vote_presence_prob = as64(vote_presence_prob)
    n_images, n_caps, n_points, n_dims = votes.shape
    dummy = np.zeros((1, 1, n_points, n_dims)) if dummy_vote is None else as64(dummy_vote)
    out = {
        "vote_presence": np.zeros((n_images, n_caps, n_points)),
        "winner": np.zeros((n_images, n_points, n_dims)),
        "winner_pres": np.zeros((n_images, n_points)),
        "is_from_capsule": np.zeros((n_images, n_points)),
        "mixing_logits": np.zeros((n_images, n_caps + 1, n_points)),
        "mixing_log_prob": np.zeros((n_images, n_caps + 1, n_points)),
        "soft_winner": np.zeros((n_images, n_points, n_dims)),
        "soft_winner_pres": np.zeros((n_images, n_points)),
        "posterior_mixing_probs": np.zeros((n_images, n_points, n_caps)),
    }
    log_prob = 0.0
    for b in range(n_images):
        for n in range(n_points):
            logits, joint = [], []
            for o in range(n_caps):
                logit = scalars.safe_log(float(vote_presence_prob[b, o, n]))
                density = vote_log_prob(x[b, n], votes[b, o, n], float(scales[b, o, n]), df)
                logits.append(logit)
                joint.append(logit + density)
                out["vote_presence"][b, o, n] = 1.0 if logit > DUMMY else 0.0
            logits.append(DUMMY)
            joint.append(DUMMY + DUMMY)

            point = scalars.log_sum_exp(joint)
            log_prob += point if presence is None else point * float(presence[b][n])
            normaliser = scalars.log_sum_exp(logits)
            for o in range(n_caps + 1):
                out["mixing_logits"][b, o, n] = logits[o]
                out["mixing_log_prob"][b, o, n] = logits[o] - normaliser
            posterior = scalars.softmax(joint)
            winner = scalars.argmax(joint[:-1])
            out["is_from_capsule"][b, n] = winner
            out["winner_pres"][b, n] = vote_presence_prob[b, winner, n]
            for o in range(n_caps):
                out["posterior_mixing_probs"][b, n, o] = posterior[o]
                out["soft_winner_pres"][b, n] += posterior[o] * float(vote_presence_prob[b, o, n])
            for d in range(n_dims):
                out["winner"][b, n, d] = votes[b, winner, n, d]
                soft = 0.0
                for o in range(n_caps):
                    soft += posterior[o] * float(votes[b, o, n, d])
                out["soft_winner"][b, n, d] = soft + posterior[n_caps] * float(dummy[0, 0, n, d])
    out["log_prob"] = np.float64(log_prob / n_images)
    return out


def _split(parameters: list[float], sizes: list[int]) -> list[list[float]]:
    """Cuts a list into pieces of the given lengths."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(parameters[start : start + size])
        start += size
    return pieces


def _matrix_product(left, right) -> list[list[float]]:
    """The product of two 3 x 3 matrices."""
    out = []
    for i in range(3):
        row = []
        for j in range(3):
            total = 0.0
            for m in range(3):
                total += float(left[i][m]) * float(right[m][j])
            row.append(total)
        out.append(row)
    return out


def capsule_layer(
    features,
    variables: Variables,
    n_votes: int,
    learn_vote_scale: bool = False,
    deformations: bool = True,
    noise_type: str | None = None,
    noise_scale: float = 0.0,
    similarity_transform: bool = True,
    noise_caps=None,
    noise_vote=None,
    mask=None,
    parent_transform=None,
    parent_presence=None,
    **_unused,
) -> dict[str, np.ndarray]:
    """Object capsules: private MLPs from features to votes, scales and presences.

    raw_caps_params = MLP(features); all_params = MLP_1([raw_caps_params, m]), m = 1 or the dropout
    mask (1 = kept), split into CPR dynamic 6 V | CCR 6 | capsule logit 1 | vote logits V | scales
    V; all but the first get a bias (add, add_1, add_2, add_3).
    vote_v = geometric(ccr) geometric(dynamic_v + cpr_static_v) (dynamic 0 without deformations);
    capsule logit += safe_log(m) + noise, vote logit += noise (uniform: raw * noise_scale,
    logistic: raw); vote presence = sigmoid(capsule) sigmoid(vote);
    scale = softplus(. + 0.5) + 1e-2, or 1; dynamic_weights_l2 = sum dynamic^2 / 2 / B.
    Args: features [B, O, F]; mask, noise_caps [B, O, 1]; noise_vote [B, O, V]; parent_transform
    [B, O, 1, 3, 3] in place of geometric(ccr); parent_presence [B, O, 1] in place of
    sigmoid(capsule).
    Returns vote [B, O, V, 3, 3], scale, vote_presence, pres_logit_per_vote [B, O, V],
    pres_logit_per_caps [B, O, 1], dynamic_weights_l2, raw_caps_params, raw_caps_features,
    all_params [B, O, 8 V + 7].
    Source: capsule.py, CapsuleLayer.
    """
    features = as64(features)
    n_images, n_caps = features.shape[:2]
    owns = any(name.startswith("batch_mlp/") for name in variables)
    raw = layers.batch_mlp(features, sub_scope(variables, "batch_mlp")) if owns else features
    extended = np.zeros((n_images, n_caps, raw.shape[-1] + 1))
    for b, o in np.ndindex(n_images, n_caps):
        for i in range(raw.shape[-1]):
            extended[b, o, i] = raw[b, o, i]
        extended[b, o, raw.shape[-1]] = 1.0 if mask is None else float(mask[b][o][0])
    parameters = layers.batch_mlp(extended, sub_scope(variables, "batch_mlp_1"))
    ccr_bias, caps_bias = as64(variables["add/b"]), as64(variables["add_1/b"])
    vote_bias, scale_bias = as64(variables["add_2/b"]), as64(variables.get("add_3/b", np.nan))
    static = as64(variables["cpr_static"])
    similar = similarity_transform

    out = {
        "vote": np.zeros((n_images, n_caps, n_votes, 3, 3)),
        "scale": np.ones((n_images, n_caps, n_votes)),
        "vote_presence": np.zeros((n_images, n_caps, n_votes)),
        "pres_logit_per_caps": np.zeros((n_images, n_caps, 1)),
        "pres_logit_per_vote": np.zeros((n_images, n_caps, n_votes)),
        "raw_caps_params": raw,
        "raw_caps_features": features,
        "all_params": parameters,
    }
    squares = 0.0
    # Logistic draws are recorded as they enter, uniform ones as the raw U[-1/2, 1/2).
    factor = 1.0 if noise_type == "logistic" else noise_scale
    for b, o in np.ndindex(n_images, n_caps):
        sizes = [6 * n_votes, 6, 1, n_votes, n_votes]
        dynamic, ccr, caps, vote, scale = _split(parameters[b, o].tolist(), sizes)
        ccr = [ccr[i] + float(ccr_bias[o, 0, i]) for i in range(6)]
        if parent_transform is None:
            viewpoint = ops.geometric_transform(ccr, similar, as_matrix=True)
        else:
            viewpoint = parent_transform[b][o][0]
        logit = caps[0] + float(caps_bias[o, 0])
        if mask is not None:
            logit += scalars.safe_log(float(mask[b][o][0]))
        if noise_caps is not None:
            logit += float(noise_caps[b][o][0]) * factor
        out["pres_logit_per_caps"][b, o, 0] = logit
        caps_presence = scalars.sigmoid(logit)
        if parent_presence is not None:
            caps_presence = float(parent_presence[b][o][0])
        for v in range(n_votes):
            relation = []
            for i in range(6):
                moved = dynamic[6 * v + i] if deformations else 0.0
                squares += moved * moved
                relation.append(moved + float(static[0, o, v, i]))
            part = ops.geometric_transform(relation, similar, as_matrix=True)
            out["vote"][b, o, v] = _matrix_product(viewpoint, part)
            logit = vote[v] + float(vote_bias[o, v])
            if noise_vote is not None:
                logit += float(noise_vote[b][o][v]) * factor
            out["pres_logit_per_vote"][b, o, v] = logit
            out["vote_presence"][b, o, v] = caps_presence * scalars.sigmoid(logit)
            if learn_vote_scale:
                raw_scale = scale[v] + float(scale_bias[o, v])
                out["scale"][b, o, v] = scalars.softplus(raw_scale + 0.5) + 1e-2
    out["dynamic_weights_l2"] = np.float64(squares / 2.0 / n_images)
    return out


def image_capsule(features, x, presence, variables: Variables, **settings) -> dict[str, np.ndarray]:
    """A capsule layer with one vote per part, and the likelihood of the parts under it.

    vote = top two rows of the 3 x 3 vote, flattened; caps_presence_prob = max over the votes of
    the SOFT vote presence; vote_presence is then overwritten by the likelihood's binary one.
    Args: features [B, O, F]; x [B, K, 6]; presence [B, K]; variables capsule_layer/...,
    capsule_likelihood/dummy_vote; settings of capsule_layer.
    Returns the fields of both, vote [B, O, K, 6], caps_presence_prob [B, O].
    Source: scae.py, ImageCapsule.
    """
    own = sub_scope(variables, "capsule_layer")
    out = capsule_layer(features, own, x.shape[1], **settings)
    n_images, n_caps, n_votes = out["scale"].shape
    votes = np.zeros((n_images, n_caps, n_votes, 6))
    caps_presence = np.zeros((n_images, n_caps))
    for b, o, v in np.ndindex(n_images, n_caps, n_votes):
        for i in range(6):
            votes[b, o, v, i] = out["vote"][b, o, v, i // 3, i % 3]
        caps_presence[b, o] = max(caps_presence[b, o], float(out["vote_presence"][b, o, v]))
    dummy_vote = variables.get("capsule_likelihood/dummy_vote")
    likelihood = capsule_likelihood(
        votes, out["scale"], out["vote_presence"], x, presence, dummy_vote
    )
    out.update(vote=votes, caps_presence_prob=caps_presence)
    out.update(likelihood)
    return out
