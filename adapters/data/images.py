"""Image tensors as picture files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...extras import require
from ...storage import whole_file


def tile(images: Tensor, columns: int) -> np.ndarray:
    """Images (N, C, H, W) in [-1, 1], C = 1 or 3, as one uint8 array (rows*H, columns*W[, 3])."""
    _check_images(images, "images")
    pixels = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round()
    return _side_by_side(pixels, columns).to(torch.uint8).squeeze(-1).numpy()


def difference_tile(images: Tensor, wanted: Tensor, columns: int) -> np.ndarray:
    """|images - wanted|, averaged over channels, laid out as `tile` does: float32 (rows*H,
    columns*W), in units of the images.

    Args:
        images, wanted: (N, C, H, W), C = 1 or 3, of one shape. columns: images beside each other.

    Raises:
        ValueError: another shape.
    """
    _check_images(images, "images")
    if wanted.shape != images.shape:
        raise ValueError(
            f"wanted must be of the shape of images, {tuple(images.shape)}, got "
            f"{tuple(wanted.shape)}"
        )
    apart = (images.detach().float() - wanted.detach().float()).abs().mean(1, keepdim=True)
    return _side_by_side(apart.cpu(), columns).squeeze(-1).numpy()


def _check_images(images: Tensor, name: str) -> None:
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"{name} must be (N, 1 or 3, H, W), got shape {tuple(images.shape)}")


def _side_by_side(images: Tensor, columns: int) -> Tensor:
    """(N, C, H, W) as (rows*H, columns*W, C), zeros where there are no more."""
    n, c, h, w = images.shape
    rows = -(-n // columns)
    padded = images.new_zeros((rows * columns, c, h, w))
    padded[:n] = images
    grid = padded.reshape(rows, columns, c, h, w).permute(0, 3, 1, 4, 2)
    return grid.reshape(rows * h, columns * w, c)


def save_png(path: str | Path, pixels: np.ndarray, scale: int = 1) -> None:
    """Write pixels as a PNG enlarged `scale` times; the file appears whole or not at all."""
    image = require("PIL.Image", "generative").fromarray(pixels)
    if scale != 1:
        image = image.resize((image.width * scale, image.height * scale), resample=0)
    with whole_file(path) as temporary:
        image.save(temporary, format="PNG")


def load_image(path: str | Path, shape: tuple[int, int, int]) -> Tensor:
    """A picture file as a float32 tensor of this shape (C, H, W) in [-1, 1].

    Args:
        path: PNG, JPEG or whatever else Pillow reads.
        shape: C is 1 (converted to grey) or 3 (RGB); the size must be the picture's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, or of another size: nothing is resized here.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}")
    channels, height, width = shape
    picture = open_picture(path, channels)
    if picture.size != (width, height):
        raise ValueError(
            f"{path} has {picture.width}x{picture.height} pixels, must have {width}x{height}"
        )
    return picture_tensor(picture)


def open_picture(path: Path, channels: int) -> Any:
    """A picture file as a decoded Pillow image, grey (channels = 1) or RGB.

    Raises:
        ValueError: it is no picture, or damaged.
    """
    try:
        with require("PIL.Image", "generative").open(path) as picture:
            return picture.convert("L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is no readable picture: {error}") from error


def picture_tensor(picture: Any) -> Tensor:
    """A grey or RGB Pillow image as a float32 tensor (C, H, W) in [-1, 1]."""
    pixels = torch.from_numpy(np.array(picture)).reshape(picture.height, picture.width, -1)
    return pixels.permute(2, 0, 1).float() / 127.5 - 1.0
