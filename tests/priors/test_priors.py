# SPDX-License-Identifier: Apache-2.0
"""Priors look at nothing, stay in range, follow their stream, and differ from each other."""

import pytest
import torch

from fedcpsc.choices import DEFAULT_MIXTURE, PRIORS
from fedcpsc.config import SynthesisConfig
from fedcpsc.data.images import to_uint8
from fedcpsc.errors import ConfigError
from fedcpsc.priors.colour import jittered, muted
from fedcpsc.priors.mixture import sample_prior
from fedcpsc.priors.prior import PRIOR_KINDS
from fedcpsc.priors.tones import Tones, bend_tones


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", PRIORS.built_in())
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 5, 9)])
def test_images_have_shape_range_and_contrast(name, shape):
    images = PRIOR_KINDS.get(name).images(40, shape, stream())
    assert images.shape == (40, *shape)
    assert images.dtype == torch.float32
    assert images.min() >= -1
    assert images.max() <= 1
    assert (images.flatten(1).std(1) > 0.02).float().mean() > 0.8, "most images show something"
    assert len(torch.unique(images.flatten(1), dim=0)) == 40, "no two are alike"


@pytest.mark.parametrize("name", PRIORS.built_in())
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (1, 1, 7), (3, 7, 1), (2, 2, 3), (3, 3, 100), (3, 224, 224)])
def test_images_of_any_shape_can_be_drawn(name, shape):
    images = PRIOR_KINDS.get(name).images(3, shape, stream())
    assert images.shape == (3, *shape)
    assert images.isfinite().all()
    assert sample_prior({name: 1.0}, 3, shape, stream(), Tones(-0.4)).isfinite().all()


@pytest.mark.parametrize("name", PRIORS.built_in())
def test_the_stream_decides_everything(name):
    first, again = (
        PRIOR_KINDS.get(name).images(5, (1, 8, 8), stream(3)),
        PRIOR_KINDS.get(name).images(5, (1, 8, 8), stream(3)),
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, PRIOR_KINDS.get(name).images(5, (1, 8, 8), stream(4)))


def test_a_mixture_draws_by_weight():
    images = to_uint8(sample_prior({"dead_leaves": 3.0, "smooth": 1.0}, 400, (1, 16, 16), stream())).flatten(1)
    # leaves have flat patches: most neighbours are equal; in smooth noise most differ
    flat = (images[:, 1:] == images[:, :-1]).float().mean(1)
    assert 0.65 < (flat > 0.5).float().mean().item() < 0.85


def test_the_default_mixture_is_even_over_its_list_which_need_not_hold_every_prior():
    assert SynthesisConfig().prior == dict.fromkeys(DEFAULT_MIXTURE, 1.0)
    assert set(DEFAULT_MIXTURE) <= set(PRIORS.built_in())


def test_faults_are_named():
    with pytest.raises(ConfigError, match="use 'dead_leaves'"):
        sample_prior({"dead_leafs": 1.0}, 1, (1, 8, 8), stream())
    with pytest.raises(ConfigError, match="needs a positive weight"):
        sample_prior({"smooth": 0.0}, 1, (1, 8, 8), stream())


@pytest.mark.parametrize("name", ["dead_leaves", "smooth"])  # strokes on a plain ground have no tones to bend
@pytest.mark.parametrize("mean", [-0.74, 0.0, 0.5])
def test_bent_images_scatter_about_the_public_mean(name, mean):
    images = sample_prior({name: 1.0}, 300, (1, 28, 28), stream(), Tones(mean))
    assert images.min() >= -1
    assert images.max() <= 1
    own = images.flatten(1).mean(1)
    assert abs(own.mean().item() - mean) < 0.12
    assert 0.1 < own.std().item() < 0.35


def test_a_dark_domain_shows_light_figures_on_a_dark_ground():
    images = sample_prior({"strokes": 1.0}, 300, (1, 28, 28), stream(), Tones(-0.74))
    assert (images.flatten(1).median(1).values < 0).float().mean() > 0.8


def test_colours_keep_what_they_differ_from_their_luminance_by():
    images = 0.4 * torch.rand(200, 3, 16, 16, generator=stream()) - 0.2
    bent = bend_tones(images, Tones(0.0, 0.01), stream(1))
    apart = images - images.mean(1, keepdim=True)
    kept = (bent > -1).all(1, keepdim=True) & (bent < 1).all(1, keepdim=True)  # what left the range is clipped
    assert kept.float().mean() > 0.8
    torch.testing.assert_close(((bent - bent.mean(1, keepdim=True)) * kept), apart * kept, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("tones", "spread"), [(Tones(0.1, 0.05), 0.05), (Tones(0.1, 0.3), 0.3), (Tones(0.1, 0.05, 1.0), 0.7)]
)
def test_images_scatter_as_far_as_the_tones_say(tones, spread):
    images = bend_tones(sample_prior({"smooth": 1.0}, 600, (1, 16, 16), stream()), tones, stream(1))
    own = images.flatten(1).mean(1)
    quarter, three_quarters = own.quantile(torch.tensor([0.25, 0.75])).tolist()
    assert (three_quarters - quarter) / 1.35 == pytest.approx(spread, rel=0.25)  # a few cannot be bent so far
    if tones.anywhere:
        assert own.min() < -0.8
        assert own.max() > 0.8


def test_muted_colours_keep_the_mean_of_their_channels_and_come_nearer_to_grey():
    noise = torch.randn(400, 3, 16, 16, generator=stream())
    mixed = muted(noise, stream(1))
    torch.testing.assert_close(mixed.mean(1), noise.mean(1))
    kept = (mixed - mixed.mean(1, keepdim=True)).flatten(1).norm(dim=1)
    kept = kept / (noise - noise.mean(1, keepdim=True)).flatten(1).norm(dim=1)
    assert 0 <= kept.min() < 0.02
    assert 0.48 < kept.max() <= 0.5
    grey = noise[:, :1]
    assert muted(grey, stream(1)) is grey


def test_a_scene_has_its_subject_in_the_middle_and_light_from_anywhere():
    """Averaged over many, what differs from the border is the middle; no side is lighter than another."""
    images = PRIOR_KINDS.get("scenes").images(2000, (1, 16, 16), stream())[:, 0]
    border = torch.cat([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], 1).mean(1)
    apart = (images - border[:, None, None]).abs().mean(0)
    assert apart[6:10, 6:10].mean() > 1.2 * apart[0].mean()
    sides = torch.stack(
        [images[:, :4].mean(), images[:, -4:].mean(), images[:, :, :4].mean(), images[:, :, -4:].mean()]
    )
    assert sides.std() < 0.03


def test_a_jittered_picture_keeps_its_range_and_none_is_changed_at_strength_0():
    images = sample_prior({"scenes": 1.0}, 200, (3, 16, 16), stream())
    torch.testing.assert_close(jittered(images, stream(1), 0.0), images, atol=1e-6, rtol=0)
    varied = jittered(images, stream(1))
    assert varied.min() >= -1
    assert varied.max() <= 1
    apart = (varied - images).abs().mean((1, 2, 3))
    assert (apart > 0.02).float().mean() > 0.9
    gentle = (jittered(images, stream(1), 0.2) - images).abs().mean((1, 2, 3))
    assert gentle.mean() < 0.4 * apart.mean()


def test_hue_is_an_angle_about_the_grey_axis():
    """A grey picture stays grey; of others the distance from grey changes by the saturation alone."""
    grey = torch.rand(50, 1, 8, 8, generator=stream()).expand(50, 3, 8, 8) - 0.5
    varied = jittered(grey, stream(1))
    torch.testing.assert_close(varied[:, :1].expand_as(varied), varied)
    images = 0.1 * torch.randn(50, 3, 8, 8, generator=stream())  # so dull that nothing is clipped
    varied = jittered(images, stream(1))
    kept = (varied - varied.mean(1, keepdim=True)).norm(dim=1) / (images - images.mean(1, keepdim=True)).norm(dim=1)
    torch.testing.assert_close(kept, kept[:, :1, :1].expand_as(kept), atol=1e-3, rtol=1e-3)


def test_photographs_alone_say_that_they_come_from_real_data():
    said = {name: PRIOR_KINDS.get(name).real_data for name in PRIORS.built_in()}
    assert "two photographs" in said.pop("photographs")
    assert not any(said.values())
    assert "photographs" not in DEFAULT_MIXTURE


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 20)])
def test_neighbours_in_a_photograph_are_alike_and_few_show_plain_ground(shape):
    images = PRIOR_KINDS.get("photographs").images(400, shape, stream())
    near = (images[..., 1:] - images[..., :-1]).abs().mean()
    far = (images - images.flip(0)).abs().mean()
    assert near < 0.3 * far
    assert (images.flatten(1).std(1) > 0.1).float().mean() > 0.85


def test_photographs_of_one_colour_channel_or_of_two_are_grey():
    images = PRIOR_KINDS.get("photographs").images(20, (2, 16, 16), stream())
    assert torch.equal(images[:, 0], images[:, 1])
