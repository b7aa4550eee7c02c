"""Folders of pictures and tensor files: read right, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from idx_files import write_folder
from PIL import Image
from safetensors.torch import save_file

from quadflow.adapters.data.sources import ImageFolder, load_images, load_tensor_file


def picture(path: Path, width: int = 6, height: int = 6, value: int = 0, mode: str = "RGB") -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = np.full((height, width, 3), value, np.uint8)
    pixels[0, 0] = (255, 0, 0)
    Image.fromarray(pixels).convert(mode).save(path)


def test_a_folder_of_classes(tmp_path: Path) -> None:
    for name, value in (("b/1.png", 255), ("a/2.bmp", 0), ("b/0.PNG", 51)):
        picture(tmp_path / name, value=value)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    data = ImageFolder(tmp_path, channels=3)
    assert data.class_names == ["a", "b"] and len(data) == 3 and data.shape == (3, 6, 6)
    images, labels = data.batch(torch.tensor([2, 0, 1]))
    assert labels is not None and labels.tolist() == [1, 0, 1]
    assert images[:, 1, 3, 3].tolist() == pytest.approx([1.0, -1.0, -0.6])
    assert images[0, :, 0, 0].tolist() == [1.0, -1.0, -1.0]
    assert data[0][1] == 0 and torch.equal(data[0][0], images[1])
    assert ImageFolder(tmp_path, channels=3, labelled=False).batch(torch.tensor([0]))[1] is None
    grey = ImageFolder(tmp_path, channels=1).batch(torch.tensor([1]))[0]
    assert grey.shape == (1, 1, 6, 6)
    assert float(grey[0, 0, 0, 0]) == pytest.approx(76 / 127.5 - 1)  # luma of red


def test_pictures_are_resized_and_cropped(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40), np.uint8)
    pixels[:, 10:30] = 255  # the middle square
    Image.fromarray(pixels).save(tmp_path / "0.png")
    picture(tmp_path / "1.jpg", 9, 50)
    data = ImageFolder(tmp_path, channels=1, size=8)
    assert data.num_classes == 0
    images, labels = data.batch(torch.arange(2))
    assert labels is None and images.shape == (2, 1, 8, 8)
    assert float(images[0, 0, :, 1:-1].min()) == 1.0
    with pytest.raises(ValueError, match=r"1\.jpg has 50x9 pixels, .*0\.png 20x40: give size="):
        ImageFolder(tmp_path, channels=1)


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"{i}.png", 40, 40)
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1\.png is no readable picture"):
        ImageFolder(tmp_path, channels=1)
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    data = ImageFolder(tmp_path, channels=1)
    data.batch(torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"1\.png is no readable picture"):
        data.batch(torch.tensor([0, 1]))


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte.*nor pictures"):
        load_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder or file of images at"):
        load_images(tmp_path / "nothing")
    picture(tmp_path / "a" / "0.png")
    with pytest.raises(ValueError, match=r"say channels=1 \(grey\) or channels=3 \(RGB\)"):
        load_images(tmp_path)
    with pytest.raises(ValueError, match=r"channels must be 1 \(grey\) or 3 \(RGB\), got 4"):
        load_images(tmp_path, channels=4)
    with pytest.raises(ValueError, match="size must be >= 1, got 0"):
        load_images(tmp_path, channels=1, size=0)
    picture(tmp_path / "0.png")
    with pytest.raises(ValueError, match="has pictures itself and in its folders a"):
        load_images(tmp_path, channels=1)


def test_idx_folders(tmp_path: Path) -> None:
    write_folder(tmp_path, count=12, size=8)
    assert load_images(tmp_path).num_classes == 10
    assert load_images(tmp_path, labelled=False).batch(torch.arange(2))[1] is None
    with pytest.raises(ValueError, match="has 1 channels, not channels=3"):
        load_images(tmp_path, channels=3)
    with pytest.raises(ValueError, match=r"images of \(8, 8\), not size=28"):
        load_images(tmp_path, size=28)


@pytest.mark.parametrize("kind", [".pt", ".npz", ".safetensors"])
def test_tensor_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{kind}"
    tensors = {
        "images": torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None].expand(3, 2, 2),
        "labels": torch.tensor([2, 0, 1]),
    }

    def write(values: dict[str, torch.Tensor]) -> None:
        if kind == ".npz":
            np.savez(path, **{k: v.numpy() for k, v in values.items()})
        elif kind == ".pt":
            torch.save(values, path)
        else:
            save_file({k: v.contiguous() for k, v in values.items()}, path)

    write(tensors)
    data = load_images(path)
    assert data.shape == (1, 2, 2) and data.num_classes == 3
    images, labels = data.batch(torch.arange(3))
    assert images[:, 0, 0, 0].tolist() == pytest.approx([-1, -0.6, 1])
    assert labels is not None and labels.tolist() == [2, 0, 1]
    one = data.identity()
    write({"images": tensors["images"]})
    data = load_images(path)
    assert data.num_classes == 0 and data.identity() != one
    raw = path.read_bytes()
    for broken in (b"", raw[: len(raw) // 2], b"x" * 100):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="is no readable tensor file"):
            load_images(path)


IMAGES = torch.zeros(4, 1, 2, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pictures": IMAGES}, r"holds \['pictures'\]; it must hold 'images'"),
        ({"images": IMAGES, "extra": IMAGES}, "holds .*'extra'"),
        ({"images": IMAGES + 1.5}, r"run from 1\.5 to 1\.5; floating point pixels must be"),
        ({"images": IMAGES / 0}, "run from nan to nan"),
        ({"images": IMAGES.to(torch.int64)}, "are torch.int64; it must be uint8 or floating"),
        ({"images": IMAGES[0, 0]}, r"have shape \(2, 2\)"),
        ({"images": IMAGES[:0]}, "and not empty"),
        ({"images": IMAGES, "labels": torch.zeros(3, dtype=torch.int64)}, r"shape \(4,\)"),
        ({"images": IMAGES, "labels": torch.zeros(4)}, "labels in .* are torch.float32"),
        ({"images": IMAGES, "labels": torch.tensor([0, 1, -1, 2])}, "whole numbers from 0"),
        ([1, 2], "must hold tensors by name, got list"),
    ],
)
def test_bad_tensors(values: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(values, path)
    with pytest.raises(ValueError, match=message) as caught:
        load_tensor_file(path)
    assert str(path) in str(caught.value)


def test_other_endings(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"must be a folder or end in one of \.pt"):
        load_images(tmp_path / "x.csv")
    torch.save(torch.zeros(3, 2, 2), tmp_path / "x.pt")  # the images alone
    assert load_images(tmp_path / "x.pt").shape == (1, 2, 2)
