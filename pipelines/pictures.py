"""Pictures of what a model sees: templates, reconstructions, where parts go, what capsules draw.

PNG files with whole-number enlargement, so that a pixel stays a square.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from port import data

GAP = 2  # pixels between two images
SHADE = 0.93  # grey of the gaps


@torch.no_grad()
def write(folder: Path, model: torch.nn.Module, split: data.Split, n_images: int, seed: int) \
        -> list[Path]:
    """Write the pictures of the first images of a split, shifted by draws of `seed`, no noise.

    Raises:
        DataError: the split is empty.
    """
    if not len(split):
        raise data.DataError("no images to show")
    n_images = min(n_images, len(split))
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    image = data.place(split.images[:n_images].to(device), model.config.canvas, generator)
    result = model(image, pictures=True)
    shown = {name: value.cpu().numpy() for name, value in result.pictures.items()}
    presence = result.part_presence.cpu().numpy()
    objects = result.posterior_presence.cpu().numpy()
    folder.mkdir(parents=True, exist_ok=True)
    given = image.cpu().numpy()
    aim = [] if np.array_equal(shown["target"], given) else [shown["target"]]  # edges, say
    paths = {
        "reconstructions": grid([given, *aim, shown["bottom_up"], shown["top_down"]]),
        "templates": sheet(shown["templates"][0]),
        "parts": part_rows(given, shown["transformed_templates"], presence),
        "capsules": capsule_rows(given, shown["top_down"], shown["per_capsule"], objects),
    }
    return [save_png(folder / f"{name}.png", picture) for name, picture in paths.items()]


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


def save_png(path: Path, picture: np.ndarray, width: int = 900) -> Path:
    """Write an array `[H, W, C]` in [0, 1], enlarged by a whole number to about `width`."""
    pixels = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    factor = max(1, width // pixels.shape[1])
    pixels = pixels.repeat(factor, 0).repeat(factor, 1)
    path.write_bytes(encode_png(pixels))
    return path


def encode_png(pixels: np.ndarray) -> bytes:
    """An 8-bit grey or RGB PNG from `[H, W, 1 or 3]`, without an imaging library."""
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
