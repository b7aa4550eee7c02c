"""Image data sets read from plain local files; nothing is ever downloaded."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..training.state import digest


class Images(Protocol):
    """A set of images of one shape (C, H, W), read by index; num_classes is 0 without labels."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def num_classes(self) -> int: ...

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images (B, C, H, W) float in [-1, 1] and labels (B,) int64, None without labels."""
        ...

    def identity(self) -> str:
        """A short text that is another one for other data."""
        ...


@dataclass(frozen=True)
class LabelledImages:
    """images (N, C, H, W) float in [-1, 1] and labels (N,) int64 in 0..num_classes-1.

    With num_classes = 0 the labels do not count.
    """

    images: Tensor
    labels: Tensor
    num_classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.images[index], self.labels[index] if self.num_classes else None

    def identity(self) -> str:
        tensors = {"images": self.images}
        if self.num_classes:
            tensors["labels"] = self.labels
        return f"{len(self)} images {digest(tensors)}"


def read_idx(path: str | Path) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, gzipped or not.

    Args:
        path: file in the IDX format of the MNIST distribution (magic 00 00 08 ndim, big-endian
            sizes, then the bytes).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an IDX file of unsigned bytes, or its length does not match its header.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no IDX file at {path}")
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is a damaged gzip file: {error}") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is no IDX file of unsigned bytes: it begins {raw[:4].hex(' ')}")
    ndim = raw[3]
    header = 4 + 4 * ndim
    if len(raw) < header:
        raise ValueError(f"{path} ends inside its header of {header} bytes")
    shape = struct.unpack(f">{ndim}I", raw[4:header])
    expected = header + math.prod(shape)
    if len(raw) != expected:
        raise ValueError(f"{path} has {len(raw)} bytes; its header {shape} asks for {expected}")
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)


def load_idx_folder(folder: str | Path, split: str = "train") -> LabelledImages:
    """The MNIST-style set in `folder`: `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`.

    Args:
        folder: where the four IDX files are, e.g. the one that the Debian package
            `dataset-fashion-mnist` installs, or any folder of MNIST files.
        split: "train" or "t10k".

    Raises:
        FileNotFoundError: a file is missing (the message names it).
        ValueError: unknown split, damaged file, images and labels that do not match, or none.
    """
    if split not in ("train", "t10k"):
        raise ValueError(f"split must be 'train' or 't10k', got {split!r}")

    def find(kind: str) -> Path:
        stem = Path(folder) / f"{split}-{kind}-ubyte"
        for path in (stem, stem.with_name(stem.name + ".gz")):
            if path.is_file():
                return path
        raise FileNotFoundError(f"neither {stem} nor {stem}.gz exists: is the folder right?")

    images, labels = read_idx(find("images-idx3")), read_idx(find("labels-idx1"))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(f"images {images.shape} and labels {labels.shape} do not belong together")
    if not len(labels):
        raise ValueError(f"{folder} holds no {split} images")
    pixels = torch.from_numpy(images.astype(np.float32))[:, None] / 127.5 - 1.0
    targets = torch.from_numpy(labels.astype(np.int64))
    return LabelledImages(pixels, targets, int(targets.max()) + 1)
