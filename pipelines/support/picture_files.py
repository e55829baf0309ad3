"""Pictures from files as a model sees them: bytes, grey or red, green and blue, the right way up.

What Pillow opens has one of twenty modes, which its `convert` would bring to bytes by cutting off: 16-bit
grey becomes black and white, what is drawn on transparency becomes black. Here each is read by its meaning,
or refused in words.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.support.boundary import one_line
from pipelines.support.values import BadInput

# Readers that are looked at first, by content: the suffix says little, and most others are for rarities.
FORMATS = ("PNG", "JPEG", "BMP")
# A model's canvas is a few hundred pixels wide; more is a mistake, or meant to fill the memory.
MOST_PIXELS = 50_000_000
MOST_FILE = 200 * 2**20
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx"}
PLAIN = ("L", "RGB", "CMYK", "YCbCr", "HSV", "1", "P")
WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def _refused(path: str | os.PathLike, words: str) -> BadInput:
    return BadInput(f"images {path}: {words}")


def visible(path: Path) -> bool:
    """Whether a name in a folder is a user's, not one that a system leaves there (._x.png, Thumbs.db)."""
    return not path.name.startswith(".") and path.name.lower() not in SYSTEM_FILES


def read(path: str | os.PathLike, channels: int, most_side: int | None = None) -> np.ndarray:
    """A picture as uint8 `[H, W]` for one channel, `[H, W, 3]` for three.

    - 16-bit grey is divided by 257; floats in [0, 1] are multiplied by 255; one bit is 0 or 255.
    - A palette, CMYK, YCbCr and HSV are the colours they stand for; colours become grey by their luminance.
    - Transparency is laid on white, as a page shows it.
    - A rotation tag (EXIF) is followed.

    Args:
        path: of the file.
        channels: of the model, 1 or 3.
        most_side: refuse a larger one before its pixels are unpacked.

    Raises:
        BadInput: no picture, damaged, several in one file, too large, or of a mode without a meaning here.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise _refused(path, "reading pictures needs Pillow; install pillow, or give a .npy") from None
    if channels not in (1, 3):
        raise _refused(path, f"a picture has 1 channel or 3, the model takes {channels}; give a "
                       ".npy")
    try:
        size = os.stat(path).st_size
        if size > MOST_FILE:
            raise _refused(path, f"{size / 2**20:,.0f} MB; more than {MOST_FILE // 2**20} MB is no "
                                 "picture for a model")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower
            with Image.open(path, formats=FORMATS) as picture:
                _check_size(picture, path, most_side)
                if getattr(picture, "n_frames", 1) > 1:
                    raise _refused(path, f"{picture.n_frames} pictures in one file; give each a file")
                return _bytes(ImageOps.exif_transpose(picture), channels, path)
    except BadInput:
        raise
    except Image.UnidentifiedImageError:
        raise _refused(path, f"no {', '.join(FORMATS)} picture, whatever its name says") from None
    except Image.DecompressionBombError:  # Pillow's own limit, of which it asks before ours
        raise _refused(path, f"its pixels unpack to more than {MOST_PIXELS:,}; make it smaller") from None
    except MemoryError:
        raise
    except Exception as error:  # readers raise whatever a damaged file makes them stumble over
        raise _refused(path, f"cannot be read ({one_line(error)})") from None


def _check_size(picture: Any, path: str | os.PathLike, most_side: int | None) -> None:
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise _refused(path, f"{height}x{width} pixels unpack to more than {MOST_PIXELS:,}; make it "
                       "smaller")
    if most_side is not None and max(width, height) > most_side:
        raise _refused(path, f"{height}x{width} pixels do not fit the model's canvas of "
                       f"{most_side}; make them smaller")


def _bytes(picture: Any, channels: int, path: str | os.PathLike) -> np.ndarray:
    """The pixels of an upright picture."""
    mode, wanted = picture.mode, "L" if channels == 1 else "RGB"
    if mode in WITH_ALPHA or "transparency" in picture.info:
        if mode.startswith("I"):
            raise _refused(path, "16-bit grey with a transparent value; save it without")
        picture = _on_white(picture.convert("RGBA"), path)
        mode = "RGB"
    if mode.startswith("I;16") or (mode == "I" and picture.format in ("PNG", None)):
        values = np.asarray(picture).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise _refused(path, f"grey values from {values.min()} to {values.max()}; 16 bits hold "
                           "0..65535")
        grey = ((values + 128) // 257).astype(np.uint8)  # 65535 = 255 · 257
        return grey if channels == 1 else np.repeat(grey[..., None], 3, 2)
    if mode == "F":
        values = np.asarray(picture)
        if not (values.size and values.min() >= 0 and values.max() <= 1):
            raise _refused(path, "floats must lie in [0, 1]")
        grey = np.round(values * 255).astype(np.uint8)
        return grey if channels == 1 else np.repeat(grey[..., None], 3, 2)
    if mode not in PLAIN:
        raise _refused(path, f"pixels of mode {mode}, whose grey values are not known here; save it "
                       "as 8-bit grey or RGB")
    return np.asarray(picture.convert("RGB").convert(wanted) if mode not in ("L", "1") else
                      picture.convert(wanted))


def _on_white(picture: Any, path: str | os.PathLike) -> Any:
    """A picture with transparency as it looks on a white page.

    Raises:
        BadInput: nothing of it can be seen there.
    """
    from PIL import Image

    page = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    alpha = np.asarray(picture)[..., 3]
    if alpha.min() < alpha.max() and np.ptp(np.asarray(page)) == 0:
        raise _refused(path, "nothing but white on transparency, which no white page shows; "
                       "save it on the background that it is meant for")
    return page
