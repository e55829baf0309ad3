"""Stages of the pipelines (one file each, named as in dvc.yaml) and the command line `scae`.

Stage name = file name = section of params.yaml = folder below results/. TensorFlow is imported only
by the commands that need the reference.
"""
