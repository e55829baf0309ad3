"""Labels and features as the metrics take them.

A clustering is matched class by class: labels 1..10 read as 0..9 would lose a class and score a perfect
clustering with 0.9. So every metric looks at its labels here first. What is sound but cannot be measured
(one class, fewer examples than clusters) is `NotMeasurable`, which a stage writes down as its reason.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from port.core.inputs import NO_LABEL


class NotMeasurable(ValueError):
    """A measure that these examples do not have; the message is the reason, one clause."""


def class_numbers(labels: Any, n_classes: int | None = None, what: str = "labels"
                  ) -> Int[np.ndarray, "*shape"]:
    """Labels as an array of class numbers.

    Args:
        labels: integers `[n]`.
        n_classes: they must lie in 0..n_classes - 1; None: any integers, which are classes by name.
        what: the argument's name, for the message.

    Returns:
        The array as it was given.

    Raises:
        ValueError: no example, one-hot rows, a column, floats, or a number outside the classes.
        NotMeasurable: every label says that there is none.
    """
    labels = np.asarray(labels)
    if labels.ndim == 1 and len(labels) and (labels == NO_LABEL).all():
        raise NotMeasurable("the images have no labels")
    if labels.ndim != 1:
        hint = ""
        if labels.ndim == 2:
            hint = "; give labels[:, 0]" if labels.shape[1] == 1 \
                else "; of one-hot rows give labels.argmax(1)"
        raise ValueError(f"{what}: expected one class number an example, shape [n], got "
                         f"{list(labels.shape)}{hint}")
    if not len(labels):
        raise ValueError(f"{what}: no examples; give at least one")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{what}: expected integers, got {labels.dtype}")
    if n_classes is not None and not (labels.min() >= 0 and labels.max() < n_classes):
        hint = "; subtract 1 from labels that begin at 1" \
            if labels.min() > 0 and labels.max() == n_classes else ""
        raise ValueError(f"{what}: expected class numbers in 0..{n_classes - 1}, got {labels.min()} to "
                         f"{labels.max()}{hint}")
    return labels


def pairs(predicted: Any, labels: Any, n_classes: int | None = None
          ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Predicted and true class numbers of the same examples.

    Raises:
        ValueError: as `class_numbers`, or another number of one than of the other.
    """
    predicted = class_numbers(predicted, n_classes, "predicted labels")
    labels = class_numbers(labels, n_classes, "true labels")
    if len(predicted) != len(labels):
        raise ValueError(f"{len(predicted)} predicted labels, but {len(labels)} true ones")
    return predicted, labels


def check_features(features: np.ndarray, labels: np.ndarray, what: str = "features") -> None:
    """Refuse features that are not one row of finite numbers for each label.

    Raises:
        ValueError: another shape.
        NotMeasurable: NaN or infinity, as a model with such weights gives.
    """
    if features.ndim != 2 or len(features) != len(labels):
        raise ValueError(f"{what}: expected a row for each of {len(labels)} labels, got shape "
                         f"{list(features.shape)}")
    if not features.shape[1]:
        raise ValueError(f"{what}: rows of no numbers")
    check_finite(features, what)


def check_finite(values: np.ndarray, what: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        NotMeasurable: says how many rows hold them.
    """
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(1)
    if bad.any():
        raise NotMeasurable(f"{what} of {bad.sum()} of {len(bad)} examples hold NaN or infinity")
