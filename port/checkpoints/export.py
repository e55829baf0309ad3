"""Models as graphs for other programs: `torch.export` and ONNX, with a free batch size.

A graph takes what the model takes, images `[B, C, S, S]` in [0, 1] or points `[B, M, 2]`, for any B,
without noise, and gives tensors by name. It is that of plain PyTorch: while a graph is made, the kernels of
this project stand aside (`torch.compiler.is_exporting`), since no other program knows them. Nothing checks
the values that a graph is given.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from port.families import Model

TRACED = 3  # examples that the graph is made with; 0 and 1 are special to the tracer
OPSET = 20


class ExportError(ValueError):
    """A model of which there is no graph, or a file that cannot be made."""


class Outputs(nn.Module):
    """A model as a graph needs it: one input, and what it says as tensors by name.

    Args:
        model: of any family.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, given: Tensor) -> dict[str, Tensor]:
        """What `names` lists, batch first."""
        return _SAYS.get(self.model.config.kind, _objects)(self.model, given)


def _objects(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Presences, poses of the parts, logits of the probes, reconstruction from parts and from objects."""
    found = model(image, taps=True)
    said = {"mass_explained_by_capsule": found.mass_explained_by_capsule,
            "caps_presence_prob": found.caps_presence_prob, "part_presence": found.part_presence,
            "part_pose": found.taps["part_dec/pose_in"],
            "bottom_up": found.taps["bottom_up/mean"].permute(0, 3, 1, 2),
            "top_down": found.taps["top_down/mean"].permute(0, 3, 1, 2)}
    if found.posterior_logits is not None:
        said |= {"posterior_logits": found.posterior_logits, "prior_logits": found.prior_logits}
    return said


def _parts(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    found = model(image, pictures=True)
    return {"part_presence": found.part_presence, "part_pose": found.pictures["pose"],
            "reconstruction": found.pictures["reconstruction"]}


def _points(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
    found = model(points, pictures=True)
    return {"mass_explained_by_capsule": found.mass_explained_by_capsule,
            "caps_presence_prob": found.caps_presence_prob,
            "is_from_capsule": found.pictures["is_from_capsule"], "winner": found.pictures["winner"]}


def _classes(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Evidence for each class, its capsules, and where there is a decoder the image of the strongest."""
    found = model(image)
    said = {"evidence": found.evidence, "capsules": found.capsules}
    return said if found.reconstruction is None else said | {"reconstruction": found.reconstruction}


# Kind → what its graph says; the image models with objects are the rule.
_SAYS: dict[str, Callable[[nn.Module, Tensor], dict[str, Tensor]]] = {
    "pcae": _parts, "constellation": _points, "capsnet": _classes, "em": _classes}


def example(model: Model, batch: int, seed: int = 0) -> Tensor:
    """Random input of a model, for tracing and for comparing: `[B, C, S, S]` in [0, 1] or `[B, M, 2]`."""
    config, generator = model.config, torch.Generator().manual_seed(seed)
    sizes = (config.n_points, 2) if config.kind == "constellation" else (
        config.channels, config.canvas, config.canvas)
    return torch.rand(batch, *sizes, generator=generator, dtype=torch.float64).to(model.dtype)


def program(model: Model) -> torch.export.ExportedProgram:
    """The model as a graph of PyTorch operations; `torch.export.save` writes it.

    Args:
        model: of any family, on the CPU; it is left as it was.

    Returns:
        A program of one input `[B, …]`, for any B from 1, that gives tensors by name.

    Raises:
        ExportError: the weights are not on the CPU.
    """
    if next(model.parameters()).device.type != "cpu":
        raise ExportError("a graph is made on the CPU; move the model there with model.cpu()")
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return torch.export.export(Outputs(model).eval(), (example(model, TRACED),),
                                       dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    finally:
        model.train(training)


def names(made: torch.export.ExportedProgram) -> tuple[str, list[str]]:
    """Input and outputs of a program; of the outputs the keys of its answer, in their order."""
    keys = [str(path[-1].key) for path, _ in torch.utils._pytree.tree_flatten_with_path(
        torch.utils._pytree.tree_unflatten(list(range(made.call_spec.out_spec.num_leaves)),
                                           made.call_spec.out_spec))[0]]
    return made.graph_signature.user_inputs[0], keys


def save_onnx(made: torch.export.ExportedProgram, path: str | os.PathLike) -> Path:
    """Write a program as ONNX, by the exporter that builds on `torch.export`.

    Args:
        made: from `program`.
        path: of the one file, weights inside.

    Raises:
        ExportError: onnx and onnxscript are not installed.
    """
    given, outputs = names(made)
    axes: Any = {given: {0: "batch"}}
    try:
        # Its own optimizer gets matrix capsules wrong (activations off by 0.5 with onnxscript 0.7.2);
        # programs that run ONNX optimize what they load anyway.
        found = torch.onnx.export(made, (), input_names=[given], output_names=outputs, dynamo=True,
                                  opset_version=OPSET, dynamic_shapes=axes, optimize=False, verbose=False)
    except ImportError as error:
        raise ExportError(f"writing ONNX needs onnx and onnxscript ({error}); install the extra "
                          "`export`") from None
    found.save(str(path), external_data=False)
    return Path(path)
