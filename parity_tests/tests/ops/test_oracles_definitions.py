"""Oracles that no recording covers, held against SciPy and the numbers of the facts sheet."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage, stats

from parity_tests import oracles

RNG = np.random.default_rng(7)


def test_sobel_edges_are_correlations_with_mirrored_borders():
    image = RNG.normal(size=(2, 5, 7, 3))
    kernel = np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], np.float64)
    found = oracles.core.preprocess.sobel_edges(image)
    for b in range(2):
        for c in range(3):
            for i, weights in enumerate((kernel, kernel.T)):
                wanted = ndimage.correlate(image[b, :, :, c], weights, mode="mirror")
                np.testing.assert_allclose(found[b, :, :, c, i], wanted, atol=1e-13)


@pytest.mark.parametrize(
    ("count", "place"), [(1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (6, 3), (7, 3), (8, 3), (10, 5)]
)
def test_nearest_median_takes_the_element_of_the_facts_sheet(count, place):
    """Lower middle for multiples of four, upper for 2 mod 4 (ascending places from zero)."""
    values = RNG.permutation(count).astype(float).tolist()
    assert oracles.core.preprocess.nearest_median(values) == place


@pytest.mark.parametrize("size", [(4, 6), (3, 4), (5, 5), (6, 7)])
def test_normalized_sobel_edges_fill_the_unit_interval(size):
    image = RNG.uniform(size=(2, *size, 2))
    found = oracles.core.preprocess.normalized_sobel_edges(image)
    assert found.shape == image.shape
    # The median is an element, so its own distance is exactly zero.
    assert (found.min(axis=(1, 2)) == 0.0).all()
    np.testing.assert_allclose(found.max(axis=(1, 2)), 1.0, atol=1e-7)
    constant = oracles.core.preprocess.normalized_sobel_edges(np.ones((1, *size, 1)))
    assert (constant == 0.0).all()


def test_offsets_have_the_probabilities_of_the_facts_sheet():
    """Draws -12..12 give the offsets 1..12 twice each and 0 once; ceil((12 - k) / 2)."""
    offsets = [oracles.core.preprocess.shift_offset(k, 12) for k in range(-12, 13)]
    assert offsets == [math.ceil((12 - k) / 2) for k in range(-12, 13)]
    assert [offsets.count(i) for i in range(13)] == [1] + [2] * 12


def test_pad_and_shift_moves_along_x_and_y_apart():
    image = np.zeros((1, 2, 2, 1))
    image[0, 0, 0, 0] = 1.0
    found = oracles.core.preprocess.pad_and_shift(image, [-4], [4], 6)
    assert np.argwhere(found).tolist() == [[0, 0, 4, 0]]


@pytest.mark.parametrize(
    ("shape", "limit"),
    [((1,), math.sqrt(3.0)), ((1, 32, 256), 0.1443), ((1, 32, 40, 6), 0.0638), ((3, 5), 0.8660)],
)
def test_glorot_limits_of_the_facts_sheet(shape, limit):
    assert oracles.core.initializers.glorot_limit(shape) == pytest.approx(limit, abs=5e-5)


def test_truncated_normal_moments():
    found = oracles.core.initializers.truncated_normal_stddev(0.3)
    assert found == pytest.approx(0.3 * stats.truncnorm(-2, 2).std(), rel=1e-12)
    assert oracles.core.initializers.truncated_normal_limit(0.3) == 0.6
    assert oracles.core.initializers.fan_in_stddev((3, 3, 8, 12)) == pytest.approx(1 / math.sqrt(72))
    assert oracles.core.initializers.capsule_fan_in_stddev((1, 5, 16, 12)) == 0.25


def test_orthogonal_templates_span_the_unit_interval_in_row_order():
    q = np.linalg.qr(RNG.uniform(size=(18, 18)))[0]
    found = oracles.core.initializers.orthogonal_templates(q, 4, (3, 2), 3)
    assert found.shape == (1, 4, 3, 2, 3)
    assert (found.min(), found.max()) == (0.0, 1.0)
    kept = q[:4].reshape(found.shape)
    np.testing.assert_allclose(found, (kept - kept.min()) / (kept.max() - kept.min()), atol=1e-15)


def test_grid_axis_is_rounded_to_float32_twice():
    found = oracles.core.warp.grid_axis(40, 11)
    line = np.linspace(-1, 1, 40).astype(np.float32)
    assert (found == (line * np.float32(5.0)).astype(np.float64)).all()
    assert not (found == np.linspace(-1, 1, 40) * 5.0).all()
    assert oracles.core.warp.grid_axis(1, 11).tolist() == [-5.0]


def test_pooling_heads_differ_where_they_should():
    """Equal attention logits make attention pooling the plain mean; the reshape is no transpose."""
    n_caps, n_dims = 3, 4
    features = RNG.normal(size=(2, 2, 3, n_caps * n_dims))
    even = np.concatenate([features, np.full((2, 2, 3, n_caps), 0.7)], axis=-1)
    part_encoder = oracles.scae.part_encoder
    mean = part_encoder.spatial_mean(features)
    np.testing.assert_allclose(mean, features.mean(axis=(1, 2)), atol=1e-15)
    found = part_encoder.attention_pool(even, n_caps, n_dims)
    np.testing.assert_allclose(found, mean.reshape(2, n_caps, n_dims), atol=1e-14)
    assert not np.allclose(found, mean.reshape(2, n_dims, n_caps).transpose(0, 2, 1))


def test_clip_gradients():
    grads = [np.array([3.0, -0.2]), None, np.array([[-4.0, 0.1]])]
    clipped = oracles.core.rmsprop.clip_gradients(grads, value_clip=1.0)
    assert clipped[1] is None
    assert clipped[0].tolist() == [1.0, -0.2] and clipped[2].tolist() == [[-1.0, 0.1]]
    # Four entries: the norm 5.0045 is cut to 0.5 sqrt(4) = 1.
    clipped = oracles.core.rmsprop.clip_gradients(grads, norm_clip=0.5)
    norm = math.sqrt(sum((g * g).sum() for g in clipped if g is not None))
    assert norm == pytest.approx(1.0, rel=1e-14)
    np.testing.assert_allclose(clipped[0] / grads[0], clipped[2][0] / grads[2][0])
    unchanged = oracles.core.rmsprop.clip_gradients(grads, value_clip=9.0, norm_clip=9.0)
    assert unchanged[0].tolist() == grads[0].tolist()


def test_rmsprop_constants_and_skipped_gradients():
    assert oracles.core.rmsprop.rmsprop_epsilon(128) == pytest.approx(6.103515625e-07)
    assert oracles.core.rmsprop.rmsprop_epsilon(32) == pytest.approx(9.765625e-06)
    start = {"a": np.ones(2), "dummy_vote": np.ones(2)}
    steps = [{"a": np.array([1.0, 0.0]), "dummy_vote": None}] * 2
    found = oracles.core.rmsprop.rmsprop(start, steps, lr=0.1, epsilon=0.0)
    # ms stays one for g = 1, so the steps are lr and lr + 0.9 lr.
    np.testing.assert_allclose(found["a"], [1.0 - 0.1 - 0.19, 1.0], atol=1e-15)
    assert found["dummy_vote"].tolist() == [1.0, 1.0]


def test_weight_decay_counts_weights_by_name():
    variables = {"x/linear/w": np.array([3.0]), "y/weights": np.array([[4.0]]), "x/b": np.ones(9)}
    assert oracles.core.losses.weight_decay_loss(variables) == 12.5
    assert oracles.core.losses.weight_decay_loss(variables.values()) == 17.0


def test_log_sum_exp_of_infinities():
    x = np.array([[-np.inf, -np.inf], [0.0, -np.inf], [np.inf, 1.0]])
    assert oracles.core.ops.log_sum_exp(x, 1).tolist() == [-np.inf, 0.0, np.inf]
    assert oracles.core.ops.log_sum_exp(x, 1, keepdims=True).shape == (3, 1)
