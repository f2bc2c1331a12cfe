"""Projectors: every one for every backbone; what is masked is not read; each part learns at its own rate."""

import pytest
import torch

from tests.models.nets import make_batch, make_net, noise
from vla.errors import ConfigError, UnknownNameError
from vla.models.backbones import PrefixFeatures
from vla.models.projectors import build_projector, project
from vla.train.config import OptimConfig
from vla.train.optim import build_optimizer

ALL = ("linear", "mlp", "qformer", "perceiver")


@pytest.mark.parametrize("name", ALL)
def test_a_policy_learns_through_every_projector(name):
    net, (inputs, labels) = make_net(projector=name, num_latents=6, heads=("regression",)), make_batch(2)
    net.loss(inputs, labels, noise())[0].backward()
    assert all(p.grad is not None for p in net.projector.parameters())
    assert net.sample(inputs)[0].isfinite().all()


@pytest.mark.parametrize("name", ["qformer", "perceiver"])
def test_a_resampler_gives_its_number_of_tokens_and_reads_no_padding(name):
    torch.manual_seed(0)
    projector = build_projector(name, 24, 32, num_latents=5)
    features, garbage = torch.randn(2, 7, 24, generator=noise()), torch.full((2, 3, 24), 30.0)
    mask = torch.tensor([[True] * 7 + [False] * 3] * 2)
    short = project(projector, PrefixFeatures(features, None))
    padded = project(projector, PrefixFeatures(torch.cat([features, garbage], dim=1), mask))
    assert short.features.shape == (2, 5, 32)
    assert padded.mask is None
    torch.testing.assert_close(short.features, padded.features, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_a_layer_keeps_every_token_its_mask_and_its_place(name):
    mask, grid = torch.tensor([[True, True, False]]), torch.tensor([[[1, 2]]])
    given = PrefixFeatures(torch.randn(1, 3, 8, generator=noise()), mask, {}, grid)
    made = project(build_projector(name, 8, 16), given)
    assert made.features.shape == (1, 3, 16)
    assert made.mask is mask
    assert made.visual is grid


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'qformer'"):
        build_projector("qfomer", 8, 8)
    with pytest.raises(ConfigError, match="num_latents >= 1"):
        build_projector("perceiver", 8, 8, num_latents=0)


def test_every_part_has_its_own_learning_rate():
    net = make_net()
    config = OptimConfig(lr=1.0, backbone_lr_factor=0.1, projector_lr_factor=0.5, head_lr_factor=2.0)
    rates = {p: g["lr"] for g in build_optimizer(net, config).param_groups for p in g["params"]}
    expected = {
        "backbone": 0.1,
        "projector": 0.5,
        "heads": 2.0,
        "fusion": 1.0,
        "state_in": 1.0,
        "locate": 1.0,
    }
    assert len(rates) == len(list(net.parameters()))
    for name, parameter in net.named_parameters():
        assert rates[parameter] == expected[name.split(".")[0]], name
    with pytest.raises(ConfigError, match="0 or more"):
        OptimConfig(head_lr_factor=-1.0)
