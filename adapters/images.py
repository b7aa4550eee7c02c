"""Image tensors as picture files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .extras import require


def tile(images: Tensor, columns: int) -> np.ndarray:
    """Images (N, C, H, W) in [-1, 1], C = 1 or 3, as one uint8 array (rows*H, columns*W[, 3])."""
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be (N, 1 or 3, H, W), got shape {tuple(images.shape)}")
    n, c, h, w = images.shape
    rows = -(-n // columns)
    padded = torch.full((rows * columns, c, h, w), -1.0)
    padded[:n] = images.detach().float().cpu().clamp(-1, 1)
    grid = padded.reshape(rows, columns, c, h, w).permute(0, 3, 1, 4, 2)
    pixels = ((grid + 1) * 127.5).round().to(torch.uint8).reshape(rows * h, columns * w, c)
    return pixels.squeeze(-1).numpy()


def save_png(path: str | Path, pixels: np.ndarray, scale: int = 1) -> None:
    """Write pixels as a PNG enlarged `scale` times; the file appears whole or not at all."""
    image = require("PIL.Image", "generative").fromarray(pixels)
    if scale != 1:
        image = image.resize((image.width * scale, image.height * scale), resample=0)
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        image.save(temporary, format="PNG")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_image(path: str | Path, shape: tuple[int, int, int]) -> Tensor:
    """A picture file as a float32 tensor of this shape (C, H, W) in [-1, 1].

    Args:
        path: PNG, JPEG or whatever else Pillow reads.
        shape: C is 1 (converted to grey) or 3 (RGB); the size must be the picture's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, or of another size: nothing is resized here.
    """
    pillow = require("PIL.Image", "generative")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}")
    channels, height, width = shape
    try:
        with pillow.open(path) as picture:
            picture = picture.convert("L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is no readable picture: {error}") from error
    if picture.size != (width, height):
        raise ValueError(
            f"{path} has {picture.width}x{picture.height} pixels, must have {width}x{height}"
        )
    pixels = np.asarray(picture, dtype=np.float32).reshape(height, width, channels)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1).contiguous()
