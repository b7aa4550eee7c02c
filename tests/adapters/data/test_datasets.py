"""IDX files: read right, and refused with the reason when they are not right."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from idx_files import idx_bytes, write_folder

from quadflow.adapters.data.datasets import load_idx_folder, read_idx


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_folder_is_read(tmp_path: Path, gzipped: bool) -> None:
    write_folder(tmp_path, count=12, size=8, gzipped=gzipped)
    data = load_idx_folder(tmp_path)
    assert data.images.shape == (12, 1, 8, 8) and data.images.dtype == torch.float32
    assert data.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert data.num_classes == 10
    assert data.images.unique().tolist() == [-1.0, 1.0]
    assert data.images[1, 0, :, 0].tolist() == [1, -1, -1, 1, -1, -1, 1, -1]  # every third row


def test_values_are_scaled_to_plus_minus_one(tmp_path: Path) -> None:
    array = np.array([[[0, 255], [51, 204]]])
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(array))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.array([0])))
    images = load_idx_folder(tmp_path).images
    assert torch.allclose(images.flatten(), torch.tensor([-1.0, 1.0, -0.6, 0.6]), atol=1e-6)


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"", "is no IDX file of unsigned bytes"),
        (b"PNG....", "it begins 50 4e 47 2e"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 1, 0]), "no IDX file of unsigned bytes"),
        (bytes([0, 0, 8, 3, 0, 0]), "ends inside its header of 16 bytes"),
        (idx_bytes(np.zeros((2, 3)))[:-1], r"has 17 bytes; its header \(2, 3\) asks for 18"),
        (idx_bytes(np.zeros(4)) + b"x", "has 13 bytes; .* asks for 12"),
        (gzip.compress(idx_bytes(np.zeros(400)), mtime=0)[:-10], "damaged gzip file"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, raw: bytes, match: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=match):
        read_idx(path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no IDX file at .*nothing"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        load_idx_folder(tmp_path)
    write_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="t10k-images-idx3-ubyte"):
        load_idx_folder(tmp_path, "t10k")
    with pytest.raises(ValueError, match="split must be 'train' or 't10k', got 'test'"):
        load_idx_folder(tmp_path, "test")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(3)))
    with pytest.raises(ValueError, match=r"images \(24, 28, 28\) and labels \(3,\) do not belong"):
        load_idx_folder(tmp_path)
