"""Oracles of `constellation/likelihood.py`."""

import math

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.scae import object_decoder
from parity_tests.oracles.scalars import as64

Taps = dict[str, np.ndarray]


def order_invariant_likelihood(
    votes, scales, vote_presence_prob, x, presence=None, n_votes=1, df=None
) -> Taps:
    """Points explained by any of V votes or a dummy.

    logit_v = safe_log(vote presence), dummy logit and log-density -2 ln 10; pi = softmax(logits)
    over V + 1. log_prob = mean_b sum_m presence_m log sum_v pi_v p(x_m; vote_v, scale_v);
    posterior = softmax_v(logit + log p) without the dummy; winner = the vote of the argmax over V,
    is_from_capsule its index // n_votes, winner_pres its presence; vote_presence = logit > dummy
    logit; soft_winner and soft_winner_pres are zeros.
    Args: votes [B, V, D]; scales, vote_presence_prob [B, V]; x [B, M, D]; presence [B, M] or None.
    Source: capsule.py, OrderInvariantCapsuleLikelihood.
    """
    votes, scales, x = as64(votes), as64(scales), as64(x)
    pres, dummy = as64(vote_presence_prob), object_decoder.DUMMY
    n_images, n_all, n_dims = votes.shape
    n_points = x.shape[1]
    out = {
        "vote_presence": np.zeros((n_images, n_all)),
        "winner": np.zeros((n_images, n_points, n_dims)),
        "winner_pres": np.zeros((n_images, n_points)),
        "is_from_capsule": np.zeros((n_images, n_points)),
        "mixing_logits": np.zeros((n_images, n_all + 1)),
        "mixing_log_prob": np.zeros((n_images, n_all + 1)),
        "soft_winner": np.zeros((n_images, n_points, n_dims)),
        "soft_winner_pres": np.zeros((n_images, n_points)),
        "posterior_mixing_probs": np.zeros((n_images, n_points, n_all)),
    }
    log_prob = 0.0
    for b in range(n_images):
        logits = [scalars.safe_log(float(pres[b, v])) for v in range(n_all)] + [dummy]
        normaliser = scalars.log_sum_exp(logits)
        for v in range(n_all + 1):
            out["mixing_logits"][b, v] = logits[v]
            out["mixing_log_prob"][b, v] = logits[v] - normaliser
        for v in range(n_all):
            out["vote_presence"][b, v] = 1.0 if logits[v] > dummy else 0.0
        for m in range(n_points):
            density = [
                object_decoder.vote_log_prob(x[b, m], votes[b, v], float(scales[b, v]), df)
                for v in range(n_all)
            ] + [dummy]
            joint = [logits[v] + density[v] for v in range(n_all + 1)]
            mixed = [logits[v] - normaliser + density[v] for v in range(n_all + 1)]
            point = scalars.log_sum_exp(mixed)
            log_prob += point if presence is None else point * float(presence[b][m])
            posterior = scalars.softmax(joint)
            winner = scalars.argmax(joint[:-1])
            out["is_from_capsule"][b, m] = winner // n_votes
            out["winner_pres"][b, m] = pres[b, winner]
            for v in range(n_all):
                out["posterior_mixing_probs"][b, m, v] = posterior[v]
            for d in range(n_dims):
                out["winner"][b, m, d] = votes[b, winner, d]
    out["log_prob"] = np.float64(log_prob / n_images)
    return out


def mixing_kl(mixing_logits, mixing_log_prob, n_states: int) -> np.ndarray:
    """mean_b sum_v softmax(logits)_v (log pi_v + log n). Source: capsule.py, ConstellationCapsule."""
    total = 0.0
    for b in range(len(mixing_logits)):
        probs = scalars.softmax([float(value) for value in mixing_logits[b]])
        for v, prob in enumerate(probs):
            total += prob * (float(mixing_log_prob[b][v]) + math.log(n_states))
    return np.float64(total / len(mixing_logits))


def usage_loss(is_from_capsule, presence, pres_logit) -> np.ndarray:
    """mean_b sum_o [w > 0] xe([w > 1], logit), w = present points that capsule o wins.

    Source: capsule.py, ConstellationCapsule.
    """
    total = 0.0
    for b, o in np.ndindex(np.shape(pres_logit)):
        wins = 0.0
        for m in range(len(is_from_capsule[b])):
            if is_from_capsule[b][m] == o:
                wins += 1.0 if presence is None else float(presence[b][m])
        if wins > 0.0:
            logit = float(pres_logit[b][o])
            # -log sigmoid(logit) where the label is 1, -log sigmoid(-logit) where it is 0.
            total += scalars.softplus(-logit if wins > 1.0 else logit)
    return np.float64(total / len(pres_logit))
