"""`scae record`: a folder of recordings of a checkpoint, written by the reference.

Of the format of the recordings of the original program (`manifest.json` and `.npz` files), so that
`scae verify --golden` and `pytest` take it: evidence for a checkpoint that cannot be shown, and what
a machine without TensorFlow is checked against.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

import port
from parity_tests.harness import models
from pipelines.checkpoints import child, original, proof
from pipelines.convert import refuse_nonfinite
from pipelines.support.values import BadInput
from port.checkpoints import convert
from port.checkpoints.strangers import Choices
from port.config import AnyConfig
from port.configuration.fields import unknown
from port.constellation import data as constellation_data
from port.core import rmsprop

DTYPES = ("float64", "float32")
N_STEPS = 5
BATCH = 4
RATE = {"lr": 1e-4, "decay": 0.9, "momentum": 0.9}  # the original's defaults

Arrays = dict[str, np.ndarray]


def run(source: str, out: str, batch: str | None = None, dtype: str = "float64", preset: str | None = None,
        config: str | None = None, seed: int = 0, params: str = "params.yaml",
        choices: Choices | None = None) -> None:
    """Record forward passes, gradients and steps, with and without noise; TensorFlow runs in a child.

    Raises:
        BadInput: the checkpoint, the configuration or the batch cannot be used, the folder is not empty,
            or TensorFlow is not installed.
    """
    with original.in_words():
        port.read_checkpoint(source)  # what is not there is said at once
    child.ask("record", source=source, out=out, batch=batch, dtype=dtype, preset=preset, config=config,
              seed=seed, params=params, choices=(choices or Choices()).as_json())


def record(source: str, out: str, batch: str | None, dtype: str, preset: str | None, config: str | None,
           seed: int, params: str, choices: dict) -> None:
    """The recording itself, where TensorFlow is."""
    if dtype not in DTYPES:
        raise BadInput(f"--dtype: {unknown('type', dtype, DTYPES)}")
    found = original.read(source, Choices(**choices))
    sorted_out = found.sorted_out()
    told = {} if config is None else original.read_mapping(config)
    said, default = original.given_configuration(preset, config, params, sorted_out.variables, told)
    refuse_nonfinite(sorted_out, False, found.prefix)
    with original.in_words(str(found.prefix)):
        configuration = convert.configuration_of(sorted_out, said, default)
    if configuration.kind not in models.INPUTS:
        raise BadInput(f"{found.prefix}: recordings of model {configuration.kind} are of single functions "
                       "(docs/routing_ancestors.md); record makes those of the autoencoders")
    batches = read_batches(batch, configuration) if batch else draw_batches(configuration, seed)
    with original.staged(Path(out)) as folder, original.in_words(out):
        recorder = Recorder(folder, configuration, sorted_out.variables, sorted_out.slots, batches, dtype,
                            original.training_constants(config, told, RATE), seed)
        recorder.forward()
        recorder.steps()
        copy_checkpoint(found, folder)
        manifest = recorder.manifest() | {
            "config": Path(out).name, "checkpoint": f"checkpoint/{found.prefix.name}",
            "checkpoint_sha256": found.digest, "global_step_at_load": sorted_out.step}
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    print(f"{out}: recorded from the reference in {dtype}: {', '.join(sorted(recorder.files))}")


def draw_batches(config: AnyConfig, seed: int) -> Arrays:
    """Random images and labels, `[N_STEPS, BATCH, …]`, channels last; or random constellations."""
    if config.kind == "constellation":
        drawn = constellation_data.create(np.random.RandomState(seed), N_STEPS * BATCH)._asdict()
        return {name: value.reshape(N_STEPS, BATCH, *value.shape[1:]) for name, value in drawn.items()}
    rng = np.random.default_rng(seed)
    batches = {"image": rng.random((N_STEPS, BATCH, config.canvas, config.canvas, config.channels)
                                   ).astype(np.float32)}
    if config.autoencoder.probe:
        batches["label"] = rng.integers(0, config.autoencoder.n_classes, (N_STEPS, BATCH))
    return batches


def read_batches(path: str, config: AnyConfig) -> Arrays:
    """Batches of a file: `image` `[n, B, S, S, C]`, or one `[B, S, S, C]` that serves every step.

    Raises:
        BadInput: it cannot be read, or its images do not fit the configuration.
    """
    names = models.INPUTS[config.kind]
    try:
        with np.load(path, allow_pickle=False) as archive:
            given = {name: archive[name] for name in names if name in archive.files}
    except Exception as error:  # a damaged archive fails in many ways inside zipfile and NumPy
        raise BadInput(f"{path}: cannot be read as .npz ({' '.join(str(error).split())})") from None
    if names[0] not in given:
        raise BadInput(f"{path}: no array {names[0]!r}")
    if config.kind == "constellation":
        return _constellations(path, given)
    side = (config.canvas, config.canvas, config.channels)
    if given["image"].ndim == 4:
        given = {name: np.repeat(array[None], N_STEPS, 0) for name, array in given.items()}
    image = given["image"]
    if image.ndim != 5 or image.shape[2:] != side or not image.size:
        raise BadInput(f"{path}: 'image' is {list(image.shape)}, expected [batches, examples, "
                       f"{', '.join(map(str, side))}]")
    if not np.issubdtype(image.dtype, np.floating) or not (image.min() >= 0 and image.max() <= 1):
        raise BadInput(f"{path}: 'image' must hold floating numbers from 0 to 1")
    label = given.get("label")
    if config.autoencoder.probe and label is None:
        raise BadInput(f"{path}: no array 'label', which the model's probes need")
    if label is not None and (label.shape != image.shape[:2] or not np.issubdtype(label.dtype, np.integer)
                              or label.min() < 0 or label.max() >= config.autoencoder.n_classes):
        raise BadInput(f"{path}: 'label' must be integers {list(image.shape[:2])} from 0 to "
                       f"{config.autoencoder.n_classes - 1}")
    given["image"] = image.astype(np.float32)
    return given


def _constellations(path: str, given: Arrays) -> Arrays:
    """Points `[n, B, M, 2]`, or one batch that serves every step, with presences or without."""
    if given["corners"].ndim == 3:
        given = {name: np.repeat(array[None], N_STEPS, 0) for name, array in given.items()}
    corners, presence = given["corners"], given.get("presence")
    if corners.ndim != 4 or corners.shape[3] != 2 or not corners.size or not np.isfinite(corners).all():
        raise BadInput(f"{path}: 'corners' is {list(corners.shape)}, expected [batches, examples, points, "
                       "2], finite")
    if presence is not None and presence.shape != corners.shape[:3]:
        raise BadInput(f"{path}: 'presence' is {list(presence.shape)}, expected {list(corners.shape[:3])}")
    return {name: array.astype(np.float32) for name, array in given.items()}


def copy_checkpoint(found: original.Original, folder: Path) -> None:
    """The checkpoint's files beside the recordings, under their names."""
    target = folder / "checkpoint"
    target.mkdir()
    for file in found.files:
        shutil.copyfile(file, target / file.name)
    (target / "checkpoint").write_text(f'model_checkpoint_path: "{found.prefix.name}"\n', encoding="utf-8")


class Recorder:
    """Runs the reference and writes what it computes."""

    def __init__(self, folder: Path, config: AnyConfig, variables: Arrays, slots: Arrays, batches: Arrays,
                 dtype: str, constants: dict[str, float], seed: int) -> None:
        self.folder, self.config, self.variables, self.slots = folder, config, variables, slots
        self.batches, self.dtype = batches, dtype
        self.files: dict[str, str] = {}
        self.seen = models.INPUTS[config.kind][0]
        n_steps, batch = batches[self.seen].shape[:2]
        self.rmsprop = {"decay": constants["decay"], "momentum": constants["momentum"],
                        "epsilon": constants.get("epsilon", rmsprop.rmsprop_epsilon(
                            int(constants.get("batch_size", batch)))), "centered": False}
        self.lr = constants["lr"]
        generator = torch.Generator().manual_seed(seed)
        draws = [port.Noise.draw(generator, config, batch).raw for _ in range(n_steps)]
        self.noise = {f"raw_{j}": np.stack([raw[j].numpy() for raw in draws]) for j in range(len(draws[0]))}
        self.no_gradient: list[str] = []
        self.entries: dict[str, dict[str, Any]] = {}
        self.write("batches.npz", batches, f"[{n_steps}, B, …]; forward and gradients use batch 0")
        if self.noise:
            self.write("noise_samples.npz", self.noise, f"raw_j [{n_steps}, B, …]")

    def write(self, file: str, arrays: Arrays, what: str) -> None:
        """One file of the folder."""
        np.savez_compressed(self.folder / file, **arrays)
        self.files[file] = what

    def draws(self, variant: str, step: int) -> list[np.ndarray] | None:
        """Raw draws of a step in order; None without noise."""
        return [raw[step] for raw in self.noise.values()] if variant == "noise" else None

    def forward(self) -> None:
        """Taps and gradients on batch 0."""
        infix = "64" if self.dtype == "float64" else ""
        inter = models.inter_of(self.config.to_arguments())
        for variant in ("nonoise", "noise") if self.noise else ("nonoise",):
            model = proof.build("reference", self.config, self.variables, self.dtype)
            outcome = models.forward("reference", model, *models.inputs_of(self.batches, 0),
                                     self.draws(variant, 0), self.dtype, inter)
            drawn = self.noise if variant == "noise" else {}
            self.write(f"forward{infix}_{variant}.npz",
                       outcome.taps | {f"noise/{name}": raw[0] for name, raw in drawn.items()},
                       f"taps, {self.dtype}, batch 0")
            self.write(f"grads{infix}_{variant}.npz",
                       {name: grad for name, grad in outcome.gradients.items() if grad is not None},
                       "var/<name>: d total loss / d variable; inter/<tap>: d total loss / d intermediate")
            self.no_gradient = [name.removeprefix("var/") for name, grad in outcome.gradients.items()
                                if grad is None and name.startswith("var/")]
            self.entries = {name: {"shape": list(np.shape(tap)), "dtype": str(np.asarray(tap).dtype)}
                            for name, tap in outcome.taps.items()}

    def steps(self) -> None:
        """Training steps from the checkpoint's slots, where it has them, and from fresh ones."""
        n_steps = min(N_STEPS, len(self.batches[self.seen]))
        runs = [("history_fresh_slots.npz", "nonoise", {})]
        if self.slots:
            runs.append(("history_ckpt.npz", "nonoise", self.slots))
            if self.noise:
                runs.append(("history_ckpt_noise.npz", "noise", self.slots))
        for file, variant, slots in runs:
            model = proof.build("reference", self.config, self.variables, self.dtype)
            step = models.optimizer_step("reference", model, self.lr, self.rmsprop, slots)
            scalars: list[Arrays] = []
            for i in range(n_steps):
                outcome = models.forward("reference", model, *models.inputs_of(self.batches, i),
                                         self.draws(variant, i), self.dtype, taps=False)
                scalars.append(outcome.taps)
                step(outcome)
            self.write(file, {name: np.stack([s[name] for s in scalars]) for name in scalars[0]},
                       "scalars at each step, before update i")
            if file == "history_ckpt.npz":
                self.write(f"vars_ckpt_after{n_steps}.npz", models.variables_of("reference", model),
                           f"variables after {n_steps} steps, no noise, slots from the checkpoint")

    def manifest(self) -> dict[str, Any]:
        """What the folder holds and how it was made."""
        plan = port.noise_plan(self.config)
        return {
            "recorded_by": f"reference of scae-port {port.__version__}, {self.dtype}",
            "batch": int(self.batches[self.seen].shape[1]), "arguments": self.config.to_arguments(),
            "lr": self.lr, "rmsprop": self.rmsprop,
            "noise": [{"use": draw.use, "kind": draw.kind, "shape": list(raw.shape[1:])}
                      for draw, raw in zip(plan, self.noise.values(), strict=True)],
            "no_gradient": self.no_gradient,
            "trainable_variables": [[name, list(array.shape)] for name, array in self.variables.items()],
            "forward_entries": self.entries, "files": self.files}
