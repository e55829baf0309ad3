"""What the capsules know about the classes: clustering with matching, probes, intervals.

Two protocols, of the presences that `port.evaluation.collected` collects. *Faithful* is the original's:
k-means is refitted on the very split it scores (Q26). *Clean* fits k-means and its matching on the training
split and applies both to the test split.

SciPy and scikit-learn are imported where they are used: they take a second and 90 MB, which training can do without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from port.evaluation.labels import NotMeasurable, check_features, check_finite, class_numbers, pairs

KMEANS_RESTARTS = 10  # the scikit-learn default of the original's time; today's default is 1


class Match(NamedTuple):
    """Result of `bipartite_match`: `row` (ground truth) is matched with `col` (prediction)."""

    row: np.ndarray
    col: np.ndarray
    acc: float
    num_correct: int


class Clustering(NamedTuple):
    """Accuracy of a clustering and the class given to each example."""

    acc: float
    prediction: np.ndarray


@dataclass(frozen=True)
class Accuracy:
    """Share of examples that are right, with a bootstrap interval."""

    value: float
    low: float
    high: float
    standard_error: float
    n: int


# ------------------------------------------------------------------------------------- the original

def bipartite_match(pred: Int[np.ndarray, " n"], gt: Int[np.ndarray, " n"],
                    n_classes: int | None = None,
                    presence: np.ndarray | None = None) -> Match:
    """One-to-one matching of predicted to true labels with the most agreements.

    Args:
        pred: predicted labels (clusters).
        gt: true labels.
        n_classes: labels are 0..n_classes - 1; None: the labels that occur, which may be fewer on
            one side than on the other.
        presence: examples with presence 0 are not counted, but the accuracy still divides by all.

    Returns:
        Indices into the true and the predicted labels, accuracy and number matched.

    Raises:
        ValueError: no example, labels that are no integers `[n]`, or outside 0..n_classes - 1.

    Source: original `eval.py: bipartite_match`.
    """
    from scipy.optimize import linear_sum_assignment

    pred, gt = pairs(pred, gt, n_classes)
    if n_classes is None:
        true_labels, predicted_labels = np.unique(gt), np.unique(pred)
    else:
        true_labels = predicted_labels = np.arange(n_classes)
    hit = (gt[None, None] == true_labels[:, None, None]) \
        & (pred[None, None] == predicted_labels[None, :, None])
    if presence is not None:
        hit = hit & (np.asarray(presence) != 0)
    counts = hit.sum(-1).astype(np.int32)
    row, col = linear_sum_assignment(-counts)
    num_correct = int(counts[row, col].sum())
    return Match(row, col, num_correct / gt.shape[0], num_correct)


def eval_segmentation(pred: Int[np.ndarray, "n points"], gt: Int[np.ndarray, "n points"],
                      presence: np.ndarray | None = None) -> float:
    """Share of present points whose capsule matches their shape, matched example by example.

    Source: original `eval.py: eval_segmentation`.
    """
    rows = presence if presence is not None else [None] * len(gt)
    correct = sum(bipartite_match(p, g, presence=r).num_correct for p, g, r in zip(pred, gt, rows))
    return correct / float(np.sum(presence) if presence is not None else np.size(gt))


def cluster_classify(features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"],
                     n_classes: int, kmeans: Any) -> Clustering:
    """Cluster accuracy after matching; **refits** the k-means it is given on these features (Q26).

    Raises:
        ValueError: labels that are no classes.
        NotMeasurable: fewer examples than clusters, or features that are not finite.

    Source: original `eval.py: cluster_classify`.
    """
    labels = class_numbers(labels, n_classes)
    check_clusters(features, labels, n_classes)
    cluster = kmeans.fit(features).predict(features)
    match = bipartite_match(cluster, labels, n_classes)
    return Clustering(match.acc, class_of_cluster(match, n_classes)[cluster])


# --------------------------------------------------------------------------------------- protocols

def new_kmeans(n_classes: int, seed: int) -> Any:
    """scikit-learn's `KMeans` as the original meant it: k-means++, ten restarts, 1,000 iterations, seeded."""
    from sklearn.cluster import KMeans

    return KMeans(n_classes, n_init=KMEANS_RESTARTS, max_iter=1000, random_state=seed)


def class_of_cluster(match: Match, n_classes: int) -> Int[np.ndarray, " clusters"]:
    """Class matched with each cluster, -1 where there is none."""
    classes = np.full(n_classes, -1)
    classes[match.col] = match.row
    return classes


def check_clusters(features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], n_classes: int,
                   what: str = "features") -> None:
    """Refuse what k-means cannot part.

    Raises:
        NotMeasurable: fewer examples than clusters, or features that are not finite.
    """
    check_features(features, labels, what)
    if len(features) < n_classes:
        raise NotMeasurable(f"{len(features)} examples are fewer than {n_classes} clusters")


def cluster_transfer(train: Float[np.ndarray, "n d"], train_labels: Int[np.ndarray, " n"],
                     test: Float[np.ndarray, "m d"], test_labels: Int[np.ndarray, " m"],
                     n_classes: int, seed: int) -> Clustering:
    """Clean protocol: k-means and matching from the training split, applied to the test split.

    Raises:
        ValueError: labels that are no classes.
        NotMeasurable: fewer training examples than clusters, or features that are not finite.
    """
    train_labels = class_numbers(train_labels, n_classes, "training labels")
    test_labels = class_numbers(test_labels, n_classes, "test labels")
    check_clusters(train, train_labels, n_classes, "training features")
    check_features(test, test_labels, "test features")
    kmeans = new_kmeans(n_classes, seed).fit(train)
    match = bipartite_match(kmeans.predict(train), train_labels, n_classes)
    prediction = class_of_cluster(match, n_classes)[kmeans.predict(test)]
    return Clustering(float(np.mean(prediction == test_labels)), prediction)


def logistic_probe(train: Float[np.ndarray, "n d"], train_labels: Int[np.ndarray, " n"],
                   test: Float[np.ndarray, "m d"]) -> Int[np.ndarray, " m"]:
    """Class of each test row by a logistic regression on standardised training features.

    Raises:
        ValueError: labels that are no class numbers.
        NotMeasurable: training labels of one class alone, or features that are not finite.
    """
    train_labels = class_numbers(train_labels, None, "training labels")
    check_features(train, train_labels, "training features")
    check_finite(test, "test features")
    if len(np.unique(train_labels)) < 2:
        raise NotMeasurable("all training examples are of one class, there is nothing to tell apart")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # float64, since presences of an untrained model can differ by less than float32 resolves.
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return model.fit(train.astype(np.float64), train_labels).predict(test.astype(np.float64))


def tsne(features: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n 2"]:
    """Places of the examples in the plane by t-SNE, from the principal components, seeded.

    Raises:
        NotMeasurable: fewer than three examples or two features, not finite, or without spread, where
            scikit-learn ends in a segmentation fault.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    check_finite(features, "features")
    if len(features) < 3 or features.shape[1] < 2:
        raise NotMeasurable(f"{len(features)} examples of {features.shape[1]} features make no map; three "
                            "of two are the least")
    # Where it begins, scaled to the spread along the first component: without one, NaN and a crash.
    with np.errstate(all="ignore"):
        components = PCA(2, svd_solver="randomized", random_state=seed)
        start = components.fit_transform(features.astype(np.float64))
        spread = np.std(start[:, 0])
        if not np.isfinite(np.sum(np.square(start))):
            raise NotMeasurable("the distances of the features are beyond what a float holds")
        if not (np.isfinite(start / spread).all() and spread > 0):
            raise NotMeasurable(f"the features of all {len(features)} examples are the same: no spread")
    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        features.astype(np.float64)).astype(np.float64)


def bootstrap_interval(correct: np.ndarray, seed: int = 0, n_draws: int = 2000,
                       level: float = 0.95) -> Accuracy:
    """Accuracy with its percentile bootstrap interval over the examples.

    Args:
        correct: one value per example, true where it is right.
        seed: of the draws.
        n_draws: bootstrap samples.
        level: share of the draws inside the interval.

    Returns:
        Value, interval and the standard error sqrt(p(1 - p)/n).
    """
    correct = np.asarray(correct, np.float64)
    n, value = len(correct), float(correct.mean())
    # How often right examples occur in a sample of n drawn with replacement is binomial.
    draws = np.random.default_rng(seed).binomial(n, value, n_draws) / n
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Accuracy(value, float(low), float(high), float(np.sqrt(value * (1 - value) / n)), n)


def seeds_interval(values: list[float], counts: list[int], seed: int = 0, n_draws: int = 10_000,
                   level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean over seeds, by a bootstrap over seeds and over examples.

    Each draw takes as many seeds as there are, with replacement; within each, n examples with
    replacement, of which Binomial(n, p) are right. All seeds are scored on the same images, so a
    sample of images that is easy for one is taken to be easy for all: one quantile u is drawn and
    every seed taken has F⁻¹(u; n, p) right. That is perfect correlation, the most that common
    images can widen the interval. Few seeds make the bootstrap over them too narrow, by about
    √((S - 1)/S); with one seed the interval is over its examples alone.

    Args:
        values: accuracy p of each seed.
        counts: number of examples n of each.
        seed: of the draws.
        n_draws: bootstrap samples.
        level: share of the draws inside the interval.

    Returns:
        Lower and upper end.
    """
    from scipy.stats import binom

    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(values), size=(n_draws, len(values)))
    quantile = (rng.permutation(n_draws) + 0.5) / n_draws
    right = np.stack([binom.ppf(quantile, n, p) / n for n, p in zip(counts, values)], axis=1)
    means = np.take_along_axis(right, chosen, axis=1).mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def exceeds(new: Accuracy, old: Accuracy) -> float:
    """By how many standard errors of the difference `new` is above `old`.

    Both are taken as independent, which overstates the error where they share examples. An accuracy
    of 0 or 1 has no spread of its own; half an example is then taken for it.
    """
    errors = [max(a.standard_error, 0.5 / a.n) for a in (new, old)]
    return (new.value - old.value) / float(np.hypot(*errors))
