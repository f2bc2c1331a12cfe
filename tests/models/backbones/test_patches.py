"""Patch tokens, and patches that are not looked at again."""

import torch

from tests.models.nets import make_batch, make_net, noise
from vla.models.reuse import PatchReuse


def arguments(inputs):
    return inputs.images, inputs.image_mask, inputs.token_ids, inputs.token_mask, inputs.embodiment_id


def scene(size: int = 32):
    net = make_net(
        backbone="patches",
        backbone_settings={"image_size": size},
        locate_by_sight=False,
        heads=("regression",),
        things_weight=0.0,
    ).eval()
    return net, make_batch(2, image_size=size)


def test_a_policy_of_patches_learns_and_every_patch_is_a_token():
    net, (inputs, labels) = scene()
    net.train().loss(inputs, labels, noise())[0].backward()
    assert net.backbone.cameras[0].stem.weight.grad.abs().sum() > 0
    prefix = net.backbone(*arguments(inputs))
    assert prefix.visual.shape == (2, 4, 4)
    assert prefix.features.shape[1] == 2 + 2 * 16
    assert prefix.auxiliary["keypoint_logits"].shape == (2, 2, 2, 16)


@torch.no_grad()
def test_only_the_windows_that_moved_are_looked_at_and_the_features_are_those_of_all():
    net, (inputs, _) = scene()
    reuse = PatchReuse()
    net.encode(inputs, reuse=reuse)
    inputs.images[1, 0, 3, 3] ^= 255  # one pixel, in the margin of no other window
    inputs.images[0, 1, 12, 12] ^= 255  # one that four windows share
    asked, looked = reuse.asked, reuse.looked
    made = net.encode(inputs, reuse=reuse).prefix.features
    torch.testing.assert_close(made, net.encode(inputs).prefix.features, atol=1e-5, rtol=1e-5)
    assert (reuse.asked - asked, reuse.looked - looked) == (64, 1 + 4)


@torch.no_grad()
def test_another_instruction_another_episode_or_a_reset_looks_at_all():
    net, (inputs, _) = scene()
    reuse = PatchReuse()
    for change in (lambda: None, lambda: inputs.token_ids.add_(1).remainder_(6), reuse.reset):
        change()
        looked = reuse.looked
        made = net.encode(inputs, reuse=reuse).prefix.features
        assert reuse.looked - looked == 64
        torch.testing.assert_close(made, net.encode(inputs).prefix.features, atol=1e-5, rtol=1e-5)
    reuse.episodes, looked = (1, 7), reuse.looked  # row 0 is now what row 1 was
    made = net.encode(inputs, reuse=reuse).prefix.features
    torch.testing.assert_close(made, net.encode(inputs).prefix.features, atol=1e-5, rtol=1e-5)
    assert reuse.looked - looked > 32


@torch.no_grad()
def test_slow_drift_adds_up_and_is_seen():
    net, (inputs, _) = scene()
    inputs.images.fill_(100)
    reuse = PatchReuse(tolerance=3)
    counts = []
    for _ in range(6):
        looked = reuse.looked
        net.encode(inputs, reuse=reuse)
        counts.append(reuse.looked - looked)
        inputs.images.add_(1)
    assert counts == [64, 0, 0, 0, 64, 0]
