"""Images for training from whatever the user has: folders of pictures, IDX files, tensor files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...extras import require
from .datasets import Images, LabelledImages, load_idx_folder
from .images import open_picture, picture_tensor

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
TENSOR_FILES = (".pt", ".safetensors", ".npz")


def load_images(
    path: str | Path,
    *,
    channels: int | None = None,
    size: int | None = None,
    labelled: bool = True,
) -> Images:
    """The images at `path`, by what is there.

    Args:
        path: folder of IDX files (`load_idx_folder`), folder of pictures (`ImageFolder`), or tensor
            file (`load_tensor_file`).
        channels: 1 (grey) or 3 (RGB); pictures need it, other data must have as many.
        size: pictures are resized and cropped to so many pixels a side; other data must have them.
        labelled: False leaves the labels out.

    Raises:
        FileNotFoundError: nothing there that is known.
        ValueError: damaged or unfit data, or options that do not fit them.
    """
    path = Path(path)
    images: Images
    if path.is_dir():
        if any(path.glob("train-images-idx3-ubyte*")):
            images = load_idx_folder(path)
        elif _pictures(path) or any(_pictures(folder) for folder in _folders(path)):
            if channels is None:
                raise ValueError(
                    f"{path} is a folder of pictures: say channels=1 (grey) or channels=3 (RGB)"
                )
            return ImageFolder(path, channels=channels, size=size, labelled=labelled)
        else:
            raise FileNotFoundError(
                f"{path} has neither IDX files (train-images-idx3-ubyte[.gz] and so on) nor "
                f"pictures ({', '.join(PICTURES)}), in it or in its folders"
            )
    elif path.is_file():
        images = load_tensor_file(path)
    else:
        raise FileNotFoundError(f"no folder or file of images at {path}")
    if channels not in (None, images.shape[0]):
        raise ValueError(f"{path} has {images.shape[0]} channels, not channels={channels}")
    if size is not None and images.shape[1:] != (size, size):
        raise ValueError(
            f"{path} has images of {images.shape[1:]}, not size={size}; only pictures are resized"
        )
    assert isinstance(images, LabelledImages)
    return images if labelled else LabelledImages(images.images, images.labels, 0)


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    """Pictures by the ending of their names, in the order of these."""
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in PICTURES and p.is_file() and not p.name.startswith(".")
    )


class ImageFolder:
    """Pictures in a folder, read when they are asked for, so that they need not fit into memory.

    Args:
        folder: pictures in it (no labels), or in its sub-folders: then a sub-folder is a class, in
            the order of their names.
        channels: 1 makes every picture grey, 3 RGB (transparency is dropped).
        size: the shorter side is resized to so many pixels (bicubic) and the middle cut out;
            None: every picture must have the size of the first.
        labelled: False leaves the classes out.

    Raises:
        FileNotFoundError: no pictures. ValueError: channels or size that are none, a file that is
            no picture or damaged (named; the headers are read at once, the rest in `batch`), sizes
            that differ, pictures both in the folder and in its sub-folders.
    """

    def __init__(
        self, folder: str | Path, *, channels: int, size: int | None = None, labelled: bool = True
    ) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB), got {channels}")
        if size is not None and size < 1:
            raise ValueError(f"size must be >= 1, got {size}")
        self.folder, self.channels, self.size = Path(folder), channels, size
        here = _pictures(self.folder)
        classes = {f.name: _pictures(f) for f in _folders(self.folder)}
        classes = {name: files for name, files in classes.items() if files}
        if here and classes:
            raise ValueError(
                f"{folder} has pictures itself and in its folders {', '.join(classes)}: labelled "
                "pictures are all in folders, pictures without labels all in one"
            )
        if not here and not classes:
            raise FileNotFoundError(f"{folder} has no pictures ({', '.join(PICTURES)})")
        self.class_names = list(classes) if labelled else []
        self.files = here or [file for files in classes.values() for file in files]
        counts = [len(files) for files in classes.values()]
        self._labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts or [0]))
        sizes = [self._header(file) for file in self.files]
        height, width = sizes[0] if size is None else (size, size)
        if size is None:
            for file, other in zip(self.files, sizes, strict=True):
                if other != (height, width):
                    raise ValueError(
                        f"{file} has {other[0]}x{other[1]} pixels, {self.files[0]} {height}x"
                        f"{width}: give size= to have them resized and cropped"
                    )
        self.shape = (channels, height, width)
        self.num_classes = len(self.class_names)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int | None]:
        """Image (C, H, W) float32 in [-1, 1] and its label, None without labels."""
        label = int(self._labels[index]) if self.num_classes else None
        return self._read(self.files[index]), label

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        images = torch.stack([self._read(self.files[i]) for i in index.tolist()])
        return images, self._labels[index] if self.num_classes else None

    def identity(self) -> str:
        total = hashlib.blake2b(digest_size=10)
        for file in self.files:
            name = file.relative_to(self.folder).as_posix()
            total.update(f"{name} {file.stat().st_size}\n".encode())
        how = f"{self.channels} channels, size {self.size}, {self.num_classes} classes"
        return f"{len(self)} pictures {total.hexdigest()}, {how}"

    def _header(self, file: Path) -> tuple[int, int]:
        try:
            with require("PIL.Image", "generative").open(file) as picture:
                return picture.height, picture.width
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{file} is no readable picture: {error}") from error

    def _read(self, file: Path) -> Tensor:
        picture = open_picture(file, self.channels)
        if self.size is not None and picture.size != (self.size, self.size):
            picture = _resized(picture, self.size)
        return picture_tensor(picture)


def _resized(picture: Any, size: int) -> Any:
    """The middle square of a picture whose shorter side has been resized to `size`."""
    width, height = picture.size
    factor = size / min(width, height)
    width, height = max(size, round(width * factor)), max(size, round(height * factor))
    picture = picture.resize((width, height), resample=3)  # bicubic
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def load_tensor_file(path: str | Path) -> LabelledImages:
    """Images from a `.pt`, `.safetensors` or `.npz` file, which is read without running anything.

    Args:
        path: holds `images` (N, C, H, W) or (N, H, W), uint8 or floating point in [-1, 1], and
            perhaps `labels` (N,), whole numbers from 0. A `.pt` file may be the images alone.

    Raises:
        FileNotFoundError: no such file. ValueError: another ending, a damaged file, no images in
            it, numbers out of range, labels that do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no tensor file at {path}")
    tensors = _read_tensors(path)
    unknown = sorted(set(tensors) - {"images", "labels"})
    if "images" not in tensors or unknown:
        raise ValueError(f"{path} holds {sorted(tensors)}; it must hold 'images', maybe 'labels'")
    images, labels = tensors["images"], tensors.get("labels")
    if images.dim() == 3:
        images = images[:, None]
    if images.dim() != 4 or not images.numel():
        raise ValueError(
            f"images in {path} have shape {tuple(tensors['images'].shape)}; it must be "
            "(N, C, H, W) or (N, H, W), and not empty"
        )
    if images.dtype == torch.uint8:
        images = images.float() / 127.5 - 1.0
    elif not images.is_floating_point():
        raise ValueError(f"images in {path} are {images.dtype}; it must be uint8 or floating point")
    else:
        images = images.float()
        low, high = float(images.min()), float(images.max())
        if not (low >= -1.001 and high <= 1.001):  # also where there are nans
            raise ValueError(
                f"images in {path} run from {low:.4g} to {high:.4g}; floating point pixels must be "
                "finite and in [-1, 1]"
            )
    if labels is None:
        return LabelledImages(images, torch.zeros(len(images), dtype=torch.int64), 0)
    whole = not labels.is_floating_point() and not labels.is_complex()
    if labels.shape != images.shape[:1] or not whole or int(labels.min()) < 0:
        raise ValueError(
            f"labels in {path} are {labels.dtype} {tuple(labels.shape)}; it must be whole numbers "
            f"from 0, shape ({len(images)},)"
        )
    labels = labels.to(torch.int64)
    return LabelledImages(images, labels, int(labels.max()) + 1)


def _read_tensors(path: Path) -> Mapping[str, Tensor]:
    kind = path.suffix.lower()
    if kind not in TENSOR_FILES:
        raise ValueError(f"{path} must be a folder or end in one of {', '.join(TENSOR_FILES)}")
    loaded: Any
    try:
        if kind == ".pt":
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        elif kind == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                loaded = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        else:
            loaded = require("safetensors.torch", "generative").load_file(str(path))
    except Exception as error:
        # pickle, zipfile and safetensors have errors of their own, derived from Exception alone
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is no readable tensor file: {reason}") from error
    if isinstance(loaded, Tensor):
        loaded = {"images": loaded}
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ValueError(f"{path} must hold tensors by name, got {type(loaded).__name__}")
    return loaded
