"""Whole frames are not looked at again where nothing moved, and the choice follows the backbone."""

import pytest
import torch

from tests.models.nets import make_batch, make_net
from vla.errors import ConfigError
from vla.models.backbones import PrefixFeatures
from vla.models.reuse import REUSE_LEVELS, FrameReuse, PatchReuse, build_reuse


def act(net, inputs, reuse=None):
    with torch.inference_mode():
        return net.sample(inputs, reuse=reuse)[0]


def test_reuse_is_exact_and_spares_the_backbone_when_nothing_moved():
    net, (inputs, _) = make_net().eval(), make_batch()
    reuse = FrameReuse()
    assert torch.equal(act(net, inputs, reuse), act(net, inputs))
    assert torch.equal(act(net, inputs, reuse), act(net, inputs))
    assert (reuse.asked, reuse.looked) == (8, 4)
    reuse.reset()
    act(net, inputs, reuse)
    assert reuse.looked == 8


def test_reuse_encodes_again_the_rows_that_changed_and_those_alone():
    net, (inputs, _) = make_net().eval(), make_batch()
    reuse = FrameReuse()
    act(net, inputs, reuse)
    moved = type(inputs)(
        **{**vars(inputs), "images": inputs.images.clone(), "token_ids": inputs.token_ids.clone()}
    )
    moved.images[1, 0, 3, 3] += 1
    moved.token_ids[2, 0] = (moved.token_ids[2, 0] + 1) % 6
    torch.testing.assert_close(act(net, moved, reuse), act(net, moved))
    assert reuse.looked == 6
    other, _ = make_batch(2, seed=4)
    torch.testing.assert_close(act(net, other, reuse), act(net, other))


def test_the_dial_and_the_tolerance_let_small_motion_pass_but_not_its_sum():
    images, seen = torch.zeros(1, 1, 32, 32, 3, dtype=torch.uint8), []

    def backbone(pictures, *_):
        seen.append(int(pictures[0, 0, 0, 0, 0]))
        return PrefixFeatures(pictures.float().flatten(1)[:, None], None)

    rest = (None, torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1))
    drift, patchy = FrameReuse(tolerance=2), FrameReuse(0.75, patch=16)
    for level in (0, 2, 4):
        drift(backbone, images + level, *rest)
    assert seen == [0, 4]
    patchy(backbone, images, *rest)
    corner = images.clone()
    corner[0, 0, 0, 0] = 9
    patchy(backbone, corner, *rest)  # one patch of four
    corner[0, 0, 31, 31] = 9
    patchy(backbone, corner, *rest)
    assert seen == [0, 4, 0, 9]
    with pytest.raises(ConfigError, match="keep in"):
        FrameReuse(0.0)


def test_one_dial_says_how_much_may_move_and_the_backbone_what_is_compared():
    assert [PatchReuse.at(keep).tolerance for keep in (1.0, 0.5)] == [0, REUSE_LEVELS // 2]
    exact, loose = (build_reuse(make_net().backbone, keep) for keep in (1.0, 0.5))
    assert isinstance(exact, FrameReuse)
    assert (exact.keep, exact.tolerance, loose.keep, loose.tolerance) == (1.0, 0, 0.5, REUSE_LEVELS // 2)
    patches = make_net(backbone="patches", locate_by_sight=False).backbone
    assert isinstance(build_reuse(patches, 1.0), PatchReuse)
