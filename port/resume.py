"""All that a training step depends on, in memory and on disk: checkpoints that continue bit by bit.

A checkpoint is a folder `step-00001000` with the weights, the optimizer's slots, the states of the
three generators and the history. It is written under a temporary name and renamed, so there is
never half of one; the older one is removed afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from port import data, optim

FILE_LIMIT = 15 * 2**20  # bytes of tensors in one file; larger sets are written in parts


class NonFiniteLoss(ArithmeticError):
    """A scalar became NaN or infinite; the last checkpoint still holds finite weights."""


class State:
    """All that the next step depends on, in memory and on disk."""

    def __init__(self, model: torch.nn.Module, optimizer: optim.RMSProp, batches: data.Batches,
                 noise_generator: torch.Generator):
        self.model, self.optimizer, self.batches = model, optimizer, batches
        self.noise_generator = noise_generator
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.count = 0

    def add(self, loss: Tensor, scalars: dict[str, Tensor]) -> None:
        """Add the scalars of a step to the running sums, on the device."""
        self.names = ["loss", *scalars]
        values = torch.stack([loss.detach(), *(s.detach() for s in scalars.values())])
        self.sums = values if self.sums is None else self.sums + values
        self.count += 1

    def read_means(self) -> dict[str, float]:
        """Means since the last read, as a new row of the history; the one point that waits."""
        self.check_finite()
        means = (self.sums / self.count).tolist()
        row = {"step": self.step, "seconds": round(self.seconds, 3)} | dict(zip(self.names, means))
        self.history.append(row)
        self.sums, self.count = None, 0
        return row

    def check_finite(self) -> None:
        """A NaN in any step since the last read is still in the sums."""
        if self.sums is None:
            return
        sums = zip(self.names, self.sums.tolist())
        bad = [name for name, value in sums if not np.isfinite(value)]
        if bad:
            raise NonFiniteLoss(f"{', '.join(bad)} not finite between step "
                                f"{self.step - self.count + 1} and {self.step}")

    def save(self, folder: Path) -> None:
        """Write a checkpoint under a temporary name, rename it, remove the older ones."""
        folder.mkdir(parents=True, exist_ok=True)
        final = folder / f"step-{self.step:08d}"
        temporary = folder / f"{final.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write_tensors(temporary, "model", self.model.state_dict())
        write_tensors(temporary, "optimizer", read_slots(self.model, self.optimizer))
        streams = {f"batches/{k}": v for k, v in self.batches.state_dict().items()}
        streams["noise"] = self.noise_generator.get_state()
        if self.sums is not None:
            streams["sums"] = self.sums
        write_tensors(temporary, "streams", streams)
        (temporary / "state.json").write_text(json.dumps(
            {"step": self.step, "seconds": self.seconds, "names": self.names,
             "count": self.count, "history": self.history}))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        for other in checkpoints(folder):
            if other != final:
                shutil.rmtree(other)

    def load(self, folder: Path, steps: int) -> None:
        """Continue from the newest checkpoint that is not past `steps`, if there is one."""
        found = [path for path in checkpoints(folder) if int(path.name[5:]) <= steps]
        if not found:
            return
        path = found[-1]
        device = next(self.model.parameters()).device
        self.model.load_state_dict(read_tensors(path, "model", device))
        write_slots(self.model, self.optimizer, read_tensors(path, "optimizer", device))
        streams = read_tensors(path, "streams", "cpu")
        self.batches.load_state_dict({name.removeprefix("batches/"): value
                                      for name, value in streams.items()
                                      if name.startswith("batches/")})
        self.noise_generator.set_state(streams["noise"])
        state = json.loads((path / "state.json").read_text())
        self.step, self.seconds = state["step"], state["seconds"]
        self.names, self.count, self.history = state["names"], state["count"], state["history"]
        self.sums = streams["sums"].to(device) if "sums" in streams else None


def read_slots(model: torch.nn.Module, optimizer: optim.RMSProp) -> dict[str, Tensor]:
    """The optimizer's slots as `<parameter name>/ms` and `<parameter name>/mom`."""
    return {f"{name}/{slot}": optimizer.state[parameter][slot]
            for slot in ("ms", "mom") for name, parameter in model.named_parameters()}


@torch.no_grad()
def write_slots(model: torch.nn.Module, optimizer: optim.RMSProp, slots: dict[str, Tensor]) -> None:
    """Inverse of `read_slots`, in place."""
    for name, parameter in model.named_parameters():
        for slot in ("ms", "mom"):
            optimizer.state[parameter][slot].copy_(slots[f"{name}/{slot}"])


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.name[5:].isdigit()
                  and (path / "state.json").exists())


def write_tensors(folder: Path, stem: str, tensors: dict[str, Tensor]) -> None:
    """Write tensors as `stem.safetensors`, or in parts `stem-00001.safetensors`, ..."""
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if parts[-1] and size + tensor.nbytes > FILE_LIMIT:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += tensor.nbytes
    for number, part in enumerate(parts, 1):
        suffix = "" if len(parts) == 1 else f"-{number:05d}"
        save_file(part, folder / f"{stem}{suffix}.safetensors")


def read_tensors(folder: Path, stem: str, device: torch.device | str) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote."""
    whole = folder / f"{stem}.safetensors"
    paths = [whole] if whole.exists() else sorted(folder.glob(f"{stem}-?????.safetensors"))
    return {name: tensor for path in paths
            for name, tensor in load_file(path, device=str(device)).items()}
