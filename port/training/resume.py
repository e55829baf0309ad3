"""All that a training step depends on, in memory and on disk: checkpoints that continue bit by bit.

A checkpoint is a folder `step-00001000` with the weights, the optimizer's slots, the states of the
three generators, the running sums and the history. It is written under a temporary name, flushed to the
disk and renamed, so there is never half of one; older ones but the last are removed afterwards. One that is
damaged is not used, and the run goes on from the one before (`port.training.sound`). With several ranks
the first one writes and reads, and the others are sent what it read: a checkpoint does not tell how
many ranks made it.

Continuing is exact to the bit where device, software, threads, ranks, `compile` and `deterministic` are
as before. Those change the order in which numbers are rounded, not what is computed, so a checkpoint
made with others is continued too, with a note. What does change the run (model, data, seed, precision,
device type, …) is part of `loop.identity`, which names the folder: such a run starts anew elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from port.core import files, tensor_files
from port.core.swap import flush
from port.data.dataset import DataError
from port.data.streams import Stream
from port.training import optimizers, sound
from port.training.distributed import ALONE, World

FILE_LIMIT = 15 * 2**20  # bytes of tensors in one file; larger sets are written in parts


class NonFiniteLoss(ArithmeticError):
    """A scalar, gradient or weight became NaN or infinite; the last good state is kept."""


class State:
    """All that the next step depends on, in memory and on disk."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer,
                 batches: Stream,
                 noise_generator: torch.Generator):
        self.model, self.optimizer, self.batches = model, optimizer, batches
        self.noise_generator = noise_generator
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.count = 0
        self.data = ""  # digest of the data set, "" where it is drawn
        self.damaged: dict[Path, str] = {}  # checkpoints that were not used, and why

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def add(self, loss: Tensor, scalars: dict[str, Tensor]) -> None:
        """Add the scalars of a step to the running sums, in place on the device."""
        self.names = ["loss", *scalars]
        values = torch.stack([loss, *scalars.values()])
        if self.sums is None:
            self.sums = torch.zeros_like(values)
        self.sums += values

    def read_means(self) -> dict[str, float]:
        """Means since the last read, as a new row of the history; after `check_finite`."""
        means = (self.sums / self.count).tolist()
        row = {"step": self.step, "seconds": round(self.seconds, 3)} | dict(zip(self.names, means))
        self.history.append(row)
        self.sums.zero_()
        self.count = 0
        return row

    def check_finite(self, world: World = ALONE) -> None:
        """Look at the scalars since the last read, at every weight and slot.

        A NaN in any step since then is still in the sums. A gradient that is not finite leaves its
        trace in the weights or slots even where the loss was finite.

        Raises:
            NonFiniteLoss: names what is not finite; on all ranks alike.
        """
        if self.count:
            world.average_([self.sums])
            bad = [name for name, value in zip(self.names, self.sums.tolist())
                   if value - value != 0.0]
            if bad:
                raise NonFiniteLoss(f"{', '.join(bad)} not finite between step "
                                    f"{self.step - self.count + 1} and {self.step}")
        bad = non_finite({name: tensor.detach() for name, tensor in self.tensors().items()})
        if bad:
            raise NonFiniteLoss(f"{bad[0]} not finite after step {self.step}")

    def tensors(self) -> dict[str, Tensor]:
        """Weights and slots, the very tensors, by name."""
        return dict(self.model.named_parameters()) | read_slots(self.model, self.optimizer)

    # ------------------------------------------------------------------------------------- on disk

    def save(self, folder: Path, made_with: dict | None = None) -> None:
        """Write a checkpoint under a temporary name, rename it, remove the older ones but the last."""
        folder.mkdir(parents=True, exist_ok=True)
        final = folder / f"step-{self.step:08d}"
        temporary = folder / f"{final.name}.tmp"
        for path in self.damaged:
            sound.discard(path)
        self.damaged = {}
        # Of a process that was killed while it wrote, or removed.
        for left_over in (*folder.glob("step-*.tmp"), *folder.glob(f".step-*{sound.OLD}")):
            shutil.rmtree(left_over)
        try:
            with files.named(final, temporary):
                self._write(temporary, made_with)
                sound.discard(final)  # the same step again: out of the way first, a folder cannot be replaced
                os.replace(temporary, final)
        except BaseException:  # on a full disk what is half there takes the room that is needed
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        flush(folder)
        for other in [path for path in checkpoints(folder) if path.name < final.name][:-1]:
            sound.discard(other)

    def _write(self, folder: Path, made_with: dict | None) -> None:
        """The files of a checkpoint, flushed to the disk."""
        folder.mkdir()
        write_tensors(folder, "model", self.model.state_dict())
        write_tensors(folder, "optimizer", read_slots(self.model, self.optimizer))
        write_tensors(folder, "streams", self.stream_tensors())
        (folder / "state.json").write_text(json.dumps(
            self.place() | {"history": self.history, "made_with": made_with or {}, "data": self.data,
                                "format": sound.FORMAT}), encoding="utf-8")
        sound.write_checksums(folder)
        for path in [*folder.iterdir(), folder]:
            flush(path)

    def load(self, folder: Path, steps: int, world: World = ALONE) -> dict | None:
        """Continue from the newest sound checkpoint that is not past `steps`, if there is one.

        Those that are not sound are named in `damaged`.

        Returns:
            What it was made with; None if there was none.

        Raises:
            sound.Damaged: there are checkpoints, but none is sound.
            DataError: it was made on other data.
        """
        read, error = None, None
        if world.main:
            try:
                read = self._newest(folder, steps)
            except DataError as refused:
                error = refused
        error = world.collect(error)[0]
        if error is not None:
            raise error
        if world.collect(read is not None)[0] is False:
            return None
        streams, state = {}, {}
        if world.main:
            model, slots, streams, state = read
            self.model.load_state_dict(model)
            write_slots(self.model, self.optimizer, slots)
        streams, state = world.collect((streams, state))[0]
        world.broadcast_([tensor.detach() for tensor in self.tensors().values()])
        self.go_on(streams, state)
        self.history = state["history"]
        return state.get("made_with")

    def _newest(self, folder: Path, steps: int) -> tuple[dict, dict, dict, dict] | None:
        """What the newest sound checkpoint holds; None where there is no checkpoint."""
        found = [path for path in checkpoints(folder) if int(path.name[5:]) <= steps]
        self.damaged = {}
        for path in reversed(found):
            try:
                read = self._checked(path)
            except sound.Damaged as error:
                self.damaged[path] = str(error)
                continue
            made_on = read[3].get("data")
            if made_on and self.data and made_on != self.data:
                raise DataError(f"{path} was made on other data ({made_on}, now {self.data}); put the "
                                     f"data back, or remove {folder} to train anew")
            return read
        if self.damaged:
            raise sound.Damaged(
                f"no checkpoint in {folder} can be used ({found[-1].name}: {self.damaged[found[-1]]}); put "
                "back a copy, or remove the folder to train anew")
        return None

    def _checked(self, path: Path) -> tuple[dict, dict, dict, dict]:
        """Weights, slots, streams and state of a checkpoint, every one of them looked at."""
        sound.check_files(path)
        device = self.device
        try:
            model = read_tensors(path, "model", device)
            slots = read_tensors(path, "optimizer", device)
            streams = read_tensors(path, "streams", "cpu")
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise sound.Damaged(f"it cannot be read ({' '.join(str(error).split())[:120]})") from None
        sound.check_position(state, int(path.name[5:]), (path / sound.CHECKSUMS).exists())
        sound.check_tensors("weights", model, self.model.state_dict())
        sound.check_tensors("slots", slots, read_slots(self.model, self.optimizer))
        sound.check_streams(streams, self.stream_tensors(), {"noise": self.noise_generator} | {
            f"batches/{name}": generator for name, generator in self.batches.generators().items()},
            self.batches.limits, state["names"])
        return model, slots, streams, state

    # ----------------------------------------------------------------------------- everything else

    def stream_tensors(self) -> dict[str, Tensor]:
        """Generators, place in the data and running sums."""
        streams = {f"batches/{k}": v for k, v in self.batches.state_dict().items()}
        streams["noise"] = self.noise_generator.get_state()
        if self.sums is not None:
            streams["sums"] = self.sums.clone()
        return streams

    def place(self) -> dict:
        """Step, seconds and running counts."""
        return {"step": self.step, "seconds": self.seconds, "names": self.names,
                "count": self.count}

    def go_on(self, streams: dict[str, Tensor], position: dict) -> None:
        """Inverse of `stream_tensors` and `place`, in place where a graph may hold the tensor."""
        self.batches.load_state_dict({name.removeprefix("batches/"): value
                                      for name, value in streams.items()
                                      if name.startswith("batches/")})
        self.noise_generator.set_state(streams["noise"])
        if "sums" in streams:
            if self.sums is None:
                self.sums = streams["sums"].to(next(self.model.parameters()).device)
            else:
                self.sums.copy_(streams["sums"])
        elif self.sums is not None:
            self.sums.zero_()
        self.step, self.seconds = position["step"], position["seconds"]
        self.names, self.count = position["names"], position["count"]


class Snapshot:
    """A state kept in memory, to return to in place."""

    def __init__(self, state: State):
        self.state = state
        self.tensors = [tensor.detach().clone() for tensor in state.tensors().values()]
        self.streams, self.position = state.stream_tensors(), state.place()

    @property
    def step(self) -> int:
        return self.position["step"]

    @torch.no_grad()
    def restore(self) -> None:
        """Everything as it was; rows of the history stay."""
        for tensor, kept in zip(self.state.tensors().values(), self.tensors, strict=True):
            tensor.copy_(kept)
        self.state.go_on(self.streams, self.position)


def non_finite(tensors: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity; the host waits once."""
    if not tensors:
        return []
    largest = torch.stack(torch._foreach_norm(list(tensors.values()), float("inf"))).tolist()
    return [name for name, value in zip(tensors, largest) if value - value != 0.0]


def read_slots(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's slots as `<parameter name>/<slot>`, as `…/ms` and `…/mom` of RMSProp."""
    return optimizers.slots(model.named_parameters(), optimizer)


@torch.no_grad()
def write_slots(model: torch.nn.Module, optimizer: torch.optim.Optimizer, slots: dict[str, Tensor]) -> None:
    """Inverse of `read_slots`, in place."""
    for name, tensor in read_slots(model, optimizer).items():
        if slots[name].shape != tensor.shape:
            raise ValueError(f"slot {name} is {list(slots[name].shape)}, not {list(tensor.shape)}")
        tensor.copy_(slots[name])


# ------------------------------------------------------------------------------------------- files

def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.name[5:].isdigit()
                  and (path / "state.json").exists())


def write_tensors(folder: Path, stem: str, tensors: dict[str, Tensor]) -> None:
    """Write tensors as `stem.safetensors`, or in parts `stem-00001.safetensors`, ...

    A tensor above the limit is cut along its flattened entries into pieces `name#0`, `name#1`, …; its
    shape stands in the metadata of the piece's file.
    """
    parts: list[tuple[dict[str, Tensor], dict[str, str]]] = [({}, {})]
    size = 0
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        pieces = {name: tensor}
        if tensor.nbytes > FILE_LIMIT:
            entries = max(1, FILE_LIMIT // tensor.element_size())
            pieces = {f"{name}#{i}": piece.clone()
                      for i, piece in enumerate(tensor.flatten().split(entries))}
        for key, piece in pieces.items():
            if parts[-1][0] and size + piece.nbytes > FILE_LIMIT:
                parts.append(({}, {}))
                size = 0
            parts[-1][0][key] = piece
            if key != name:
                parts[-1][1][key] = json.dumps(list(tensor.shape))
            size += piece.nbytes
    for number, (part, shapes) in enumerate(parts, 1):
        suffix = "" if len(parts) == 1 else f"-{number:05d}"
        tensor_files.write(part, folder / f"{stem}{suffix}.safetensors", shapes or None)


def read_tensors(folder: Path, stem: str, device: torch.device | str) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote."""
    whole = folder / f"{stem}.safetensors"
    paths = [whole] if whole.exists() else sorted(folder.glob(f"{stem}-?????.safetensors"))
    tensors: dict[str, Tensor] = {}
    cut: dict[str, tuple[dict[int, Tensor], list[int]]] = {}
    for path in paths:
        with safe_open(path, "pt") as file:
            shapes = file.metadata() or {}
            for key in file.keys():  # noqa: SIM118, it is no mapping
                if key not in shapes:
                    tensors[key] = file.get_tensor(key).to(device)
                    continue
                name, number = key.rsplit("#", 1)
                pieces = cut.setdefault(name, ({}, json.loads(shapes[key])))[0]
                pieces[int(number)] = file.get_tensor(key).to(device)
    for name, (pieces, shape) in cut.items():
        tensors[name] = torch.cat([pieces[i] for i in range(len(pieces))]).reshape(shape)
    return tensors
