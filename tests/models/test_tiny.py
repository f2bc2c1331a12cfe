"""The tiny backbone and its words."""

import numpy as np
import pytest
import torch

from tests.models.nets import VOCABULARY, make_batch
from vla.errors import ConfigError, UnknownNameError
from vla.models.auxiliary import keypoint_loss
from vla.models.backbones import Backbone, build_backbone
from vla.models.backbones.tiny import TinyVLM
from vla.models.backbones.words import WordTokenizer, build_vocabulary, split_words
from vla.models.projectors import build_projector

SETTINGS = {"vocabulary": VOCABULARY, "embodiments": ["a", "b"], "image_size": 16, "width": 32}


def encode(net, inputs):
    return net(inputs.images, None, inputs.token_ids, inputs.token_mask, inputs.embodiment_id)


@pytest.mark.parametrize("more", [{}, {"num_film_layers": 2, "num_frequencies": 4}])
def test_it_meets_the_backbone_protocol(more):
    torch.manual_seed(0)
    net = build_backbone("tiny", SETTINGS | more)
    prefix = encode(net, make_batch()[0])
    assert isinstance(net, Backbone)
    assert prefix.features.shape == (4, 2 + 2 * 8, net.width)
    assert prefix.auxiliary["keypoint_logits"].shape == (4, 2, 8, 16)


@pytest.mark.parametrize("image_size", [64, 96])
def test_other_image_sizes_work(image_size):
    net = build_backbone("tiny", SETTINGS | {"image_size": image_size})
    prefix = encode(net, make_batch(2, image_size=image_size)[0])
    assert prefix.auxiliary["keypoint_logits"].shape[-1] == (image_size // 4) ** 2


def test_it_reloads_exactly_through_from_pretrained(tmp_path):
    torch.manual_seed(0)
    net = build_backbone("tiny", SETTINGS)
    net.save_pretrained(tmp_path)
    again, info = TinyVLM.from_pretrained(tmp_path, output_loading_info=True)
    inputs, _ = make_batch()
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert again.config.vocabulary == VOCABULARY
    assert torch.equal(encode(net.eval(), inputs).features, encode(again, inputs).features)


def test_instruction_and_embodiment_change_what_is_seen():
    torch.manual_seed(0)
    net, (inputs, _) = build_backbone("tiny", SETTINGS), make_batch()
    seen = encode(net, inputs).auxiliary["keypoint_logits"]
    other_words = net(inputs.images, None, inputs.token_ids.flip(0), inputs.token_mask, inputs.embodiment_id)
    other_arm = net(inputs.images, None, inputs.token_ids, inputs.token_mask, 1 - inputs.embodiment_id)
    assert not torch.allclose(seen, other_words.auxiliary["keypoint_logits"])
    assert not torch.allclose(seen, other_arm.auxiliary["keypoint_logits"])


def test_padding_words_changes_nothing():
    torch.manual_seed(0)
    net, (inputs, _) = build_backbone("tiny", SETTINGS), make_batch()
    ids = torch.cat([inputs.token_ids, torch.zeros(4, 3, dtype=torch.long)], 1)
    mask = torch.cat([inputs.token_mask, torch.zeros(4, 3, dtype=torch.bool)], 1)
    padded = net(inputs.images, None, ids, mask, inputs.embodiment_id).features
    torch.testing.assert_close(padded, encode(net, inputs).features)


def test_keypoint_loss_is_least_where_the_label_is():
    uv = torch.full((1, 1, 2, 2), torch.nan)
    uv[0, 0, 0] = torch.tensor([0.75, -0.25])  # right of the middle, a little above it
    cells = torch.zeros(1, 1, 8, 16)
    losses = []
    for cell in range(16):
        logits = cells.clone()
        logits[..., cell] = 4.0
        losses.append(float(keypoint_loss(logits, uv)))
    assert int(np.argmin(losses)) == 1 * 4 + 3  # second row, last column


def test_unknown_words_are_reported_and_long_instructions_too():
    tokenizer = WordTokenizer(VOCABULARY, max_words=3)
    tokens = tokenizer.encode(["The RED cube!", "the crimson cube please now", ""])
    assert tokens.ids[0].tolist() == [5, 4, 3]
    assert tokens.unknown == ((), ("crimson", "please", "now"), ())
    assert tokens.mask.tolist() == [[True] * 3, [True] * 3, [True, False, False]]


def test_vocabulary_is_sorted_and_complete():
    assert build_vocabulary(["Put it down.", "put UP"]) == ["<pad>", "<unk>", "down", "it", "put", "up"]
    assert split_words("Don't  mix-up 2 cubes!") == ["don", "t", "mix", "up", "2", "cubes"]


def test_unknown_names_and_bad_sizes_are_refused():
    with pytest.raises(UnknownNameError, match=r"Known: .*tiny"):
        build_backbone("tny", {})
    with pytest.raises(UnknownNameError, match="Did you mean 'width'"):
        build_backbone("tiny", {"widht": 32})
    with pytest.raises(ConfigError, match="multiple of 4"):
        build_backbone("tiny", SETTINGS | {"image_size": 30})
    with pytest.raises(UnknownNameError, match="projector"):
        build_projector("quformer", 8, 8)


def test_things_are_found_by_name_before_the_instruction_is_known():
    torch.manual_seed(0)
    net = build_backbone("tiny", SETTINGS | {"num_film_layers": 2, "find_things": True}).train()
    inputs, _ = make_batch()
    names = net.tokenize(["red cube", "blue cube", "cube"])
    ids, mask = torch.from_numpy(names.ids), torch.from_numpy(names.mask)
    keys = encode(net, inputs).auxiliary["thing_keys"]
    other = net(inputs.images, None, inputs.token_ids.flip(0), inputs.token_mask, inputs.embodiment_id)
    logits = net.thing_logits(keys, ids, mask)
    assert logits.shape == (4, 2, 3, 16)
    assert not torch.allclose(logits[:, :, 0], logits[:, :, 1])
    torch.testing.assert_close(keys, other.auxiliary["thing_keys"])


def test_a_backbone_at_work_keeps_nothing_for_training():
    net = build_backbone("tiny", SETTINGS | {"find_things": True}).eval()
    assert "thing_keys" not in encode(net, make_batch()[0]).auxiliary
