"""Fewer visual tokens: the dial counts, nothing changes at 1, nothing masked is chosen."""

from dataclasses import replace

import pytest
import torch

from tests.models.nets import make_batch, make_net, noise
from vla.errors import ConfigError, UnknownNameError
from vla.models.backbones import PrefixFeatures
from vla.models.backbones.inputs import phi4_rows, square, square_and_rows
from vla.models.layers import EncoderBlock
from vla.models.policy_net import PolicyInputs, PolicyLabels
from vla.models.tokens import COMPRESSORS, build_compressor, visual_grid

WIDTH = 8
CHOOSING = ("attention", "instruction")


def prefix(*, mask: bool = True, side: int = 4) -> PrefixFeatures:
    """Two words around two pictures of side x side patches; the second row lacks its second picture."""
    patches = side * side
    total = 2 * patches + 2
    features = torch.randn(2, total, WIDTH, generator=noise())
    there = torch.ones(2, total, dtype=torch.bool)
    there[1, 1 + patches : 1 + 2 * patches] = False
    grid = torch.arange(1, 1 + 2 * patches).view(2, side, side)
    return PrefixFeatures(features, there if mask else None, {}, grid)


def compressor(name: str, keep: float) -> torch.nn.Module:
    torch.manual_seed(0)
    made = build_compressor(name, WIDTH, keep)
    assert made is not None
    return made


def compressed(module: torch.nn.Module, given: PrefixFeatures) -> PrefixFeatures:
    """As the network applies it: attention also reads the state and the trunk's first block."""
    if type(module) is not COMPRESSORS["attention"]:
        return module(given)
    torch.manual_seed(1)
    block = EncoderBlock(WIDTH, 2, 2)
    return module(given, torch.randn(len(given.features), 1, WIDTH, generator=noise(5)), block)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_keeping_all_changes_nothing(name):
    given = prefix()
    assert compressed(compressor(name, 1.0), given) is given


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("mask", [True, False])
def test_a_quarter_of_the_visual_tokens_is_left_and_all_words(name, mask):
    given = prefix(mask=mask)
    made = compressed(compressor(name, 0.25), given)
    assert made.features.shape == (2, 2 + 8, WIDTH)
    assert torch.equal(made.features[:, :2], given.features[:, [0, -1]])
    assert (made.mask is None) != mask
    if mask:
        assert made.mask[0].all()
        assert int(made.mask[1].sum()) == (2 + 8 if name in CHOOSING else 2 + 4)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_missing_picture_is_never_read(name):
    given = prefix()
    other = given.features.where(given.mask[..., None], 40.0)
    module = compressor(name, 0.25)
    a, b = (
        compressed(module, PrefixFeatures(f, given.mask, {}, given.visual)) for f in (given.features, other)
    )
    torch.testing.assert_close(a.features[a.mask], b.features[b.mask])


def test_pooling_is_the_mean_and_pixel_shuffle_starts_as_it():
    given = prefix()
    pooled, shuffled = (compressor(name, 0.25)(given) for name in ("pool", "shuffle"))
    block = given.features[:, given.visual[0, :2, :2].flatten()].mean(1)
    torch.testing.assert_close(pooled.features[:, 2], block)
    torch.testing.assert_close(shuffled.features, pooled.features)
    assert torch.equal(shuffled.visual, torch.arange(2, 10).view(2, 2, 2))


@pytest.mark.parametrize("name", CHOOSING)
def test_what_is_chosen_keeps_its_order_its_value_and_its_mask(name):
    given, module = prefix(), compressor(name, 0.5)
    made = compressed(module, given)
    for row in range(2):
        visual = given.features[row, given.visual.flatten()]
        there = given.mask[row, given.visual.flatten()]
        places = [int((visual == token).all(-1).nonzero()[0, 0]) for token in made.features[row, 2:]]
        assert places == sorted(set(places))
        assert torch.equal(there[places], made.mask[row, 2:])


def looking_at(direction: int) -> EncoderBlock:
    """A block whose state looks along one entry of the features, and sees nothing else."""
    block = EncoderBlock(WIDTH, 1, 2)
    with torch.no_grad():
        block.attention.query_key_value.weight.zero_()
        block.attention.query_key_value.bias.zero_()
        block.attention.query_key_value.bias[0] = 10.0  # every query asks the same
        block.attention.query_key_value.weight[WIDTH, direction] = 1.0  # what a key answers
    return block


def test_attention_keeps_the_odd_patch_that_the_trunk_looks_at_among_many_alike():
    background, odd = torch.eye(WIDTH)[0], torch.eye(WIDTH)[3]
    features = torch.cat([torch.zeros(1, WIDTH), background.repeat(7, 1), odd[None], background.repeat(8, 1)])
    given = PrefixFeatures(features[None], None, {}, torch.arange(1, 17).view(1, 4, 4))
    made = compressor("attention", 1 / 16)(given, torch.randn(1, 1, WIDTH, generator=noise()), looking_at(3))
    torch.testing.assert_close(made.features[0, 1], odd)


def test_padding_asks_nothing_of_the_pictures():
    given, block = prefix(), EncoderBlock(WIDTH, 2, 2)
    state, module = torch.randn(2, 1, WIDTH, generator=noise(2)), compressor("attention", 0.25)
    given.mask[:, -1] = False
    other = PrefixFeatures(given.features.clone(), given.mask, {}, given.visual)
    other.features[:, -1] = torch.randn(2, WIDTH, generator=noise(3)) * 30
    a, b = module(given, state, block), module(other, state, block)
    assert torch.equal(a.features[:, 2:], b.features[:, 2:])


def scene(count: int, source: torch.Generator) -> tuple[PolicyInputs, PolicyLabels]:
    """One bright patch somewhere in the front picture; the answer is where, and stands nowhere else."""
    inputs, labels = make_batch(count, image_size=32)
    cell = torch.randint(0, 4, (count, 2), generator=source)
    images = torch.randint(0, 60, inputs.images.shape, generator=source).to(torch.uint8)
    for image, (row, column) in zip(images, cell.tolist(), strict=True):
        image[0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 250
    where = torch.zeros(count, 2, 3)
    where[:, :, :2] = cell[:, None].float() - 1.5
    fixed = {"images": images, "token_ids": inputs.token_ids[:1].expand(count, -1)}
    fixed |= {"state": torch.zeros_like(inputs.state), "embodiment_id": torch.zeros(count, dtype=torch.long)}
    return replace(inputs, **fixed), replace(labels, location_dm=where)


def test_a_net_trained_with_a_quarter_of_its_patches_finds_the_bright_one():
    net = make_net(
        backbone="patches", compression="attention", keep=0.25, backbone_settings={"image_size": 32},
        keypoint_weight=0.0, heads=("regression",), state_dropout=0.0,
    )  # fmt: skip
    optimizer, source = torch.optim.AdamW(net.parameters(), lr=5e-3), noise(7)
    for _ in range(100):
        loss, _ = net.loss(*scene(16, source), source)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    inputs, labels = scene(128, source)
    with torch.no_grad():
        error = (net.encode(inputs).location_dm - labels.location_dm)[..., :2].abs().mean()
    assert error < 0.3  # saying the middle each time is 1.0 off


def test_the_instruction_learns_what_to_keep():
    module, given = compressor("instruction", 0.25), prefix()
    module(given).features.square().sum().backward()
    assert module.ask.weight.grad.abs().sum() > 0
    assert module.answer.weight.grad.abs().sum() > 0


def test_bad_dials_and_backbones_without_patches_are_refused():
    with pytest.raises(UnknownNameError, match="Known: attention"):
        build_compressor("pol", WIDTH, 0.5)
    with pytest.raises(ConfigError, match=r"in \(0, 1\]"):
        build_compressor("pool", WIDTH, 0.0)
    with pytest.raises(ConfigError, match="nothing compresses"):
        build_compressor("none", WIDTH, 0.5)
    with pytest.raises(ConfigError, match="1/4, 1/9"):
        build_compressor("shuffle", WIDTH, 0.3)
    with pytest.raises(ConfigError, match="does not divide"):
        compressor("shuffle", 0.25)(prefix(side=3))
    for projector, blocks in (("qformer", 2), ("linear", 0)):
        with pytest.raises(ConfigError, match="needs a trunk"):
            make_net(compression="attention", keep=0.5, projector=projector, num_fusion_blocks=blocks)
    net = make_net(compression="attention", keep=0.5)  # the tiny backbone's tokens are no patches
    with pytest.raises(ConfigError, match=r"PrefixFeatures\.visual"):
        net.encode(make_batch()[0])


def test_visual_places_are_read_from_the_prompt():
    holders = torch.tensor([0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0]).bool()
    assert visual_grid(holders, 2, square).tolist() == [[[1, 2], [3, 4]], [[6, 7], [8, 9]]]
    assert visual_grid(holders, 2).shape == (2, 1, 4)
    assert visual_grid(holders[:-2], 1, square).shape == (1, 1, 7)  # seven are no square
    given = PrefixFeatures(torch.randn(1, 11, WIDTH), None, {}, visual_grid(holders, 2))
    with pytest.raises(ConfigError, match="learned queries"):
        compressor("pool", 0.25)(given)
    assert compressed(compressor("attention", 0.5), given).features.shape[1] == 3 + 4


def test_patches_are_found_between_class_tokens_row_ends_and_separators():
    assert square(5).tolist() == [[[1, 2], [3, 4]]]
    assert square_and_rows(10).tolist() == [[[0, 1], [2, 3]], [[4, 5], [7, 8]]]
    assert phi4_rows(13).tolist() == [[[0, 1], [3, 4]], [[7, 8], [10, 11]]]
