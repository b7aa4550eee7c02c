"""Small IDX folders for tests of data sets, training and the command line."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np


def idx_bytes(array: np.ndarray) -> bytes:
    """The array of unsigned bytes in the IDX format."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_folder(folder: Path, count: int = 24, size: int = 28, *, gzipped: bool = False) -> None:
    """A training set of `count` images of ten kinds of stripes, labels 0 to 9 in turn."""
    labels = np.arange(count) % 10
    rows = np.arange(size)
    images = np.stack([np.outer((rows % (k + 2) == 0) * 255, np.ones(size)) for k in labels])
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        raw = idx_bytes(array)
        path = folder / f"train-{name}-ubyte{'.gz' if gzipped else ''}"
        path.write_bytes(gzip.compress(raw) if gzipped else raw)
