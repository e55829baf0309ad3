"""Viewpoint equivariance: move an image, and see whether part poses move with it.

A motion is an affine map G of the canvas, 3×3, in its coordinates (-1 to 1, x to the right, y down). What was seen at
x is seen at G·x afterwards. A part that follows exactly has

    G·P      where it had P before, if a pose maps its template to the canvas: point u of the template is at P·u before,
             at G·P·u afterwards
    Q·G⁻¹    where it had Q before, if a pose maps the canvas to its template (`inverse_space_transform` false): at x is
             point Q·x of the template before, and what is at x afterwards was at G⁻¹·x

With Q = P⁻¹ they are the same: (G·P)⁻¹ = P⁻¹·G⁻¹. A part lies where P, or Q⁻¹, puts its template's corners.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from port.core import warp
from port.scae.part_encoder import PartCapsules

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
CORNERS = ((-1.0, -1.0, 1.0), (1.0, -1.0, 1.0), (-1.0, 1.0, 1.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Followed:
    """How part poses followed a motion; distances in pixels, parts weighted by presence.

    error: quantiles of the distance between a part's corners and where G puts them; required: of the
    distance that G asks for, the error of a part that stays; slope: share of the motion made, 1 for all of
    it, 0 for none; same_object: share of images whose most present object capsule stays the same;
    by_chance: of pairs of two images, drawn with replacement, that have the same one.
    """

    error: dict[str, float]
    required: dict[str, float]
    slope: float
    same_object: float
    by_chance: float


def motion(canvas: int, shift: tuple[float, float] = (0.0, 0.0), degrees: float = 0.0
           ) -> Float[Tensor, "3 3"]:
    """G: a turn about the middle of the canvas, then a shift.

    Args:
        canvas: S, its side in pixels.
        shift: pixels to the right and down.
        degrees: clockwise as the picture is seen.

    Returns:
        float64 `[3, 3]`.
    """
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = (2.0 * pixels / (canvas - 1) for pixels in shift)
    return torch.tensor([[c, -s, x], [s, c, y], [0.0, 0.0, 1.0]], dtype=torch.float64)


def move_images(image: Float[Tensor, "batch channels side side"], matrix: Float[Tensor, "3 3"]
                ) -> Float[Tensor, "batch channels side side"]:
    """Images moved by G, bilinear, zeros from outside: what the part decoder does with a template.

    Args:
        image: `[B, C, S, S]`.
        matrix: G.
    """
    pose = matrix[:2].flatten().to(image).expand(len(image), 1, 6)
    return warp.warp_templates(image[:, None], pose, tuple(image.shape[2:]))[:, 0]


def move_poses(pose: Float[Tensor, "*batch 6"], matrix: Float[Tensor, "3 3"], to_canvas: bool = True
               ) -> Float[Tensor, "*batch 6"]:
    """Poses [a b tx c d ty] of parts that follow G: G·P, or Q·G⁻¹ of poses that map the canvas to the template."""
    if not to_canvas:
        rows = pose.unflatten(-1, (2, 3))
        last = torch.tensor([0.0, 0.0, 1.0]).to(pose).expand(*pose.shape[:-1], 1, 3)
        inverse = torch.linalg.inv(matrix).to(pose)
        return (torch.cat([rows, last], -2) @ inverse)[..., :2, :].flatten(-2)
    moved = matrix[:2, :2].to(pose) @ pose.unflatten(-1, (2, 3))
    shift = torch.cat([torch.zeros(2, 2, dtype=matrix.dtype), matrix[:2, 2:]], 1).to(pose)
    return (moved + shift).flatten(-2)


def corners(pose: Float[Tensor, "*batch 6"], canvas: int, to_canvas: bool = True) -> Float[Tensor, "*batch 4 2"]:
    """Where a part with this pose puts the four corners of its template, in pixels of the canvas."""
    pose = pose if to_canvas else warp.inverse_affine(pose)
    points = torch.tensor(CORNERS, dtype=pose.dtype, device=pose.device)
    return points @ pose.unflatten(-1, (2, 3)).mT * ((canvas - 1) / 2.0)


@torch.no_grad()
def follow(model: torch.nn.Module, image: Float[Tensor, "n channels side side"],
           matrix: Float[Tensor, "3 3"], batch_size: int = 128) -> Followed:
    """How far the part poses of a model follow a motion of its images, without noise.

    The error of a part is the root mean square distance of its corners to where G puts them; the slope is
    Σ ⟨observed displacement, required⟩ / Σ |required|². Weights are presence before times after.

    Args:
        model: an image autoencoder; its setting `inverse_space_transform` says which way poses map.
        image: on its canvas; what G moves out of it is lost to the model too.
        matrix: G.
        batch_size: images at a time.
    """
    canvas, to_canvas = image.shape[-1], model.config.part_decoder.inverse_space_transform
    errors, required, weights, along, whole, same = [], [], [], 0.0, 0.0, 0
    chosen = []
    for start in range(0, len(image), batch_size):
        before = image[start:start + batch_size]
        after = move_images(before, matrix).clamp(0.0, 1.0)
        (seen, thought), (moved, then) = (_looked_at(model, batch) for batch in (before, after))
        was = corners(seen.pose.double(), canvas, to_canvas)
        wanted = corners(move_poses(seen.pose.double(), matrix, to_canvas), canvas, to_canvas)
        found = corners(moved.pose.double(), canvas, to_canvas)
        weight = (seen.presence * moved.presence).double()
        errors.append((found - wanted).square().sum(-1).mean(-1).sqrt())
        required.append((wanted - was).square().sum(-1).mean(-1).sqrt())
        weights.append(weight)
        step = weight[..., None, None] * (wanted - was)
        along += float((step * (found - was)).sum())
        whole += float((step * (wanted - was)).sum())
        same += int((thought == then).sum())
        chosen.append(thought)
    weight = torch.cat(weights).flatten().cpu().numpy()
    return Followed(quantiles(torch.cat(errors).flatten().cpu().numpy(), weight),
                    quantiles(torch.cat(required).flatten().cpu().numpy(), weight),
                    along / max(whole, 1e-300), same / len(image),
                    float((torch.cat(chosen).bincount() / len(image)).square().sum()))


def _looked_at(model: torch.nn.Module, image: Float[Tensor, "n channels side side"]
               ) -> tuple[PartCapsules, Int64[Tensor, " n"]]:
    """The part capsules of images and their most present object, from one forward pass."""
    parts: list[PartCapsules] = []
    hook = model.part_encoder.register_forward_hook(lambda module, given, found: parts.append(found))
    try:
        objects = model(image).mass_explained_by_capsule.argmax(1)
    finally:
        hook.remove()
    return parts[0], objects


def quantiles(values: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Weighted quantiles by name: the least value at which the weight so far reaches the share."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    places = np.searchsorted(reached, np.array(QUANTILES) * reached[-1])
    return {f"{100 * q:g}": float(values[order][min(place, len(values) - 1)])
            for q, place in zip(QUANTILES, places, strict=True)}
