"""Fewer visual tokens: the dial counts, nothing changes at 1, nothing masked is chosen."""

import pytest
import torch

from tests.models.nets import make_batch, make_net, noise
from vla.errors import ConfigError, UnknownNameError
from vla.models.backbones import PrefixFeatures
from vla.models.backbones.inputs import phi4_rows, square, square_and_rows
from vla.models.tokens import COMPRESSORS, build_compressor, visual_grid

WIDTH = 8


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


@pytest.mark.parametrize("name", COMPRESSORS)
def test_keeping_all_changes_nothing(name):
    given = prefix()
    assert compressor(name, 1.0)(given) is given


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("mask", [True, False])
def test_a_quarter_of_the_visual_tokens_is_left_and_all_words(name, mask):
    given = prefix(mask=mask)
    made = compressor(name, 0.25)(given)
    assert made.features.shape == (2, 2 + 8, WIDTH)
    assert torch.equal(made.features[:, :2], given.features[:, [0, -1]])
    assert (made.mask is None) != mask
    if mask:
        assert made.mask[0].all()
        assert int(made.mask[1].sum()) == (2 + 8 if name in ("attention", "instruction") else 2 + 4)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_missing_picture_is_never_read(name):
    given = prefix()
    other = given.features.where(given.mask[..., None], 40.0)
    module = compressor(name, 0.25)
    a, b = module(given), module(PrefixFeatures(other, given.mask, {}, given.visual))
    torch.testing.assert_close(a.features[a.mask], b.features[b.mask])


def test_pooling_is_the_mean_and_pixel_shuffle_starts_as_it():
    given = prefix()
    pooled, shuffled = (compressor(name, 0.25)(given) for name in ("pool", "shuffle"))
    block = given.features[:, given.visual[0, :2, :2].flatten()].mean(1)
    torch.testing.assert_close(pooled.features[:, 2], block)
    torch.testing.assert_close(shuffled.features, pooled.features)
    assert torch.equal(shuffled.visual, torch.arange(2, 10).view(2, 2, 2))


def test_what_is_chosen_by_attention_is_what_the_words_attend_to():
    given = prefix(mask=False)
    wanted = [7, 20, 21, 30]  # of both pictures
    given.features[:, 0] = given.features[:, wanted].sum(1)  # a word that says it ...
    given.features[:, -1] = given.features[:, 0]
    for row in range(2):
        given.features[row, wanted] *= 5
    made = compressor("attention", 4 / 32)(given)
    asked = torch.nn.functional.layer_norm(given.features, (WIDTH,))
    score = (asked[:, [0]] @ asked[:, 1:-1].transpose(1, 2))[:, 0]
    best = score.topk(4, dim=1).indices.sort(dim=1).values + 1
    expected = given.features.gather(1, best[..., None].expand(-1, -1, WIDTH))
    torch.testing.assert_close(made.features[:, 2:], expected)


def test_where_the_backbones_queries_look_is_what_attention_keeps():
    given = prefix()
    logits = torch.zeros(2, 2, 2, 16)
    logits[0, 0, 0, 3], logits[0, 1, 1, 9], logits[1, 0, :, 5] = 8.0, 7.0, 6.0
    given.auxiliary["keypoint_logits"] = logits.requires_grad_()
    made = compressor("attention", 2 / 32)(given)
    torch.testing.assert_close(made.features[0, 2:], given.features[0, [1 + 3, 1 + 16 + 9]])
    assert 1 + 5 in [int((given.features[1] == kept).all(-1).nonzero()) for kept in made.features[1, 2:]]
    made.features[0, 2:].sum().backward()
    assert logits.grad.abs().sum() > 0  # what is kept teaches the queries where to look


def test_attention_is_not_asked_of_patches_that_are_reused():
    with pytest.raises(ConfigError, match="leave reuse out"):
        make_net(backbone="patches", compression="attention", keep=0.5, reuse=True)


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
    assert compressor("attention", 0.5)(given).features.shape[1] == 3 + 4


def test_patches_are_found_between_class_tokens_row_ends_and_separators():
    assert square(5).tolist() == [[[1, 2], [3, 4]]]
    assert square_and_rows(10).tolist() == [[[0, 1], [2, 3]], [[4, 5], [7, 8]]]
    assert phi4_rows(13).tolist() == [[[0, 1], [3, 4]], [[7, 8], [10, 11]]]
