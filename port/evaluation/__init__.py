"""What a trained model is measured by: clusters, classifiers, class capsules, parts, points, and what is alive."""
