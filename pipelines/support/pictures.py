"""Pictures of what a model sees: templates, reconstructions, parts in place, what capsules explain.

PNG files with whole-number enlargement, so that a pixel stays a square.
"""

from __future__ import annotations

import colorsys
import json
from pathlib import Path

import numpy as np
import torch

from port.core import files
from port.data import dataset
from port.evaluation import looks

GAP = 2  # pixels between two images
SHADE = 0.93  # grey of the gaps


@torch.no_grad()
def write(folder: Path, model: torch.nn.Module, split: dataset.Split, n_images: int, seed: int,
          shift: str = "original") -> list[Path]:
    """Write the pictures of the first images of a split, at places drawn by `seed` as `shift` says, no noise.

    Beside them explained.json: of each image its label, where it has one, and its parts, with presence, the
    object capsule that explains each and the posterior probability of that.

    Raises:
        DataError: the split is empty.
    """
    if not len(split):
        raise dataset.DataError("no images to show")
    n_images = min(n_images, len(split))
    device = next(model.parameters()).device
    image = looks.arranged(split.images[:n_images].to(device), model.config.canvas, shift, seed)
    result = model(image, taps=True, pictures=True)
    shown = {name: value.cpu().numpy() for name, value in result.pictures.items()}
    presence = result.part_presence.cpu().numpy()
    objects = result.mass_explained_by_capsule.cpu().numpy()
    folder.mkdir(parents=True, exist_ok=True)
    given = image.cpu().numpy()
    taps = {name: result.taps[name].cpu().numpy() for name in (
        "part_dec/mixing_logits_with_bg", "res/is_from_capsule", "res/posterior_mixing_probs")}
    winner, posterior = taps["res/is_from_capsule"], taps["res/posterior_mixing_probs"]
    drawn = part_shares(taps["part_dec/mixing_logits_with_bg"], shown["transformed_templates"])
    aim = [] if np.array_equal(shown["target"], given) else [shown["target"]]  # edges, say
    paths = {
        "reconstructions": grid([given, *aim, shown["bottom_up"], shown["top_down"]]),
        "templates": sheet(shown["templates"][0]),
        "parts": part_rows(given, shown["transformed_templates"], presence),
        "transformed": grid([np.concatenate([one[None], parts]) for one, parts in zip(
            given[:8], shown["transformed_templates"][:8], strict=True)]),
        "capsules": capsule_rows(given, shown["top_down"], shown["per_capsule"], objects),
        "explained": explained_rows(given, drawn, winner, presence),
    }
    written = [save_png(folder / f"{name}.png", picture) for name, picture in paths.items()]
    rows = [{"image": i} | ({"label": int(split.labels[i])} if split.labelled else {}) | {"parts": [
        {"part": k, "presence": round(float(presence[i, k]), 4), "capsule": int(winner[i, k]),
         "posterior": round(float(posterior[i, k, winner[i, k]]), 4)}
        for k in np.argsort(-presence[i], kind="stable").tolist()]} for i in range(n_images)]
    path = folder / "explained.json"
    files.write_text(path, json.dumps(rows) + "\n")
    return [*written, path]


def grid(rows: list[np.ndarray]) -> np.ndarray:
    """Images `[N, C, H, W]` of each row side by side, rows below each other."""
    n, channels, height, width = rows[0].shape
    canvas = np.full((len(rows) * (height + GAP) + GAP, n * (width + GAP) + GAP, channels), SHADE)
    for r, row in enumerate(rows):
        for i, image in enumerate(row):
            top, left = GAP + r * (height + GAP), GAP + i * (width + GAP)
            canvas[top:top + height, left:left + width] = image.transpose(1, 2, 0)
    return canvas


def sheet(images: np.ndarray, columns: int = 16) -> np.ndarray:
    """Images `[N, C, H, W]` in a sheet of so many columns; the whole sheet is scaled to [0, 1]."""
    columns = min(columns, len(images))
    low, high = images.min(), images.max()
    images = (images - low) / max(high - low, 1e-8)
    missing = -len(images) % columns
    blank = np.full((missing, *images.shape[1:]), SHADE)
    images = np.concatenate([images, blank]).reshape(-1, columns, *images.shape[1:])
    return grid(list(images))


def part_rows(image: np.ndarray, transformed: np.ndarray, presence: np.ndarray,
              n_images: int = 8, n_parts: int = 8) -> np.ndarray:
    """Each image beside its most present parts, in order, at their places."""
    rows = []
    for picture, parts, present in zip(image, transformed, presence, strict=True):
        order = np.argsort(-present, kind="stable")[:n_parts]
        weighted = parts[order] * present[order, None, None, None]
        rows.append(np.concatenate([picture[None], weighted]))
    return grid(rows[:n_images])


def capsule_rows(image: np.ndarray, top_down: np.ndarray, drawn: np.ndarray, presence: np.ndarray,
                 n_images: int = 8, n_capsules: int = 8) -> np.ndarray:
    """Each image, all capsules together, then its most present object capsules alone, in order.

    Args:
        image: `[B, C, S, S]`.
        top_down: reconstruction from the winning votes, `[B, C, S, S]`.
        drawn: reconstruction from the votes of one capsule, `[B, O, C, S, S]`.
        presence: posterior presence, `[B, O]`.
    """
    rows = []
    for picture, together, alone, present in zip(image, top_down, drawn, presence, strict=True):
        order = np.argsort(-present, kind="stable")[:n_capsules]
        rows.append(np.concatenate([picture[None], together[None], alone[order]]))
    return grid(rows[:n_images])


def part_shares(mixing_logits: np.ndarray, transformed: np.ndarray) -> np.ndarray:
    """How much light each part adds to the mixture's mean, `[B, K, S, S]`; the background is left out.

    Args:
        mixing_logits: channels last, the background behind the parts, `[B, K + 1, S, S, 1 or C]`.
        transformed: the templates in place, `[B, K, C, S, S]`.
    """
    weight = np.exp(mixing_logits - mixing_logits.max(1, keepdims=True))
    weight = np.moveaxis(weight / weight.sum(1, keepdims=True), -1, 2)[:, :-1]
    return (weight * transformed).mean(2)


def capsule_colour(capsule: int) -> np.ndarray:
    """A colour for the number of a capsule, the same in every picture; neighbours differ in hue."""
    return np.array(colorsys.hsv_to_rgb(capsule * 0.618034 % 1.0, 0.85 - 0.3 * (capsule // 8 % 2), 1.0))


def explained_rows(image: np.ndarray, drawn: np.ndarray, winner: np.ndarray, presence: np.ndarray,
                   n_images: int = 8, n_capsules: int = 6) -> np.ndarray:
    """Each image, its parts in the colours of the capsules that explain them, then each capsule alone.

    Capsules come in the order of the presence of the parts they explain; equal colours are one capsule.

    Args:
        image: `[B, C, S, S]`.
        drawn: from `part_shares`.
        winner: capsule of each part, `[B, K]`.
        presence: of the parts, `[B, K]`.
    """
    rows = []
    n_capsules = min(n_capsules, int(winner.max(initial=0)) + 1)
    for picture, parts, capsules, present in zip(image, drawn, winner, presence, strict=True):
        colours = np.stack([capsule_colour(capsule) for capsule in capsules])
        light = parts / max(float(parts.sum(0).max()), 1e-8)
        weight = np.bincount(capsules, present, n_capsules)
        order = np.argsort(-weight, kind="stable")[:n_capsules]
        chosen = [np.ones(len(capsules), bool), *(capsules == o for o in order)]
        grey = np.broadcast_to(picture, (3, *picture.shape[1:])) if len(picture) == 1 else picture
        rows.append(np.stack([grey, *(np.einsum("kc,khw->chw", colours[one], light[one])
                                      for one in chosen)]))
    return grid(rows[:n_images])


def save_png(path: Path, picture: np.ndarray, width: int = 900) -> Path:
    """Write an array `[H, W, C]` in [0, 1], enlarged by a whole number to about `width`."""
    pixels = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    factor = max(1, width // pixels.shape[1])
    pixels = pixels.repeat(factor, 0).repeat(factor, 1)
    files.write_bytes(path, encode_png(pixels))
    return path


def encode_png(pixels: np.ndarray) -> bytes:
    """An 8-bit grey or RGB PNG from `[H, W, 1 or 3]`.

    Not by Pillow, which is no dependency here, only one of Matplotlib's: DVC compares the files by their bytes,
    which its versions change.
    """
    import struct
    import zlib

    height, width, channels = pixels.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content \
            + struct.pack(">I", zlib.crc32(kind + content))
    lines = np.concatenate([np.zeros((height, 1), np.uint8),
                            pixels.reshape(height, width * channels)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) \
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)) + chunk(b"IEND", b"")
