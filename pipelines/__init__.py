"""Stages of the pipelines (one file each, named as in dvc.yaml) and the command line `scae`.

A stage has the name of its file, of its section of params.yaml and of its folder below results/; some have an ending
that says for which presets they are (`train_routing`). TensorFlow is imported only by the commands that need the
reference.
"""
