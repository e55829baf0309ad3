"""A GPU that is not there: what runs on it has shapes and no values, and every operation is looked at.

    with gpu() as graphs:
        update = step.Step(…)          # model, data and generators made with device "cuda"
        update(index, lr)              # captures, as on a GPU
    graphs[0].watch.operations, graphs[0].watch.bytes

Tensors lie on torch's meta device and are shown to Python as `cuda`. While a CUDA graph is being captured,
`Watch` sees every operation, forward, backward and optimizer; one that no graph can hold makes the capture
fail with the line it came from: a value read by the host, a copy from the host, host arithmetic, which a
replay would not repeat, a mixture of devices, and a shape that depends on values. In deterministic mode
an operation for which torch has no repeatable algorithm on a GPU counts too.

Not seen: whether a kernel exists and is right, memory, streams, and what a compiler makes of it all.
FakeTensorMode does not serve here, since its backward pass asks for a driver.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, no_type_check
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA, META = torch.device("cuda", 0), torch.device("meta")
PROJECT = Path(__file__).parents[2]

WAIT, COPY, HOST = "value read by the host", "copy from or to the host", "host arithmetic"
MIXED, SHAPE, UNREPEATABLE = "mixture of devices", "shape from values", "not repeatable"

READS = {"_local_scalar_dense", "item", "is_nonzero", "equal", "allclose"}
SHAPES = {"nonzero", "repeat_interleave", "_unique", "_unique2", "unique_dim", "unique_consecutive",
          "unique_dim_consecutive", "masked_select", "bincount"}
# Operations that torch refuses on a GPU in deterministic mode: torch.use_deterministic_algorithms.
NO_REPEATABLE = {"grid_sampler_2d_backward", "grid_sampler_3d_backward", "reflection_pad2d_backward",
                 "reflection_pad1d_backward", "replication_pad2d_backward", "upsample_bilinear2d_backward",
                 "upsample_bicubic2d_backward", "_adaptive_avg_pool2d_backward", "max_unpool2d", "histc",
                 "kthvalue", "median", "put_", "bincount", "adaptive_max_pool2d_backward",
                 "fractional_max_pool2d_backward"}
# Nothing is launched: another look at the same memory, or memory that nobody fills.
VIEWS = {"view", "_unsafe_view", "expand", "permute", "transpose", "t", "unsqueeze", "squeeze", "alias",
         "detach", "detach_", "slice", "select", "split", "split_with_sizes", "unbind", "as_strided",
         "unfold", "diagonal", "lift_fresh", "narrow", "_reshape_alias", "set_", "empty", "empty_like",
         "new_empty", "new_empty_strided", "empty_strided"}
# Of these the input is read only where the index points.
PICKS = {"index", "gather", "index_select", "take_along_dim", "embedding"}


class Problem(NamedTuple):
    """Why a graph cannot hold an operation: the kind, its name, the line of this project it came from."""

    kind: str
    operation: str
    place: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.operation} at {self.place}"


class Watch(TorchDispatchMode):
    """Counts the operations on the device and collects `Problem`s.

    Attributes:
        problems: how often each.
        launched: how often each operation that launches something, by name.
        bytes: what these read and write at least, if nothing is fused: entries of a broadcast axis are read
            once, those of an input that is gathered from as often as the result has any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.problems: Counter[Problem] = Counter()
        self.launched: Counter[str] = Counter()
        self.bytes = 0

    @property
    def operations(self) -> int:
        """Number of launches, if every operation is one."""
        return self.launched.total()

    def note(self, kind: str, operation: str) -> None:
        """Add a problem at the line that is being executed."""
        self.problems[Problem(kind, operation, _place())] += 1

    @no_type_check
    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        name = function.overloadpacket.__name__
        given = [leaf for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, Tensor)]
        there, here = _parted(given)
        if there and name in READS:
            self.note(WAIT, name)
            return False if name in ("equal", "is_nonzero", "allclose") else 0.0
        if there and (name in SHAPES or _masks(name, given)):
            self.note(SHAPE, name)
        if torch.are_deterministic_algorithms_enabled() and there and name in NO_REPEATABLE:
            self.note(UNREPEATABLE, name)
        # Before the call: what meta tensors refuse by themselves is noted all the same.
        copies = name == "_to_copy" and keywords.get("device") is not None and (
            bool(there) != (torch.device(keywords["device"]) == META))
        if copies or (there and here):
            self.note(COPY if name in ("copy_", "_to_copy") else MIXED, name)
        result = function(*arguments, **keywords)
        made = result
        if result is None and arguments and isinstance(arguments[0], list):  # changed in place
            made = arguments[0]
        made_there, made_here = _parted([leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor)])
        if made_here and not (there or copies or name in VIEWS):
            self.note(HOST, name)
        if made_there and name not in VIEWS:
            self.launched[str(function)] += 1
            written = sum(map(_size, made_there))
            self.bytes += written + (written + sum(map(_size, there[1:])) if name in PICKS
                                     else sum(map(_size, there)))
        return result


class Graph:
    """In place of `torch.cuda.CUDAGraph`; a replay does nothing, since there are no values."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.generators: list[torch.Generator] = []
        self.replays = 0

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def replay(self) -> None:
        self.replays += 1


class Generator(torch.Generator):
    """A generator of the CPU that says where it was asked for."""

    def __new__(cls, device: torch.device | str = "cpu") -> Generator:
        self = super().__new__(cls)
        self.asked = torch.device(device)
        return self

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()

    @property
    def device(self) -> torch.device:
        return CUDA if self.asked.type in ("cuda", "meta") else self.asked


class Pretend(TorchFunctionMode):
    """Shows meta tensors as `cuda`, and takes `cuda` for meta where something is made.

    Attributes:
        watch: of the capture in progress.
        low: dtype of the products inside `torch.autocast`, which knows no meta tensors.
    """

    IS_CUDA, DEVICE = Tensor.is_cuda.__get__, Tensor.device.__get__
    FROM_HOST = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
    VALUES: dict[Callable, Callable] = {
        Tensor.item: lambda x: 0.0, Tensor.tolist: lambda x: torch.zeros(x.shape).tolist(),
        Tensor.__bool__: lambda x: False, Tensor.__float__: lambda x: 0.0, Tensor.__int__: lambda x: 0}
    PRODUCTS = (torch.nn.functional.linear, torch.nn.functional.conv2d, torch.conv2d, torch.bmm, torch.mm,
                torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.addmm, torch.baddbmm)

    def __init__(self) -> None:
        super().__init__()
        self.watch: Watch | None = None
        self.low: torch.dtype | None = None

    @no_type_check
    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        if function == self.IS_CUDA:
            return arguments[0].is_meta
        if function == self.DEVICE:
            device = function(*arguments)
            return CUDA if device == META else device
        if function is torch.device:
            return function(*arguments, **keywords)
        if function in self.VALUES and arguments[0].is_meta:
            if self.watch is not None:
                self.watch.note(WAIT, function.__name__)
            return self.VALUES[function](arguments[0])
        if function in self.FROM_HOST and self.watch is not None and self._from_host(function, *arguments,
                                                                                      **keywords):
            self.watch.note(COPY, function.__name__)
        if self.low is not None and function in self.PRODUCTS:
            arguments, keywords = tree_map(self._lowered, (arguments, keywords))
        return function(*map(_meta, arguments), **{name: _meta(value) for name, value in keywords.items()})

    @no_type_check
    def _from_host(self, function, *arguments, device=None, **keywords) -> bool:
        """Whether numbers of the host become a tensor of the device."""
        value = arguments[function is Tensor.new_tensor] if len(arguments) > (
            function is Tensor.new_tensor) else None
        if isinstance(value, Tensor) and (value.is_meta or function is not Tensor.new_tensor):
            return False  # copies between devices are the dispatcher's to see
        if device is None:
            return function is Tensor.new_tensor and arguments[0].is_meta
        return _meta(torch.device(device)) == META

    @no_type_check
    def _lowered(self, leaf):
        return leaf.to(self.low) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


@contextlib.contextmanager
def gpu() -> Iterator[list[Graph]]:
    """Pretend that there is a GPU; yields the graphs, as they are captured.

    A capture that holds something it cannot hold raises RuntimeError with every `Problem`.
    """
    pretend, graphs = Pretend(), []
    engine = torch.autograd._engine_run_backward

    def backward(*arguments, **keywords):
        # It runs inside a handler, where the mode is not in force; Python called from it must see it.
        with pretend:
            return engine(*arguments, **keywords)

    @contextlib.contextmanager
    def capture(graph: Graph, **options):
        graphs.append(graph)
        pretend.watch = graph.watch
        try:
            with graph.watch:
                yield
        finally:
            pretend.watch = None
        if graph.watch.problems:
            lines = [f"{n} x {problem}" for problem, n in sorted(graph.watch.problems.items())]
            raise RuntimeError("a graph cannot hold this: " + "\n".join(lines))

    @contextlib.contextmanager
    def autocast(device_type: str, dtype: torch.dtype | None = None, **options):
        before, pretend.low = pretend.low, dtype
        try:
            yield
        finally:
            pretend.low = before

    # `checkpoint` compares devices that it saw where the mode was in force with others, where it was not.
    # One update makes the constants; nothing else has to warm up.
    with mock.patch.multiple(torch.cuda, Stream=_Stream, current_stream=_Stream, default_stream=_Stream,
                             stream=contextlib.nullcontext, CUDAGraph=Graph, graph=capture,
                             synchronize=lambda *place: None), \
            mock.patch.multiple(torch, Generator=Generator, autocast=autocast), \
            mock.patch.object(torch.autograd, "_engine_run_backward", backward), \
            mock.patch("port.training.step.WARM_UP", 1), \
            mock.patch.dict(checkpoint._allowed_determinism_checks_to_fns, default=lambda tensor: None), \
            pretend:
        yield graphs


class _Stream:
    """In place of `torch.cuda.Stream`."""

    device = CUDA

    def __init__(self, *place) -> None:
        pass

    def wait_stream(self, other: _Stream) -> None:
        pass


@no_type_check
def _meta(value):
    """`cuda`, as an argument, becomes the meta device."""
    if isinstance(value, torch.device):
        return META if value.type == "cuda" else value
    return META if isinstance(value, str) and value.split(":")[0] == "cuda" else value


def _parted(tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Those on the device, and those of the host."""
    return [t for t in tensors if t.is_meta], [t for t in tensors if not t.is_meta]


def _masks(name: str, given: list[Tensor]) -> bool:
    """Whether an index is a mask."""
    return name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
        tensor.dtype == torch.bool for tensor in given[1:])


def _size(tensor: Tensor) -> int:
    """Bytes of the entries that are in memory; an expanded axis has one."""
    entries = 1
    for size, stride in zip(tensor.shape, tensor.stride()):
        entries *= size if stride else min(size, 1)
    return entries * tensor.element_size()


def _place() -> str:
    """The innermost line of this project outside this file."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        # An environment in the project's folder is not the project.
        if file.startswith(f"{PROJECT}{os.sep}") and file != __file__ and "site-packages" not in file:
            return f"{os.path.relpath(file, PROJECT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"
