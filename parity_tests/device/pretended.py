"""A device that is not the CPU, pretended on it, with values: what the checks forget to move shows.

    python -m parity_tests.device --device pretended --short

Tensors there hold a CPU tensor, on which every operation is done, but neither NumPy nor an operation with a
CPU tensor of one axis or more takes them, as on a GPU. So the device tier itself, which no GPU has run
yet, is run to its end. It says nothing of kernels, rounding or speed there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretended"
FROM_HOST = (torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor)
MOVES = ("_to_copy", "copy_", "_copy_from", "_copy_from_and_resize", "set_", "detach", "alias")


class Elsewhere(torch.Tensor):
    """A tensor of the pretended device.

    Attributes:
        held: its values on the CPU, sharing memory as a view does.
    """

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=torch.device(NAME, 0), requires_grad=False)
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.held!r})"

    def numpy(self, *arguments: Any, **keywords: Any) -> Any:
        raise TypeError(f"can't convert a tensor on {NAME} to NumPy; use .cpu() first")

    def tolist(self) -> Any:
        return self.held.tolist()  # which waits, there

    def __array__(self, dtype: Any = None) -> Any:
        raise TypeError(f"can't convert a tensor on {NAME} to NumPy; use .cpu() first")

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (),
                           keywords: Any = None) -> Any:
        return done(function, arguments, keywords or {})


class Mode(TorchDispatchMode):
    """Catches what makes tensors there out of nothing or out of tensors of the CPU."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (),
                           keywords: Any = None) -> Any:
        return done(function, arguments, keywords or {})


class FromHost(TorchFunctionMode):
    """`torch.tensor` and its like, which no dispatch sees, by way of the CPU."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (),
                           keywords: Any = None) -> Any:
        keywords = dict(keywords or {})
        target = keywords.get("device")
        if function is torch.Tensor.new_tensor and target is None:
            target = arguments[0].device
        if function not in FROM_HOST or target is None or torch.device(target).type != NAME:
            return function(*arguments, **keywords)
        gradient = keywords.pop("requires_grad", False)
        if function is torch.Tensor.new_tensor:
            keywords.setdefault("dtype", arguments[0].dtype)
            function, arguments = torch.tensor, arguments[1:]
        made = function(*arguments, **(keywords | {"device": "cpu"})).to(NAME)
        return made.requires_grad_() if gradient else made


def done(function: Any, arguments: Any, keywords: dict[str, Any]) -> Any:
    """An operation on what its tensors hold; its results are there where any of them, or `device`, is.

    Raises:
        RuntimeError: tensors of both devices are mixed, as a GPU would say.
    """
    tensors = [x for x in pytree.tree_leaves((arguments, keywords)) if isinstance(x, torch.Tensor)]
    there = any(isinstance(x, Elsewhere) for x in tensors)
    name = function._schema.name.removeprefix("aten::")
    target = keywords.get("device")
    if there and name not in MOVES and not name.startswith("index"):
        here = [x for x in tensors if not isinstance(x, Elsewhere) and x.ndim]
        if here:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, {NAME} and cpu")
    if target is not None:
        there = torch.device(target).type == NAME
        keywords = keywords | {"device": torch.device("cpu")}
    plain = pytree.tree_map_only(Elsewhere, lambda x: x.held, (arguments, keywords))
    out = function(*plain[0], **plain[1])
    if name == "copy_":
        return arguments[0]
    if not there:
        return out
    if name == "_to_copy" and isinstance(out, torch.Tensor) and out is plain[0][0]:
        out = out.clone()
    wrapped = pytree.tree_map_only(torch.Tensor, Elsewhere, out)
    return return_and_correct_aliasing(function, arguments, keywords, wrapped) if any(
        isinstance(x, Elsewhere) for x in tensors) else wrapped


_registered: list[str] = []


@contextlib.contextmanager
def device() -> Iterator[str]:
    """The pretended device within the block; its name."""
    if not _registered:
        _setup_privateuseone_for_python_backend(NAME)
        _registered.append(NAME)
    real = torch.Generator
    torch.Generator = _Generator  # type: ignore[misc]
    try:
        with Mode(), FromHost():
            yield NAME
    finally:
        torch.Generator = real  # type: ignore[misc]


class _Generator(torch.Generator):
    """A generator of the CPU that says it is of the device it was asked for."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls)
        made.asked = torch.device(device)
        return made

    def __init__(self, device: Any = "cpu") -> None:
        super().__init__()

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.asked
