"""A run with the fast head fits its codec, keeps it in the contract, and loads again."""

from dataclasses import replace

import numpy as np

from tests.train.test_config import RECIPES, recipe
from vla.data.mixture import SourceConfig
from vla.models.saving import load_policy
from vla.train.config import BudgetConfig
from vla.train.loop import train


def test_every_new_head_trains_and_the_fitted_codec_is_loaded_with_the_policy(store, tmp_path):
    config = recipe(RECIPES[0])
    data = replace(config.data, sources=(SourceConfig(path=str(store)),), generate=None, image_size=16)
    heads = ("flow", "fast", "diffusion", "binned", "cvae")
    model = replace(
        config.model, heads=heads, insulate=("flow",), projector="perceiver", flow_schedule="early"
    )
    budget = BudgetConfig(steps=2)
    config = replace(config, data=data, model=model, budget=budget, num_processes=1, device="cpu")
    net, contract = load_policy(train(config, tmp_path / "run"))
    assert contract.network["head_settings"]["codec"]["merges"]
    assert net.heads["flow"].config.schedule == "early"
    codec = net.heads["fast"].codec
    still = np.zeros((1, codec.horizon, codec.action_dim))
    assert codec.decode(codec.encode(still)).shape == still.shape
