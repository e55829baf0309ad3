"""What the files hold: read from a model that is converted for the purpose, committed results and a recording."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.numpy

from pipelines import cli
from pipelines.pages.command_line import ROOT
from pipelines.pages.text import cell, table

RECORDING = ROOT / "parity_tests/fixtures/goldens/options/enc_linear"
MODEL_FILES = {
    "model.safetensors": "The weights, under the port's names and in PyTorch's layouts.",
    "config.json": "The whole configuration; a setting that nobody told is `\"unset\"`.",
    "README.md": "The model card: where the weights come from, what was proven, and the numbers.",
    "optimizer.safetensors": "The optimizer's slots and step, where the checkpoint had them; of a large run in parts, "
                             "`optimizer-00001.safetensors` and so on.",
}
RUN_FILES = {
    "train/digits/0/config.json": "What `scae train` was told, everything resolved.",
    "train/digits/0/environment.json": "What it ran on.",
    "train/digits/0/metrics.json": "The last scalars of training and how long it took.",
    "evaluate/digits/0/metrics.json": "Accuracies and likelihoods, at step 0 and at the end, under both protocols.",
    "aggregate/digits/metrics.json": "Mean, deviation, interval and verdict over the seeds.",
}


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "object with " + ", ".join(f"`{key}`" for key in list(value)[:8]) + (", …" if len(value) > 8 else "")
    if isinstance(value, list):
        return f"list of {len(value)}"
    return f"`{cell(json.dumps(value)[:60])}`"


def _keys(values: Mapping[str, Any]) -> str:
    return table(("key", "holds, for instance"), [(f"`{key}`", _kind(value)) for key, value in values.items()])


def model_section() -> str:
    """A converted model's folder, from one that is made here."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "OUT"
        with contextlib.redirect_stdout(io.StringIO()):
            code = cli.main(["convert", str(RECORDING / "checkpoint"), str(out), "--no-verify", "--config",
                             str(RECORDING / "manifest.json")])
        if code:
            raise RuntimeError(f"the recorded checkpoint {RECORDING} could not be converted")
        files = {path.name for path in out.iterdir()}
        if files != set(MODEL_FILES):
            raise RuntimeError(f"a model's folder holds {sorted(files)}, described are {sorted(MODEL_FILES)}")
        weights = safetensors.numpy.load_file(out / "model.safetensors")
        slots = safetensors.numpy.load_file(out / "optimizer.safetensors")
        config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    rows = [(f"`{name}`", str(list(value.shape)), str(value.dtype)) for name, value in weights.items()]
    return f"""## A model's folder

`scae convert`, `port.save` and the train stage (in its subfolder `model`) write it; `port.load` reads it. No file holds
pickled Python, so a folder from a stranger can be read without running anything.

{table(("file", "holds"), [(f"`{name}`", words) for name, words in MODEL_FILES.items()])}
`config.json` has the sections of the [configuration](configuration.md) with the original's argument names:

{_keys(config)}
`optimizer.safetensors` has {len(slots)} arrays for the {len(weights)} of the model; for instance
{", ".join(f"`{name}`" for name in sorted(slots)[:3])}.

??? note "The arrays of `model.safetensors`, for a model with 4 parts, 3 objects and a linear part encoder"

{_indented(table(("name", "shape", "type"), rows))}
"""


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def results_section() -> str:
    """JSON files of the default pipeline, as committed."""
    parts = ["""## Results

Every stage writes below `results/<stage>/<preset>/<seed>/`. JSON files are small and are committed; models, pictures
and curves stay in DVC's cache. The values shown are those of the committed run of `digits`, seed 0.
"""]
    for name, words in RUN_FILES.items():
        found = json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))
        parts.append(f"### `results/{name}`\n\n{words}\n\n{_keys(found)}")
    return "\n".join(parts)


def page() -> str:
    """The page of file formats."""
    return "\n".join(["""# File formats

This page is written by `python -m pipelines.pages` from real files when the site is built. Recordings have a page of
their own: [taps and recordings](taps.md).
""", model_section(), results_section()])


def taps_page() -> str:
    """Every tap of an image model with its shape, the original's tensor and what it is."""
    manifest = json.loads((RECORDING / "manifest.json").read_text(encoding="utf-8"))
    files = table(("file or entry", "holds"), [(f"`{name}`", cell(words)) for name, words in manifest["files"].items()])
    keys = ", ".join(f"`{key}`" for key in manifest)
    rows = [(f"`{name}`", cell(entry["doc"]), str(entry["shape"]), f"`{entry['tf_name']}`")
            for name, entry in manifest["forward_entries"].items() if not name.startswith(("raw/", "mod/"))]
    return f"""# Taps and recordings

A *tap* is an intermediate value of a model under a fixed name. Reference and port fill the same taps in the same order
of computation, so the first tap that differs names the bug. `model(image, taps=True).taps` has them in Python.

A *recording* (golden) is a folder of what the original program computed, tap by tap. `scae record` writes one from the
reference, and `scae verify --golden DIR` holds a converted model to one.

## A recording's files

The example is `parity_tests/fixtures/goldens/options/enc_linear`: batches of 4 images of 31×31 pixels, 4 parts with
templates of 7×7 pixels, 3 objects.

{files}
`manifest.json` says what was recorded and how; its keys are {keys}.

## The taps of an image model

Shapes are those of the example: `[4, 3, 4, 6]`, say, is [batch, objects, parts, numbers of a pose]. Images and
embeddings have their channels last on both sides. The last column is the name of the tensor in the original's graph.

{table(("tap", "what it is", "shape", "in the original"), rows)}"""
