"""Images and their differences laid out beside each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quadflow.adapters.data.images import difference_tile, tile


@pytest.mark.parametrize("channels", [1, 3])
def test_differences_lie_where_their_images_do(channels: int) -> None:
    shape = (5, channels, 4, 6)
    images, wanted = (
        torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in (0, 1)
    )
    apart = difference_tile(images, wanted, 3)
    assert apart.shape == tile(images, 3).shape[:2] == (8, 18)
    for i in range(5):
        row, column = divmod(i, 3)
        own = apart[4 * row : 4 * row + 4, 6 * column : 6 * column + 6]
        np.testing.assert_allclose(own, (images[i] - wanted[i]).abs().mean(0), rtol=1e-6)
    assert not apart[4:, 12:].any() and not tile(images, 3)[4:, 12:].any()


def test_shapes_that_do_not_fit() -> None:
    images = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"wanted must be of the shape of images, \(2, 1, 4, 4\)"):
        difference_tile(images, images[:1], 2)
    with pytest.raises(ValueError, match=r"images must be \(N, 1 or 3, H, W\), got shape \(2, 4\)"):
        difference_tile(torch.zeros(2, 4), torch.zeros(2, 4), 2)
