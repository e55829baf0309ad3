"""Evaluation against the recordings of the original and against brute force.

`bipartite_match`, `eval_segmentation` and `cluster_classify` have no TensorFlow side: the original
wrote them in NumPy, so the recordings and a search over all permutations are the two witnesses.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.cluster import KMeans

from parity_tests import goldens
from port import evaluate

RECORDS = [record for record in goldens.records()
           if record.ok and record.entry.get("group") == "eval"]


def of(*functions: str) -> list:
    found = [record for record in RECORDS if record.function in functions]
    return [pytest.param(record, id=record.key) for record in found]


def test_recordings_are_there():
    assert {record.function for record in RECORDS} == {
        "bipartite_match", "bipartite_match_auto", "eval_segmentation", "cluster_classify"}


@pytest.mark.golden
@pytest.mark.parametrize("record", of("bipartite_match", "bipartite_match_auto"))
def test_bipartite_match_equals_the_recording(record):
    arrays = record.arrays()
    given, expected = arrays["in"], arrays["out"]
    match = evaluate.bipartite_match(given["pred"], given["gt"],
                                     n_classes=record.entry["attrs"]["n_classes"],
                                     presence=given.get("presence"))
    np.testing.assert_array_equal(match.row, expected["row"])
    np.testing.assert_array_equal(match.col, expected["col"])
    assert match.num_correct == expected["num_correct"]
    assert match.acc == expected["acc"]


@pytest.mark.golden
@pytest.mark.parametrize("record", of("eval_segmentation"))
def test_eval_segmentation_equals_the_recording(record):
    arrays = record.arrays()
    given = arrays["in"]
    accuracy = evaluate.eval_segmentation(given["pred"], given["gt"], given["presence"])
    assert np.float32(accuracy) == arrays["out"]["acc"]


@pytest.mark.golden
@pytest.mark.parametrize("record", of("cluster_classify"))
def test_cluster_classify_equals_the_recording(record):
    arrays = record.arrays()
    given, expected = arrays["in"], arrays["out"]
    kmeans = KMeans(10, max_iter=1000, n_init=1, init=given["init"])
    kmeans.fit(np.roll(given["features"], 1, axis=0) + 1)  # must not matter: it is refitted
    result = evaluate.cluster_classify(given["features"], given["gt"], 10, kmeans)
    np.testing.assert_array_equal(kmeans.predict(given["features"]), expected["pred"])
    np.testing.assert_allclose(kmeans.cluster_centers_, expected["centers"], rtol=0, atol=1e-5)
    assert np.float32(result.acc) == expected["acc"]
    assert np.isclose(np.mean(result.prediction == given["gt"]), result.acc)


@pytest.mark.parametrize("seed", range(20))
def test_bipartite_match_finds_the_best_permutation(seed):
    rng = np.random.default_rng(seed)
    n_classes, n = int(rng.integers(2, 6)), int(rng.integers(1, 40))
    pred, gt = rng.integers(0, n_classes, (2, n))
    best = max(np.sum(np.asarray(order)[pred] == gt)
               for order in itertools.permutations(range(n_classes)))
    match = evaluate.bipartite_match(pred, gt, n_classes)
    assert (match.num_correct, match.acc) == (best, best / n)
    classes = evaluate.class_of_cluster(match, n_classes)
    assert np.sum(classes[pred] == gt) == best


def test_presence_removes_examples_but_not_from_the_denominator():
    gt = np.array([0, 0, 1, 1])
    match = evaluate.bipartite_match(1 - gt, gt, 2, presence=np.array([1.0, 0.0, 1.0, 1.0]))
    assert (match.num_correct, match.acc) == (3, 0.75)


def test_more_clusters_than_classes_stay_unmatched():
    match = evaluate.bipartite_match(np.array([0, 1, 2, 2]), np.array([5, 5, 7, 7]))
    assert (len(match.row), match.num_correct) == (2, 3)


def test_clean_protocol_does_not_look_at_the_test_split():
    """Test rows far from their own class get the class of the training cluster they lie in."""
    centres = np.array([[0.0, 0.0], [10.0, 0.0]])
    labels = np.arange(40) % 2
    train = centres[labels] + np.random.default_rng(0).normal(size=(40, 2))
    clean = evaluate.cluster_transfer(train, labels, centres[1 - labels], labels, 2, seed=0)
    assert clean.acc == 0.0
    refitted = evaluate.cluster_classify(centres[1 - labels], labels, 2,
                                         evaluate.new_kmeans(2, seed=0))
    assert refitted.acc == 1.0


def test_logistic_probe_separates_what_is_separable():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    features = np.eye(3, dtype=np.float32)[labels] * 1e-6 + 0.5
    np.testing.assert_array_equal(
        evaluate.logistic_probe(features, labels, features), labels)


def test_bootstrap_interval_is_seeded_and_covers():
    correct = np.random.default_rng(1).random(400) < 0.7
    first, again, other = (evaluate.bootstrap_interval(correct, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first.low < first.value < first.high
    assert np.isclose(first.high - first.low, 2 * 1.96 * first.standard_error, rtol=0.15)


def test_exceeds_counts_standard_errors():
    low, high = (evaluate.bootstrap_interval(np.arange(100) < right) for right in (20, 60))
    assert np.isclose(evaluate.exceeds(high, low), 0.4 / np.hypot(0.04, np.sqrt(0.24 / 100)))
    none = evaluate.bootstrap_interval(np.zeros(100))
    assert evaluate.exceeds(none, none) == 0
