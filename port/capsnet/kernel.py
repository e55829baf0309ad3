"""Votes and dynamic routing in one differentiable step that never holds the votes.

Logits are linear in the capsules found so far: b_ij = û_ij · V_j, V_j the sum of all earlier v_j. So an
iteration needs the votes û_ij = u_i W_ij in two contractions only, and both can be had without them:

    agreement  û_ij · Q_j        = u_i · (W_ij Q_j)
    sum        Σ_i c_ij û_ij     = Σ_i (c_ij u_i) W_ij

each one matrix product a parent, with arrays of children × atoms_in for children × atoms_out, over
blocks of children small enough for the cache. Inside this file the axes are parent, child, atom_in,
batch (batch last, so that every elementwise operation runs along it).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from port.capsnet.routing import capsule_lengths, squash

# Bytes of one block's largest array: a share of a core's second-level cache.
BLOCK_BYTES = 1 << 20


def route_children(capsules: Tensor, weights: Tensor, n_parents: int, bias: Tensor | None = None,
                   iterations: int = 3, leaky: bool = False, gradient: str = "all",
                   epsilon: float = 0.0) -> Tensor:
    """`dynamic_routing(capsule_votes(…))` without the votes; the arguments are those of both.

    Args:
        capsules: u, `[batch, child, atom_in]`.
        weights: W, `[child, atom_in, parent·atom_out]`.
        n_parents: number of parents.
        bias: `[parent, atom_out]`, or None.
        iterations: number of times v is computed.
        leaky: a further logit 0 takes part in the softmax.
        gradient: `all` or `last`.
        epsilon: of squash.

    Returns:
        Parents `[batch, parent, atom_out]`.
    """
    return _RouteChildren.apply(capsules, weights, bias, n_parents, iterations, leaky, gradient, epsilon)


class _Blocks:
    """Children and their weights, block by block."""

    def __init__(self, capsules: Tensor, weights: Tensor, n_parents: int, block_bytes: int) -> None:
        batch, children, atoms_in = capsules.shape
        self.sizes = (n_parents, children, atoms_in, batch)
        self.u = capsules.permute(1, 2, 0).contiguous()
        self.w = weights.unflatten(2, (n_parents, -1)).permute(2, 0, 1, 3)
        child = n_parents * atoms_in * batch * capsules.element_size()
        # A GPU is better served by few large operations.
        step = children if capsules.device.type == "cuda" else max(1, block_bytes // child)
        self.bounds = [(start, min(start + step, children)) for start in range(0, children, step)]

    def __iter__(self):
        """(slice of children, W `[parent, child·atom_in, atom_out]`, u `[child, atom_in, batch]`)."""
        for start, end in self.bounds:
            w = self.w[:, start:end].reshape(self.sizes[0], -1, self.w.shape[-1])
            yield slice(start, end), w, self.u[start:end]


def _predict(w: Tensor, u: Tensor, q: Tensor) -> Tensor:
    """W_ij Q_j: `[parent, child, atom_in, batch]` from Q `[parent, atom_out, batch]`."""
    return torch.bmm(w, q).unflatten(1, u.shape[:2])


def _weigh(c: Tensor, u: Tensor) -> Tensor:
    """c_ij u_i: `[parent, child·atom_in, batch]` from c `[parent, child, batch]`."""
    return (c[:, :, None] * u).flatten(1, 2)


def _coupling(logits: Tensor, leaky: bool) -> Tensor:
    if not leaky:
        return torch.softmax(logits, 0)
    return torch.softmax(torch.cat([torch.zeros_like(logits[:1]), logits]), 0)[1:]


class _RouteChildren(torch.autograd.Function):
    """See `route_children`; the backward goes through the iterations in reverse, block by block."""

    @staticmethod
    def forward(ctx: Any, capsules: Tensor, weights: Tensor, bias: Tensor | None, n_parents: int,
                iterations: int, leaky: bool, gradient: str, epsilon: float) -> Tensor:
        blocks = _Blocks(capsules, weights, n_parents, BLOCK_BYTES)
        uniform = 1.0 / (n_parents + leaky)
        batch = capsules.shape[0]
        # Uniform coupling: one product for all parents.
        s = uniform * (capsules.flatten(1) @ weights.flatten(0, 1))
        s = s.view(batch, n_parents, -1).permute(1, 2, 0)
        sums, couplings, found = [], [], []
        for iteration in range(iterations):
            if iteration:
                coupling = s.new_empty(n_parents, capsules.shape[1], batch)
                s = torch.zeros_like(found[-1])
                for block, w, u in blocks:
                    logits = torch.sum(_predict(w, u, found[-1]).mul_(u), 2)
                    c = coupling[:, block] = _coupling(logits, leaky)
                    s.baddbmm_(w.mT, _weigh(c, u))
                couplings.append(coupling)
            if bias is not None:
                s = s + bias[..., None]
            sums.append(s)
            v = squash(s, 1, epsilon)
            found.append(v if not found else found[-1] + v)
        ctx.save_for_backward(capsules, weights, bias)
        ctx.kept = sums, couplings, found
        ctx.options = n_parents, uniform, gradient, epsilon, BLOCK_BYTES
        return v.permute(2, 0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        capsules, weights, bias = ctx.saved_tensors
        sums, couplings, found = ctx.kept
        n_parents, uniform, gradient, epsilon, block_bytes = ctx.options
        blocks = _Blocks(capsules, weights, n_parents, block_bytes)
        du = torch.zeros_like(blocks.u)
        dw = torch.zeros_like(weights)
        dw_blocks = dw.unflatten(2, (n_parents, -1)).permute(2, 0, 1, 3)
        db = None if bias is None else torch.zeros_like(bias)
        dv = grad.permute(1, 2, 0).contiguous()
        last = len(sums) - 1
        for iteration in range(last, -1, -1):
            ds = _squash_gradient(sums[iteration], dv, epsilon)
            if db is not None:
                db += ds.sum(2)
            if iteration == 0:
                flat = ds.permute(2, 0, 1).flatten(1) * uniform
                du += (weights.flatten(0, 1) @ flat.mT).view_as(du)
                dw += (capsules.flatten(1).mT @ flat).view_as(dw)
                break
            # What the logits of this iteration pass on to the sum of all earlier v.
            passed = torch.zeros_like(ds)
            for block, w, u in blocks:
                c = couplings[iteration - 1][:, block]
                predicted = _predict(w, u, ds)
                step = torch.bmm(_weigh(c, u), ds.mT)
                if gradient == "all":
                    dc = torch.sum(predicted * u, 2)
                    dlogits = c * (dc - torch.sum(c * dc, 0))
                    weighed = _weigh(dlogits, u)
                    passed.baddbmm_(w.mT, weighed)
                    step.baddbmm_(weighed, found[iteration - 1].mT)
                    du[block] += _predict(w, u, found[iteration - 1]).mul_(dlogits[:, :, None]).sum(0)
                du[block] += predicted.mul_(c[:, :, None]).sum(0)
                dw_blocks[:, block] += step.view_as(dw_blocks[:, block])
            if gradient == "last":
                break
            # v of iteration k is part of that sum in every later iteration.
            dv = passed if iteration == last else dv + passed
        return du.permute(2, 0, 1), dw, db, None, None, None, None, None


def _squash_gradient(s: Tensor, dv: Tensor, epsilon: float) -> Tensor:
    """What dv asks of s: f·(dv + ŝ (ŝ·dv) (2/(1 + n²) - n/(n + ε))), v = f s, ŝ = s/n, 0 at 0.

    Written out and not asked of autograd, so that a compiler can see it.
    """
    norm = capsule_lengths(s, 1).unsqueeze(1)
    above = norm > 0.0
    direction = torch.where(above, s / torch.where(above, norm, 1.0), 0.0)
    one_more = 1.0 + torch.square(norm)
    share = norm / (norm + epsilon) if epsilon else torch.ones_like(norm)
    along = torch.sum(direction * dv, 1, keepdim=True)
    return norm / one_more * share * (dv + direction * (along * (2.0 / one_more - share)))
