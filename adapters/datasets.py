"""Image data sets read from plain local files; nothing is ever downloaded."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelledImages:
    """images (N, C, H, W) float32 in [-1, 1] and labels (N,) int64 in 0..num_classes-1."""

    images: Tensor
    labels: Tensor
    num_classes: int


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
