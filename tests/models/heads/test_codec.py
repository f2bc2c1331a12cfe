"""The action codec: cosines, merges and JSON are inverted exactly; nothing that is damaged is read."""

import json

import numpy as np
import pytest

from vla.errors import ConfigError, UnknownNameError
from vla.models.heads.action_codec import ActionCodec, cosines, hold

RNG = np.random.default_rng(0)
STEPS = np.linspace(0, 1, 8)[None, :, None]
CHUNKS = np.sin(STEPS * RNG.uniform(0, 4, (64, 1, 3)) + RNG.uniform(0, 6, (64, 1, 3)))


def test_the_cosines_are_orthonormal():
    np.testing.assert_allclose(cosines(7) @ cosines(7).T, np.eye(7), atol=1e-12)


def test_decoding_inverts_encoding_up_to_rounding():
    codec = ActionCodec.fit(CHUNKS, scale=20.0, vocabulary=300)
    made = codec.decode(codec.encode(CHUNKS))
    error = np.sqrt(np.square(made - CHUNKS).sum(1)).max()  # an orthonormal transform keeps distances
    assert error <= 0.5 / 20.0 * np.sqrt(8) + 1e-6


def test_merges_shorten_and_change_nothing():
    plain = ActionCodec.fit(CHUNKS, vocabulary=1)
    merged = ActionCodec.fit(CHUNKS, vocabulary=plain.vocabulary + 40)
    assert plain.merges == ()
    assert sum(map(len, merged.encode(CHUNKS))) < 0.7 * sum(map(len, plain.encode(CHUNKS)))
    np.testing.assert_array_equal(merged.decode(merged.encode(CHUNKS)), plain.decode(plain.encode(CHUNKS)))


def test_runs_of_one_symbol_are_merged_from_the_left():
    codec = ActionCodec(horizon=5, action_dim=1, scale=1.0, low=0, high=1, merges=((0, 0), (2, 2)))
    assert codec.encode(np.zeros((2, 5, 1))) == [[3, 0], [3, 0]]


def test_the_codec_survives_json_and_refuses_damage():
    codec = ActionCodec.fit(CHUNKS, vocabulary=120)
    data = json.loads(json.dumps(codec.to_json()))
    assert ActionCodec.from_json(data) == codec
    with pytest.raises(UnknownNameError, match="'scale'"):
        ActionCodec.from_json({**data, "scales": 1})
    with pytest.raises(ConfigError, match=r"lacks \['merges'\]"):
        ActionCodec.from_json({k: v for k, v in data.items() if k != "merges"})
    with pytest.raises(ConfigError, match="do not exist yet"):
        ActionCodec.from_json({**data, "merges": [[0, 9999]]})
    with pytest.raises(ConfigError, match="coefficients"):
        codec.decode([[0]])


def test_nothing_is_fitted_to_what_is_not_finite():
    with pytest.raises(ConfigError, match="finite"):
        ActionCodec.fit(np.full((2, 3, 4), np.nan))


def test_masked_entries_hold_the_last_known_value():
    actions = np.array([[[1.0, 9.0, 9.0], [2.0, 5.0, 9.0], [9.0, 9.0, 9.0]]])
    mask = np.array([[[True, False, False], [True, True, False], [False, False, False]]])
    assert hold(actions, mask)[0].T.tolist() == [[1, 2, 2], [5, 5, 5], [0, 0, 0]]
