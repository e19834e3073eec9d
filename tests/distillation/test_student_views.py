# SPDX-License-Identifier: Apache-2.0
"""What the student sees of a banked image: shifted, mirrored, noisy, as the configuration says."""

import torch
from support.tiny_runs import tiny_config

from fedcpsc.distillation.steps import student_loss


def view_of(pixels, **changes):
    """What the network was shown."""
    seen = []

    def passes(views):
        seen.extend(views)
        return [(torch.zeros(len(view), 3, requires_grad=True), torch.zeros(len(view), 4)) for view in views]

    student = tiny_config(**{f"student__{key}": value for key, value in changes.items()}).student
    targets = torch.full((len(pixels), 3), 1 / 3)
    student_loss(passes, student, pixels, targets, torch.Generator().manual_seed(1))
    (view,) = seen
    return view


def test_by_default_an_image_is_shifted_and_nothing_else():
    pixels = torch.rand(64, 1, 8, 8) * 2 - 1
    assert torch.equal(view_of(pixels, shift=0), pixels)
    inside = view_of(pixels)[:, :, 1:-1, 1:-1]
    shifted = [pixels[:, :, y : y + 6, x : x + 6] for y in range(3) for x in range(3)]
    found = torch.stack([(inside == piece).flatten(1).all(1) for piece in shifted])
    assert (found.sum(0) == 1).all()
    assert found.any(1).all(), "each of the nine shifts occurs"


def test_a_mirrored_student_sees_about_half_of_the_images_mirrored():
    pixels = torch.rand(400, 3, 8, 8) * 2 - 1
    view = view_of(pixels, shift=0, flip=True)
    same = (view == pixels).flatten(1).all(1)
    mirrored = (view == pixels.flip(3)).flatten(1).all(1)
    assert torch.equal(same, ~mirrored)
    assert 150 < mirrored.sum() < 250


def test_noise_has_the_size_it_is_given():
    pixels = torch.zeros(64, 1, 8, 8)
    assert 0.09 < view_of(pixels, shift=0, noise=0.1).std() < 0.11
