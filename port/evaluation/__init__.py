"""What the metrics need: labels that are classes, and a word for what cannot be measured."""
