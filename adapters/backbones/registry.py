"""Backbones by the names that the command line takes, each with what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...checks import integer_from
from ...errors import nearest
from ...plans.method import Method
from ..flow.field import Convention
from ..sampling.samplers import NEED_SIDENET, Sampler
from ..sidenet.network import SideNet
from .checkpoints import is_torch_file
from .pretrained import load_backbone, load_sidenet, shipped
from .sit_checkpoints import load_sit

SHIPPED = {
    "fashion-unet": ("fashion_unet.safetensors", "fashion_sidenet.safetensors", 28),
    "mnist-sit": ("mnist_sit.safetensors", "mnist_sidenet.safetensors", 28),
}
"""Name -> weight file, SideNet file, pixels a side."""

GALAXY_SIDENETS = {"hsc-32": "galaxy_hsc32_sidenet.safetensors"}


def _clamped(x: Tensor) -> Tensor:
    return x.clamp(-1, 1)


@dataclass(frozen=True)
class NamedBackbone:
    """A frozen backbone and what its states are.

    shape: (C, H, W) of a state. num_classes: 0 without labels. sidenet: its SideNet's weight file,
    None where none is shipped. to_images: states -> images in [-1, 1], as people should see them.
    """

    name: str
    model: Any
    shape: tuple[int, int, int]
    num_classes: int
    sidenet: Path | None = None
    convention: Convention | str = "repa"
    to_images: Callable[[Tensor], Tensor] = _clamped


def load_network(name: str | None = None) -> tuple[Any, int | None, str]:
    """The network of a backbone, its pixels a side (None where it works at any size) and the name
    of its convention.

    Its `config` has in_channels, itself num_classes (0 without labels). name, errors: see
    `load_named`.
    """
    name = name or "fashion-unet"
    if name.startswith("galaxygrad:"):
        from .galaxygrad import load_galaxygrad

        field = load_galaxygrad(name.partition(":")[2])
        return field, field.config.size, "repa"
    if name in SHIPPED:
        weights, _, size = SHIPPED[name]
        return load_backbone(shipped(weights)), size, "repa"
    if not Path(name).is_file() and not Path(name).suffix:
        raise ValueError(
            f"backbone {name!r} is neither a file nor a known name: "
            f"{nearest(name, [*SHIPPED, 'galaxygrad:hsc-32'])}"
        )
    if is_torch_file(name):
        published = load_sit(name)
        return published.model, published.model.config.input_size, published.convention
    model = load_backbone(name)
    return model, getattr(model.config, "input_size", None), "repa"


def load_named(name: str | None = None, *, image_size: int | None = None) -> NamedBackbone:
    """A backbone by name: one that is shipped, galaxygrad:NAME, or a weight file.

    Args:
        name: "fashion-unet" (the default), "mnist-sit", "galaxygrad:hsc-32" and its kin (weights
            of the installed package galaxygrad), or the path of a file: one that quadflow wrote, or
            a torch file of REPA or the original SiT (see `load_sit`).
        image_size: pixels a side, for a file whose network works at any size (U-Net).

    Raises:
        ValueError: unknown name, image_size missing or not the network's.
        CheckpointError: a weight file that is missing, damaged or of another network.
        MissingExtraError: galaxygrad is not installed.
    """
    name = name or "fashion-unet"
    model, known, convention = load_network(name)
    if known is not None and image_size not in (None, known):
        raise ValueError(f"image_size={image_size}, but this backbone's is {known}")
    size = known if image_size is None else image_size
    if size is None:
        raise ValueError(f"{name} is a network for any size: give --image-size")
    integer_from(1, size, "image_size")
    shape = (model.config.in_channels, size, size)
    if name.startswith("galaxygrad:"):
        from .galaxygrad import pixels

        file = GALAXY_SIDENETS.get(name.partition(":")[2])
        return NamedBackbone(
            name, model, shape, 0, shipped(file) if file else None,
            to_images=lambda x: (2 * pixels(x) - 1).clamp(-1, 1),
        )  # fmt: skip
    sidenet = shipped(SHIPPED[name][1]) if name in SHIPPED else None
    short = name if name in SHIPPED else Path(name).stem
    return NamedBackbone(short, model, shape, model.num_classes, sidenet, convention)


def check_pictures(backbone: NamedBackbone) -> None:
    """Refuse a backbone whose states are no pictures.

    Raises:
        ValueError: they have other than 1 or 3 channels, such as the latents of an autoencoder.
    """
    if backbone.shape[0] not in (1, 3):
        raise ValueError(
            f"{backbone.name} makes states of shape {backbone.shape}, which are no pictures but "
            "latents of an autoencoder: sample them in Python and decode them, or see quadflow "
            "reproduce"
        )


def load_named_sidenet(
    backbone: NamedBackbone, path: str | Path | None, method: str | Sampler | Method
) -> SideNet | None:
    """The SideNet that `method` needs: from `path`, else the backbone's own.

    None for a Method and for a named sampler that needs none; a plan of one's own gets what there
    is.

    Raises:
        ValueError: it needs one, and none is known. What `load_sidenet` raises.
    """
    named = isinstance(method, str)
    if isinstance(method, Method) or (named and method not in NEED_SIDENET):
        return None
    chosen = path or backbone.sidenet
    if chosen is None and named:
        raise ValueError(f"method {method} on {backbone.name} needs --sidenet, its SideNet's file")
    return None if chosen is None else load_sidenet(chosen)
