"""Every head preset has a row in the certificate: also those that no graph covers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.kernels.heads import config, noise, prefix
from vla.errors import ConfigError
from vla.kernels.parity import PATHS, Case
from vla.kernels.stock_parity import outputs, stock_rows
from vla.models.backbones import PrefixFeatures
from vla.models.heads import build_head
from vla.models.heads.action_codec import ActionCodec
from vla.models.heads.diffusion import DiffusionHead

CHUNKS = np.cumsum(np.random.default_rng(0).normal(0, 0.1, (16, 6, 5)), axis=1)
CODEC = {"codec": ActionCodec.fit(CHUNKS, vocabulary=300).to_json()}
PRESETS = {"diffusion": {}, "cvae": {}, "binned": {"num_bins": 16}, "fast": CODEC}


def make(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_head(name, config("sequential", **PRESETS[name])).eval()


def case() -> Case:
    seen, state = prefix()
    features = PrefixFeatures(seen.features.double(), seen.mask)
    return Case("one", features, state.double(), torch.randn(2, 6, 5, generator=noise()).double())


@pytest.mark.parametrize("name", PRESETS)
def test_heads_without_graphs_are_within_tolerance_of_float64_and_say_what_does_not_run(name):
    rows = list(stock_rows(name, make(name), [case()], 3, seed=1))
    assert [row.path for row in rows] == list(PATHS)
    assert 0 < rows[0].error < rows[0].tolerance
    assert all(row.error is None and "run as they are" in row.reason for row in rows[1:])


def test_a_wrong_head_is_missed(monkeypatch: pytest.MonkeyPatch):
    honest = DiffusionHead.predict

    def wrong(self, memory, x, time):
        return honest(self, memory, x, time) * (1.001 if x.dtype == torch.float32 else 1.0)

    monkeypatch.setattr(DiffusionHead, "predict", wrong)
    assert next(stock_rows("diffusion", make("diffusion"), [case()], 3, seed=1, paths=("eager",))).missed


def test_what_is_no_head_is_refused():
    with pytest.raises(ConfigError, match="no action head"):
        outputs(torch.nn.Linear(2, 2), case(), torch.float32, 1, seed=0)
