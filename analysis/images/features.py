"""Features of images: what sets of images are compared by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import integer_from
from .efficientnet import SIZE, EfficientNetLite0, load_efficientnet

Features = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [-1, 1] -> features (B, D), every row by itself."""

LARGEST = 10.0
"""Images beyond ±LARGEST are in other units than [-1, 1], not merely overshooting."""


def check_images(images: Tensor, name: str, channels: tuple[int, ...] = (1, 3)) -> None:
    """Refuse what are no images (N, C, H, W) of finite floating-point numbers.

    Args:
        images: the images.
        name: what the errors call them.
        channels: the C that are allowed; empty: any.

    Raises:
        TypeError: integers: their range is another one than [-1, 1].
        ValueError: another shape, no image at all, or numbers that are not finite.
    """
    if not images.is_floating_point():
        raise TypeError(f"{name} must be floating point in [-1, 1], got {images.dtype}")
    fits = images.dim() == 4 and (not channels or images.shape[1] in channels)
    if not fits or images.numel() == 0:
        which = " or ".join(map(str, channels)) or "C"
        raise ValueError(f"{name} must be (N, {which}, H, W), N > 0, got {tuple(images.shape)}")
    if not bool(torch.isfinite(images).all()):
        bad = (~torch.isfinite(images)).flatten(1).any(1).nonzero().flatten()
        raise ValueError(
            f"{name} must be finite; {len(bad)} of {len(images)} are not, the first at index "
            f"{int(bad[0])}"
        )


class EfficientNetFeatures(nn.Module):
    """Images (B, 1 or 3, H, W) in [-1, 1] -> features (B, 1280) float32 of EfficientNet-Lite0.

    Values are clamped to [-1, 1], as they would be in an image file, but not rounded to 8 bits.
    Images are resized to `size` x `size` by bilinear interpolation, antialiased when they shrink;
    then grey becomes three equal channels, and [-1, 1] becomes the network's 0..255.
    Distances depend on `size`: numbers of different sizes are not comparable.
    """

    def __init__(self, network: EfficientNetLite0, size: int = SIZE) -> None:
        super().__init__()
        if size < 32:
            raise ValueError(f"size must be at least 32 pixels, got {size}")
        self.network = network
        self.size = size
        self.num_features = network.num_features

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 1280) >= 0.

        Raises:
            TypeError: integer images.
            ValueError: another shape, not finite, or values far outside [-1, 1].
        """
        check_images(images, "images")
        reach = float(images.abs().max())
        if reach > LARGEST:
            raise ValueError(
                f"images must be in [-1, 1], but they reach ±{reach:.4g}: rescale them"
            )
        x = images.float().clamp(-1, 1)
        if x.shape[2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        x = x.expand(-1, 3, -1, -1)
        return self.network((x + 1) * 127.5)


def efficientnet_features(size: int = SIZE) -> EfficientNetFeatures:
    """Features of the pretrained EfficientNet-Lite0, in evaluation mode.

    Args:
        size: pixels a side at which the network sees the images. 224 is what it was trained on;
            the time goes with its square.

    Raises:
        MissingExtraError: the weights are not installed. There is no substitute for them.
        ValueError: size below 32.
    """
    return EfficientNetFeatures(load_efficientnet(), size).eval()


@contextmanager
def _evaluating(features: Features) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every submodule is as it was."""
    modules = list(features.modules()) if isinstance(features, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def extract(
    features: Features,
    images: Tensor,
    batch_size: int = 64,
    progress: Callable[[], None] | None = None,
) -> Tensor:
    """The features (N, D) of all images, on the CPU, in the dtype that `features` answers in.

    Args:
        features: any callable or module. A module works in evaluation mode meanwhile, on the device
            of its parameters.
        images: (N, C, H, W), finite, with the C and the range that `features` takes.
        batch_size: images a call.
        progress: called after every call.

    Raises:
        TypeError: integer images, or no callable.
        ValueError: bad images or batch size, or features that are not (B, D) or not finite.
    """
    if not callable(features):
        raise TypeError(f"features must be callable, got {type(features).__name__}")
    integer_from(1, batch_size, "batch_size")
    check_images(images, "images", ())
    device = images.device
    if isinstance(features, nn.Module):
        held = next(chain(features.parameters(), features.buffers()), None)
        device = device if held is None else held.device
    rows: list[Tensor] = []
    with _evaluating(features):
        for batch in images.split(batch_size):
            found = features(batch.to(device))
            if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(batch):
                got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ValueError(f"features must answer ({len(batch)}, D), got {got}")
            if not bool(torch.isfinite(found).all()):
                raise ValueError(
                    f"features are not finite for images {sum(map(len, rows))} and following"
                )
            rows.append(found.cpu())
            if progress is not None:
                progress()
    return torch.cat(rows)


class TorchmetricsFeatures(nn.Module):
    """Any `Features` in the form that torchmetrics' metrics take as `feature=`.

    Answers in float64, so that the metric does too; `num_features` saves it a probe with images of
    its own choice.
    """

    def __init__(self, features: Features, num_features: int) -> None:
        super().__init__()
        self.features = features
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] -> features (B, D) float64."""
        return extract(self.features, images, len(images)).double()
