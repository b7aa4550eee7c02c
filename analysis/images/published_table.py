"""BA-solver's table on ImageNet made again, by those who hold the published weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...adapters import FittedSampler, FlowField, Guidance, initial_noise, sample
from ...adapters.sampling.samplers import Sampler
from ...adapters.training.state import digest, identity
from ...checks import integer_from
from ...extras import require
from ...storage import read_json_object, whole_file, write_json
from .distribution import adm_pixels, write_adm_npz

PUBLISHED = {5: 2.84, 7: 1.96, 8: 1.85}
"""NFE -> FID of BA-solver on REPA's SiT-XL/2, 50,000 images of 256² pixels, as published.

Source: arXiv 2601.21542.
"""

LATENT_SCALE = 0.18215
"""What the published backbones multiply an autoencoder's latents by."""

BLOCK = 250
"""Samples that are kept in one file; a killed run loses at most so many."""

Decoder = Callable[[Tensor], Tensor]
"""Latents (B, C, H, W) as the backbone makes them -> images (B, 3, H', W'), about [-1, 1]."""


@dataclass(frozen=True)
class Reproduction:
    """Samples of the published backbone by BA-solver, and by a fitted sampler if there is one.

    Sample i has label i modulo the classes, and noise that depends on seed and i alone: neither
    batch size nor a kill changes it, but for rounding.

    model, sidenet, fitted: on `device`. convention: of the model. shape: of a latent. num_classes:
    of the labels; the null label is the next. guidance: scale. interval: where it applies, low < t
    <= high in the model's own time. nfes: budgets. samples: of every method and budget. seed: of
    the noises. batch_size: samples at once. folder: of everything that is written.

    Raises:
        ValueError: numbers out of range; a fitted sampler of another backbone, of none of the
            budgets or of another interval; a folder that was made with another setting.
    """

    model: nn.Module
    sidenet: nn.Module
    shape: tuple[int, ...]
    num_classes: int
    folder: Path
    fitted: FittedSampler | None = None
    convention: str = "repa"
    guidance: float = 1.8
    interval: tuple[float, float] = (0.0, 0.7)
    nfes: Sequence[int] = tuple(PUBLISHED)
    samples: int = 50_000
    seed: int = 0
    batch_size: int = 50
    device: str = "cpu"

    def __post_init__(self) -> None:
        integer_from(1, self.samples, "samples")
        integer_from(1, self.batch_size, "batch_size")
        if self.fitted is not None:
            self._check_fitted(self.fitted)
        self._check_folder()

    @property
    def runs(self) -> list[tuple[str, int]]:
        """(method, NFE) of everything that is sampled, in order."""
        known = [] if self.fitted is None else self.fitted.budgets
        return [
            (method, nfe)
            for nfe in self.nfes
            for method in ("bianchor", "fitted")
            if method == "bianchor" or (nfe, self.guidance) in known
        ]

    @property
    def blocks(self) -> list[range]:
        """The samples of every block."""
        starts = range(0, self.samples, BLOCK)
        return [range(i, min(i + BLOCK, self.samples)) for i in starts]

    def npz(self, method: str, nfe: int) -> Path:
        """The file for the evaluator."""
        return self.folder / f"{method}-{nfe}.npz"

    def make_latents(self, tick: Callable[[int], object] = lambda n: None) -> None:
        """Sample all blocks that are not there yet. tick: is told how many samples are there more.

        Raises:
            ValueError: no memory for batch_size. SolveError: samples that are not finite.
        """
        for method, nfe in self.runs:
            for block, rows in enumerate(self.blocks):
                path = self._block(method, nfe, "latents", block)
                if not path.exists():
                    _save(path, self._sample(method, nfe, rows).numpy())
                tick(len(rows))

    def make_images(
        self, decode: Decoder, name: str, tick: Callable[[int], object] = lambda n: None
    ) -> None:
        """Decode all latents and write the npz of every run that has none.

        Blocks of decoded images are kept until the npz is there.

        Args:
            decode: see `load_decoder`. name: of the decoder; another one is refused in the folder.
            tick: as above.
        """
        _agreed(self.folder / "vae.json", {"vae": name})
        for method, nfe in self.runs:
            paths = [self._block(method, nfe, "images", b) for b in range(len(self.blocks))]
            for block, (path, rows) in enumerate(zip(paths, self.blocks, strict=True)):
                if not path.exists() and not self.npz(method, nfe).exists():
                    latents = np.load(self._block(method, nfe, "latents", block))
                    _save(path, self._decoded(latents, decode))
                tick(len(rows))
            if not self.npz(method, nfe).exists():
                write_adm_npz(self.npz(method, nfe), [np.load(p, mmap_mode="r") for p in paths])
            shutil.rmtree(paths[0].parent, ignore_errors=True)

    def table(self) -> str:
        """The published figures beside the places for one's own, with the files to be judged."""
        lines = [f"{'method':<10}{'NFE':>4}{'FID published':>15}{'FID here':>10}  file"]
        for method, nfe in self.runs:
            known = PUBLISHED.get(nfe) if method == "bianchor" else None
            made = self.npz(method, nfe)
            file = made if made.exists() else self._block(method, nfe, "latents", 0).parent
            lines.append(
                f"{method:<10}{nfe:>4}{'–' if known is None else f'{known:.2f}':>15}{'....':>10}  "
                f"{file}"
            )
        return "\n".join(lines)

    def _guidance(self) -> Guidance:
        return Guidance(self.guidance, self.num_classes, self.interval)

    def _sample(self, method: str, nfe: int, rows: range) -> Tensor:
        sampler: str | Sampler = method
        if method == "fitted":
            assert self.fitted is not None
            sampler = self.fitted
        found = []
        for first in range(rows.start, rows.stop, self.batch_size):
            count = min(self.batch_size, rows.stop - first)
            noise = initial_noise(self.seed, count, self.shape, first=first).to(self.device)
            try:
                found.append(
                    sample(
                        self.model, noise, self._labels(first, count), method=sampler, nfe=nfe,
                        sidenet=self.sidenet, guidance=self._guidance(), convention=self.convention,
                    ).x.cpu()
                )  # fmt: skip
            except torch.OutOfMemoryError as error:
                raise self._no_memory() from error
        return torch.cat(found)

    def _decoded(self, latents: np.ndarray, decode: Decoder) -> np.ndarray:
        found = []
        with torch.no_grad():
            for part in torch.from_numpy(latents).split(self.batch_size):
                try:
                    images = decode(part.to(self.device)).float().cpu()
                except torch.OutOfMemoryError as error:
                    raise self._no_memory() from error
                found.append(adm_pixels(images.clamp(-1, 1)))
        return np.concatenate(found)

    def _no_memory(self) -> ValueError:
        return ValueError(
            f"batch_size={self.batch_size} does not fit into the memory of {self.device}: give a "
            "smaller one; what is sampled so far stays"
        )

    def _labels(self, first: int, count: int) -> Tensor:
        return torch.arange(first, first + count, device=self.device) % self.num_classes

    def _block(self, method: str, nfe: int, kind: str, block: int) -> Path:
        return self.folder / f"{method}-{nfe}" / kind / f"{block:06d}.npy"

    def _check_fitted(self, fitted: FittedSampler) -> None:
        mine = [nfe for nfe in self.nfes if (nfe, self.guidance) in fitted.budgets]
        if not mine:
            known = ", ".join(f"{n} at guidance {s:g}" for n, s in fitted.budgets)
            raise ValueError(
                f"fitted: has none of nfe {', '.join(map(str, self.nfes))} at guidance "
                f"{self.guidance:g}, but {known}"
            )
        flow = FlowField(self.model, self.convention, self._labels(0, 1), self._guidance())
        # refuses another backbone or interval now, not after hours
        fitted(flow, mine[0], None)

    def _check_folder(self) -> None:
        fitted = None if self.fitted is None else digest(self.fitted.learned.state_dict())
        self.folder.mkdir(parents=True, exist_ok=True)
        _agreed(self.folder / "setting.json", {
            "weights": identity(self.model), "sidenet": identity(self.sidenet), "fitted": fitted,
            "convention": self.convention, "guidance": self.guidance,
            "interval": list(self.interval), "samples": self.samples, "seed": self.seed,
        })  # fmt: skip


def _agreed(path: Path, wanted: Mapping[str, Any]) -> None:
    """Write what a folder's contents depend on, or compare it with what is written there."""
    if not path.exists():
        write_json(path, wanted)
        return
    known = read_json_object(path, "setting of samples")
    differ = [key for key in wanted if known.get(key) != wanted[key]]
    if differ:
        some = ", ".join(f"{key} {known.get(key)!r}, not {wanted[key]!r}" for key in differ)
        raise ValueError(f"{path.parent} was made with another setting: {some}")


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def load_decoder(vae: str, channels: int, device: str) -> Decoder:
    """The decoder of an AutoencoderKL of diffusers, in float32.

    Args:
        vae: a folder of `save_pretrained`, or a name that diffusers knows, such as
            stabilityai/sd-vae-ft-ema, which the published figures were made with.
        channels: of the latents.

    Raises:
        ValueError: no such autoencoder, or one for other latents.
        MissingExtraError: diffusers is not installed.
    """
    kind = require("diffusers", "diffusers").AutoencoderKL
    try:
        model = kind.from_pretrained(vae)
    except (OSError, ValueError) as error:
        raise ValueError(f"vae={vae!r} is no AutoencoderKL of diffusers: {error}") from error
    if model.config.latent_channels != channels:
        raise ValueError(
            f"vae={vae!r} decodes latents of {model.config.latent_channels} channels, must be "
            f"{channels}"
        )
    model = model.to(device).eval().requires_grad_(False)

    def decode(latents: Tensor) -> Tensor:
        images: Tensor = model.decode(latents / LATENT_SCALE).sample
        return images

    return decode
