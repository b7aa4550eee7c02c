"""More of IDX files: all shapes, damage inside the gzip stream, headers that overflow."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from idx_files import idx_bytes

from quadflow.adapters.data.datasets import load_idx_folder, read_idx

RANDOM = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def packed(raw: bytes) -> bytes:
    return gzip.compress(raw, mtime=0)


def write_folder(
    folder: Path, images: np.ndarray, labels: np.ndarray, split: str = "train"
) -> None:
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        (folder / f"{split}-{kind}-ubyte").write_bytes(idx_bytes(array))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (7, 6, 5), (2, 3, 4, 5), (0, 28, 28)])
def test_arrays_come_back(shape: tuple[int, ...], zipped: bool, tmp_path: Path) -> None:
    array, path = pixels(*shape), tmp_path / "file"
    path.write_bytes(packed(idx_bytes(array)) if zipped else idx_bytes(array))
    for given in (path, str(path)):
        got = read_idx(given)
        assert got.dtype == np.uint8
        assert np.array_equal(got, array)
        assert got.shape == shape


def test_the_two_splits_are_not_mixed_up(tmp_path: Path) -> None:
    write_folder(tmp_path, pixels(4, 2, 2), np.zeros(4, np.uint8))
    write_folder(tmp_path, pixels(3, 2, 2), np.ones(3, np.uint8), split="t10k")
    assert load_idx_folder(str(tmp_path)).labels.tolist() == [0, 0, 0, 0]
    assert load_idx_folder(tmp_path, "t10k").labels.tolist() == [1, 1, 1]


# -- errors ----------------------------------------------------------------------------------------

GOOD = idx_bytes(pixels(3, 4))
BAD_BODY = bytearray(packed(idx_bytes(pixels(30, 40))))
BAD_BODY[400] ^= 0xFF
BAD_BODY[10] = 0xFF
BAD_SUM = bytearray(packed(GOOD))
BAD_SUM[-6] ^= 0xFF


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is no IDX file of unsigned bytes: it begins $"),
        (GOOD[:3], "is no IDX file of unsigned bytes: it begins 00 00 08$"),
        (b"\x89PNG\r\n", "is no IDX file of unsigned bytes: it begins 89 50 4e 47"),
        (b"\x00\x00\x0d" + GOOD[3:], "is no IDX file of unsigned bytes"),  # of floats
        (GOOD[:4], "ends inside its header of 12 bytes"),
        (GOOD[:11], "ends inside its header of 12 bytes"),
        (GOOD[:-1], r"has 23 bytes; its header \(3, 4\) asks for 24"),
        (GOOD + b"\x00", r"has 25 bytes; its header \(3, 4\) asks for 24"),
        (GOOD[:12], "has 12 bytes"),
        # sizes whose product is 2**64, which is 0 in 64 bits
        (
            b"\x00\x00\x08\x03" + struct.pack(">3I", 2**31, 2**31, 4),
            r"has 16 bytes; its header .* asks for 18446744073709551632",
        ),
        (packed(GOOD)[:-9], "is a damaged gzip file"),
        (packed(GOOD)[:5], "is a damaged gzip file"),
        (bytes(BAD_BODY), "is a damaged gzip file"),
        (bytes(BAD_SUM), "is a damaged gzip file"),
        (packed(GOOD[:-1]), r"has 23 bytes; its header \(3, 4\) asks for 24"),
        (packed(b"hello"), "is no IDX file of unsigned bytes: it begins 68 65 6c 6c"),
    ],
    # names of their own: those that pytest makes of bytes are not fit to be read
    ids=[
        "empty",
        "header cut at 3",
        "png",
        "floats",
        "header cut at 4",
        "header cut at 11",
        "short",
        "long",
        "no body",
        "overflow",
        "gzip cut",
        "gzip cut at 5",
        "gzip body",
        "gzip sum",
        "gzip short",
        "gzip hello",
    ],
)
def test_damaged_files(raw: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels"),
    [((4, 2, 2), (3,)), ((4, 2), (4,)), ((4, 2, 2), (4, 1)), ((4, 2, 2, 1), (4,))],
)
def test_images_and_labels_that_do_not_match(
    images: tuple[int, ...], labels: tuple[int, ...], tmp_path: Path
) -> None:
    write_folder(tmp_path, pixels(*images), np.zeros(labels, np.uint8))
    with pytest.raises(ValueError, match="do not belong together") as caught:
        load_idx_folder(tmp_path)
    assert str(images) in str(caught.value)


def test_an_empty_set(tmp_path: Path) -> None:
    write_folder(tmp_path, pixels(0, 28, 28), np.zeros(0, np.uint8))
    with pytest.raises(ValueError, match="holds no train images") as caught:
        load_idx_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)
