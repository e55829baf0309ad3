"""Deterministic mode: the same training twice leaves the same bits, stopped in between or not."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch

import port
from parity_tests.device.checks import Check, Skipped
from parity_tests.harness import runs
from parity_tests.harness.compare import ParityError
from port.training import loop as train
from port.training import resume

# Small models of each family whose layers or kernels are its own, as flat configuration keys.
CAPSNET = {"model": "capsnet", "canvas": 16, "kernel": 5, "conv1_channels": 4, "primary_types": 2,
           "primary_atoms": 3, "class_atoms": 4, "decoder": [6]}
EM = {"model": "em", "canvas": 18, "channels": 4, "types": [2, 3, 3], "classes": 10}
FAMILIES: dict[str, dict[str, Any]] = {
    "scae": runs.TINY, "scae without alpha": runs.TINY | {"use_alpha_channel": False},
    "scae of edges": runs.TINY | {"target": "sobel"}, "capsnet": CAPSNET, "em": EM}
STEPS = 6


def checks() -> list[Check]:
    """One a family, and the whole loop of the image model on the rungs that a GPU has."""
    found = [Check(f"repeat/{name}", functools.partial(_twice, keys, {}), short=name != "em")
             for name, keys in FAMILIES.items()]
    found += [Check(f"repeat/{name}, stopped and continued", functools.partial(_continued, FAMILIES[name]))
              for name in ("scae", "capsnet")]
    found.append(Check("repeat/scae in bf16", functools.partial(_twice, runs.TINY, {"amp": "bf16"}), False))
    return found


def _twice(keys: dict[str, Any], changed: dict[str, Any], device: str) -> float:
    if changed.get("amp") and device == "pretended":
        raise Skipped("autocast knows no pretended device")
    one, other = (trained(keys, device, **changed) for _ in range(2))
    differing = runs.differing(one, other)
    if differing:
        raise ParityError(f"deterministic mode on {device}: {len(differing)} of {len(one)} tensors are not "
                          f"the same bits after {STEPS} steps, {differing[0]} first")
    return 0.0


def _continued(keys: dict[str, Any], device: str) -> float:
    """A checkpoint in the middle, taken up by a new process's worth of objects."""
    whole = trained(keys, device)
    with tempfile.TemporaryDirectory() as folder:
        trained(keys, device, Path(folder), steps=STEPS // 2)
        differing = runs.differing(trained(keys, device, Path(folder)), whole)
    if differing:
        raise ParityError(f"stopped at step {STEPS // 2} of {STEPS} on {device}: {len(differing)} of "
                          f"{len(whole)} tensors are not the same bits, {differing[0]} first")
    return 0.0


def trained(keys: dict[str, Any], device: str, folder: Path | None = None, **changed: Any
            ) -> dict[str, torch.Tensor]:
    """Every weight and slot after a few steps in deterministic mode, on the CPU."""
    settings = {"steps": STEPS, "deterministic": True, "log_every": 3, "capture": "never",
                "held_out_every": 3, "held_out_images": 16} | changed
    if "model" in keys:
        settings |= {"optimizer": "tf-adam", "noise": False}
    model = port.build(port.config.from_flat(keys), seed=1).to(device)
    done = train.train(model, runs.dataset().to(device), runs.settings(**settings), folder)
    left = dict(model.state_dict()) | resume.read_slots(model, done.optimizer)
    return {name: value.detach().cpu().clone() for name, value in left.items()}
