"""Where a training step's time goes, part by part, beside what each part needs at least.

Each part of an eager step is taken out of the model: what it was called with in a real forward pass is kept,
and the same call is timed alone, forward and backward. Its floor is the larger of two: the bytes that go in
and come out (arguments, results, weights and the gradients of each) at the rate at which this machine copies
as many bytes, and the operations of its matrix products and convolutions, on the plain path, at the rate of a
large matrix product. What the parts leave of the whole step is its last line.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pipelines.bench import floors
from port.core import backends

REPEATS = 20
# Copies of these sizes, from the second-level cache to the memory; smaller ones time the call.
COPIES = (2**18, 2**20, 2**22, 2**24, 2**28)

# Kind of the model → part → where it is computed: attribute of the model, or `module:function`, as it is
# called there. The original's words for the parts.
SCAE = {
    "convolutions": ("part_encoder.cnn.forward", "part_encoder.conv.forward"),
    "pooling attention": ("port.scae.part_encoder:attention_pool",),
    "templates and mixture": ("part_decoder.make_templates", "part_decoder.log_prob"),
    "set transformer": ("object_encoder.forward",),
    "capsule MLPs and votes": ("object_decoder.capsule_layer.forward",),
    "likelihood": ("object_decoder.capsule_likelihood.forward",),
    "losses": ("_batch_terms", "port.core.losses:weight_decay_loss", "port.core.losses:total_loss")}
CAPSNET = {
    "convolutions": ("conv1.forward", "primary.forward"),
    "votes and routing": ("classes.forward",),
    "decoder": ("decoder.forward",),
    "losses": ("port.capsnet.network:margin_loss", "port.capsnet.network:reconstruction_loss")}
EM = {
    "convolutions": ("conv.forward", "primary.forward"),
    "votes and routing": tuple(f"capsules.{i}.forward" for i in range(4)) + ("class_capsules.forward",),
    "losses": ("port.em.losses:spread_loss", "port.core.losses:weight_decay_loss")}
PARTS = {"capsnet": CAPSNET, "em": EM}


class Call(NamedTuple):
    """A call that a part made: on what, by which name, with what, and whose weights it uses."""

    function: Callable[..., Any]
    arguments: tuple[tuple, dict]
    weights: list[Tensor]


def parts_of(model: torch.nn.Module) -> dict[str, tuple[str, ...]]:
    """The table for a model: of its kind, of the image autoencoder, or its children."""
    found = PARTS.get(getattr(model.config, "kind", ""))
    if found is None and hasattr(model, "part_encoder"):
        found = SCAE
    return found or {name: (f"{name}.forward",) for name, _ in model.named_children()}


def whose(model: torch.nn.Module, place: str) -> tuple[Any, str] | None:
    """The object that holds a function, and the function's name there; None where the model has no such part."""
    module, _, name = place.rpartition(":")
    if module:
        return importlib.import_module(module), name
    *path, name = place.split(".")
    owner: Any = model
    for step in path:
        try:
            owner = owner[int(step)] if step.isdigit() else getattr(owner, step, None)
        except IndexError:
            return None
        if owner is None:
            return None
    return (owner, name) if hasattr(owner, name) else None


@contextlib.contextmanager
def watched(owner: Any, name: str, calls: list[Call]) -> Iterator[None]:
    """Keep every call of `owner.name` within the block, its tensors cut off from the graph."""
    function, own = getattr(owner, name), name in vars(owner)
    weights = list(owner.parameters()) if isinstance(owner, torch.nn.Module) else []

    def keeping(*args: Any, **options: Any) -> Any:
        calls.append(Call(function, pytree.tree_map(_cut, (args, options)), weights))
        return function(*args, **options)

    setattr(owner, name, keeping)
    try:
        yield
    finally:
        if own or inspect.ismodule(owner):
            setattr(owner, name, function)
        else:
            delattr(owner, name)


def _cut(value: Any) -> Any:
    if not torch.is_tensor(value):
        return value
    if isinstance(value, torch.nn.Parameter):
        return value
    return value.detach().requires_grad_(value.requires_grad)


def measure(step: Any, optimizer: torch.optim.Optimizer, repeats: int = REPEATS) -> dict[str, dict]:
    """Seconds, bytes and operations of each part, forward and backward.

    Args:
        step: `port.training.step.Step`, eager, after its first update.
        optimizer: of the run.
        repeats: the fastest counts.

    Returns:
        Part → `forward_s`, `backward_s`, `bytes`, `operations`, `floor_s`; the last are `everything else`,
        the step without its parts, and `step`.
    """
    device = next(step.model.parameters()).device
    rates = Rates(device)
    recorded: dict[str, list[Call]] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(step.at_work())
        for part, places in parts_of(step.model).items():
            calls = recorded.setdefault(part, [])
            for place in places:
                found = whose(step.model, place)
                if found is not None:
                    stack.enter_context(watched(*found, calls))
        step.forward.eager(*step.inputs())
    found = {part: one(calls, device, rates, repeats) for part, calls in recorded.items() if calls}
    weights = sum(p.nbytes for p in step.model.parameters() if p.requires_grad)
    pass_gradients(step)
    # Weights, both slots and the gradient are read, and all but the gradient written.
    found["optimizer"] = plain(optimizer.step, 7 * weights, device, rates, repeats)
    images = sum(t.nbytes for t in pytree.tree_leaves(step.inputs()[:2]) if torch.is_tensor(t))
    found["batch"] = plain(step.inputs, images, device, rates, repeats)
    whole = min_seconds([step.update], device, repeats)[0]
    spent = sum(row["forward_s"] + row["backward_s"] for row in found.values())
    found["everything else"] = {"forward_s": whole - spent, "backward_s": 0.0, "bytes": 0, "operations": 0,
                                "floor_s": 0.0}
    found["step"] = {"forward_s": whole, "backward_s": 0.0,
                     **{name: sum(row[name] for row in found.values())
                        for name in ("bytes", "operations", "floor_s")}}
    return found


def pass_gradients(step: Any) -> None:
    """Let the weights have gradients, as the optimizer finds them."""
    with step.at_work():
        loss, _ = step.forward.eager(*step.inputs())
        step.backward(loss)


def one(calls: list[Call], device: torch.device, rates: Rates, repeats: int) -> dict:
    """A part that is computed by some calls, one after the other."""
    total = {"forward_s": 0.0, "backward_s": 0.0, "bytes": 0, "operations": 0, "floor_s": 0.0}
    for call in calls:
        (args, options), held = call.arguments, {}
        leaves = [t for t in (*pytree.tree_leaves(call.arguments), *call.weights)
                  if torch.is_tensor(t) and t.requires_grad]

        def forward(call: Call = call, args=args, options=options, held=held) -> None:
            # Containers anew at each call: a part may write into a dictionary.
            given = pytree.tree_map(lambda value: value, (args, options))
            result = call.function(*given[0], **given[1])
            held["out"] = [t for t in pytree.tree_leaves((result, given))
                           if torch.is_tensor(t) and t.grad_fn is not None]
            held["all"] = result

        forward()
        ones = [torch.ones_like(out) for out in held["out"]]

        def backward(leaves=leaves, ones=ones, held=held) -> None:
            if ones and leaves:
                held["gradients"] = torch.autograd.grad(held["out"], leaves, ones, allow_unused=True)

        seconds = min_seconds([forward, backward], device, repeats)
        total["forward_s"] += seconds[0]
        total["backward_s"] += seconds[1]
        reached = [g for g in held.get("gradients", ()) if g is not None]
        results = sum(t.nbytes for t in pytree.tree_leaves(held["all"]) if torch.is_tensor(t))
        read = sum(t.nbytes for t in pytree.tree_leaves(call.arguments) if torch.is_tensor(t))
        # Forward: what goes in, the weights that a gradient reaches, what comes out. Backward: the same
        # read once more, with the results' gradients, and a gradient written for all that can have one.
        n_bytes = 2 * (read + results) + 2 * sum(g.nbytes for g in reached)
        with backends.switched("off"):
            operations = floors.count_operations(lambda forward=forward, held=held: passes(forward, held))
        total["bytes"] += n_bytes
        total["operations"] += operations
        total["floor_s"] += rates.floor(n_bytes, operations)
    return total


def passes(forward: Callable[[], None], held: dict) -> None:
    """Forward and backward into `.grad`, since what counts operations does not follow `autograd.grad`."""
    forward()
    if held["out"]:
        torch.autograd.backward(held["out"], [torch.ones_like(out) for out in held["out"]])


def plain(work: Callable[[], object], n_bytes: int, device: torch.device, rates: Rates, repeats: int) -> dict:
    """A part without a backward pass and without products."""
    return {"forward_s": min_seconds([work], device, repeats)[0], "backward_s": 0.0, "bytes": n_bytes,
            "operations": 0, "floor_s": rates.floor(n_bytes, 0)}


def min_seconds(works: list[Callable[[], object]], device: torch.device, repeats: int) -> list[float]:
    """Seconds of the fastest of some repeats of each, one after the other."""
    best = [float("inf")] * len(works)
    for repeat in range(repeats + 1):
        for i, work in enumerate(works):
            floors.wait(device)
            start = time.perf_counter()
            work()
            floors.wait(device)
            if repeat:
                best[i] = min(best[i], time.perf_counter() - start)
    return best


class Rates:
    """What this machine reaches now: bytes per second at several sizes, operations per second."""

    def __init__(self, device: torch.device):
        self.copies = {size: floors.bandwidth(device, size // 2) for size in COPIES}
        self.operations = floors.product_rate(device)

    def floor(self, n_bytes: int, operations: int) -> float:
        """Seconds below which neither so many bytes nor so many operations go."""
        size = next((size for size in COPIES if size >= n_bytes), COPIES[-1])
        return max(n_bytes / self.copies[size], operations / self.operations)


def lines(found: dict[str, dict]) -> list[str]:
    """The budget for a terminal."""
    said = [f"  budget of an eager step, ms:  {'forward':>8}{'backward':>10}{'share':>8}{'floor':>9}{'x floor':>9}"
            f"{'MB':>9}{'G op':>8}"]
    whole = found["step"]["forward_s"]
    for part, row in found.items():
        seconds, floor = row["forward_s"] + row["backward_s"], row["floor_s"]
        said.append(f"    {part:26}{row['forward_s'] * 1e3:10.3f}{row['backward_s'] * 1e3:10.3f}{seconds / whole:8.1%}"
                    f"{floor * 1e3:9.3f}{f'{seconds / floor:9.1f}' if floor else '':>9}{row['bytes'] / 1e6:9.2f}"
                    f"{row['operations'] / 1e9:8.3f}")
    return said
