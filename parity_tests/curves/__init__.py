"""Whether the port learns as the original learned: columns of many short runs, compared as two samples.

`bundle` holds runs, `learn` makes those of the port, `judge` compares two bundles, `figure` draws them;
`python -m parity_tests.curves` is the command. The original's runs are its own: TensorFlow 1.15, commit c3afa83.
"""
