"""What a tower is given beforehand comes to what its own convolution makes of it."""

import pytest
import torch
from prh.models.quicken import as_product, embedded
from torch import nn

SHAPE = (5, 3, 2, 4, 4)


class Embed(nn.Module):
    def __init__(self, **how):
        super().__init__()
        self.proj = nn.Conv3d(3, 7, kernel_size=(2, 4, 4), **{"stride": (2, 4, 4), "bias": False, **how})

    def forward(self, pixels):
        seen = pixels.view(-1, *SHAPE[1:]).to(self.proj.weight.dtype)
        return self.proj(seen).flatten(1)


def drawn(seed, *, still):
    pixels = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return (pixels[:, :, :1].expand(SHAPE) if still else pixels).reshape(SHAPE[0], -1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("still", [False, True])
def test_patches_are_embedded_as_by_the_convolution(bias, dtype, still):
    embed = Embed(bias=bias).to(dtype)
    media = [drawn(seed, still=still) for seed in range(3)]
    with torch.inference_mode():
        wanted = embed(torch.cat(media))
        with embedded(embed, media, still=still) as given:
            assert given.shape == wanted.shape
            made = embed(given)
        assert torch.equal(embed(torch.cat(media)), wanted)
    torch.testing.assert_close(made, wanted, atol=1e-5 if dtype is torch.float32 else 0.1, rtol=1e-5)


def test_a_kernel_that_covers_more_than_a_patch_stays_what_it_is():
    embed, media = Embed(stride=(1, 4, 4)), [drawn(seed, still=True) for seed in range(2)]
    with embedded(embed, media, still=True) as given:
        assert torch.equal(given, torch.cat(media))
        assert "forward" not in vars(embed)


def test_a_forward_that_someone_else_has_put_there_is_the_one_that_runs():
    embed, media = Embed(), [drawn(0, still=True)]
    other = lambda pixels: -Embed.forward(embed, pixels)  # noqa: E731
    embed.forward = other
    with embedded(embed, media, still=True) as given:
        assert torch.equal(given, media[0])
        assert embed.forward is other


def test_within_quickened_patches_are_embedded_once_and_it_goes_on():
    embed, media = Embed(), [drawn(seed, still=True) for seed in range(2)]
    wanted = embed(torch.cat(media))
    with as_product(embed):
        quick = embed.forward
        with embedded(embed, media, still=True) as given:
            torch.testing.assert_close(embed.forward(given), wanted, atol=1e-5, rtol=1e-5)
        assert embed.forward is quick
    assert "forward" not in vars(embed)
