"""Oracle of the linear classification probe."""

from collections.abc import Mapping

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.core import layers
from parity_tests.oracles.scalars import as64, sub_scope


def probe_logits(features, variables: Mapping[str, np.ndarray]) -> np.ndarray:
    """features w + b.

    Args: features [B, O]; variables linear/w [O, n_classes], linear/b. Returns [B, n_classes].
    Source: probe.py, classification_probe.
    """
    return layers.linear(features, sub_scope(variables, "linear"))


def classification_probe(
    features, labels, variables: Mapping[str, np.ndarray], labeled=None
) -> tuple[np.float64, np.float64]:
    """Softmax cross-entropy and accuracy of a linear map of the features.

    xe = sum_b labeled_b (lse(z_b) - z_b[label_b]) / B, divided by the whole batch whatever is
    labeled; acc = mean_b [argmax z_b = label_b], which ignores `labeled`.
    Args: features [B, O]; labels int [B]; variables linear/w, linear/b; labeled [B] or None.
    Returns (xe, acc).
    Source: probe.py, classification_probe.
    """
    features = as64(features)
    logits = probe_logits(features, variables)
    n_examples = logits.shape[0]
    xe, correct = 0.0, 0
    for b in range(n_examples):
        row, label = logits[b].tolist(), int(labels[b])
        own = scalars.log_sum_exp(row) - row[label]
        xe += own if labeled is None else own * float(labeled[b])
        correct += 1 if scalars.argmax(row) == label else 0
    return np.float64(xe / n_examples), np.float64(correct / n_examples)
