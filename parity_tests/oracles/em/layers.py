"""Oracles of `em/layers.py`."""

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.em.routing import POSE, Settings, route
from parity_tests.oracles.scalars import as64


def pose_product(pose, weight) -> np.ndarray:
    """V[r, a] = sum over m of P[r, m] W[m, a], both 4 x 4."""
    pose, weight = as64(pose), as64(weight)
    out = np.zeros((*pose.shape[:-1], weight.shape[3], POSE))
    for index in np.ndindex(out.shape):
        *child, j, h = index
        r, a = divmod(h, 4)
        for m in range(4):
            out[index] += pose[(*child, 4 * r + m)] * weight[(*child[3:], j, m, a)]
    return out


def coordinate_addition(votes, centres, coordinates) -> np.ndarray:
    """First coordinate to entry 3 (`row`: 0), second to entry 7 (`row`: 1)."""
    out = as64(votes).copy()
    for slot, coordinate in zip((3, 7) if coordinates == "column" else (0, 1), (0, 1)):
        for y, x in np.ndindex(out.shape[3:5]):
            out[:, :, :, y, x, :, :, slot] += centres[y, x, coordinate]
    return out


def primary_capsules(features, pose_kernel, activation_kernel, pose_bias=None, activation_bias=None,
                     joint=False) -> dict[str, np.ndarray]:
    """Pose and activation of each type at each position; kernels [A, 16 types] and [A, types]."""
    features, types = as64(features), activation_kernel.shape[1]
    channels = np.concatenate([pose_kernel, activation_kernel], 1)
    pose = np.zeros((*features.shape[:3], types, POSE))
    activation = np.zeros((*features.shape[:3], types))
    for place in np.ndindex(features.shape[:3]):
        values = [float(sum(f * w for f, w in zip(features[place], column))) for column in channels.T]
        for t in range(types):
            first = 17 * t if joint else 16 * t
            for h in range(POSE):
                pose[(*place, t, h)] = values[first + h] + (0.0 if joint else pose_bias[first + h])
            logit = values[17 * t + 16] - 1.0 if joint else values[16 * types + t] + activation_bias[t]
            activation[(*place, t)] = scalars.sigmoid(logit)
    return {"pose": pose, "activation": activation}


def convolutional(pose, activation, weight, beta_u, beta_a, stride, padding, routing: Settings
                  ) -> dict[str, np.ndarray]:
    """Convolutional capsules; weight [K, L, I, J, 4, 4]. Outside a padded grid all is 0."""
    pose, activation = as64(pose), as64(activation)
    kernel, counts, befores = weight.shape[:2], [], []
    for size, k in zip(pose.shape[1:3], kernel):
        n = -(-size // stride) if padding == "SAME" else (size - k) // stride + 1
        counts.append(n)
        befores.append(max((n - 1) * stride + k - size, 0) // 2 if padding == "SAME" else 0)
    shape = (pose.shape[0], *counts, *kernel, pose.shape[3])
    poses, active = np.zeros((*shape, POSE)), np.zeros(shape)
    for p, q, u, v in np.ndindex(*counts, *kernel):
        y, x = p * stride + u - befores[0], q * stride + v - befores[1]
        if 0 <= y < pose.shape[1] and 0 <= x < pose.shape[2]:
            poses[:, p, q, u, v], active[:, p, q, u, v] = pose[:, y, x], activation[:, y, x]
    return route(pose_product(poses, weight), active, beta_u, beta_a, stride, routing)


def classes(pose, activation, weight, beta_u, beta_a, coordinates, routing: Settings, centres=None
            ) -> dict[str, np.ndarray]:
    """Class capsules; weight [I, J, 4, 4], the same at every position."""
    height, width = np.shape(pose)[1:3]
    if centres is None:
        centres = np.array([[[(x + 0.5) / width, (y + 0.5) / height] for x in range(width)]
                            for y in range(height)])
    shared = np.broadcast_to(weight, (height, width, *weight.shape))
    votes = coordinate_addition(pose_product(as64(pose)[:, None, None], shared), centres, coordinates)
    return route(votes, as64(activation)[:, None, None], beta_u, beta_a, 1, routing)
