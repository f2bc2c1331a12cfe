"""The roofline reproduces known limits, and says what it cannot know."""

import json
from pathlib import Path

import pytest

from vla.cli.roofline import run
from vla.errors import CheckpointError, ConfigError, UnknownNameError
from vla.kernels import roofline
from vla.kernels.counting import policy_model
from vla.kernels.machine import best_s, last_level_cache
from vla.kernels.roofline import Machine, Stage, fraction, limit, machine, pi0, smolvla, total_s

SHIPPED = Path(__file__).parents[2] / "policies/vla_policies/pretrained/tabletop"
#: (model, bits) -> (total, action loop) in ms on each machine, worked out by hand from parameter counts.
NAMES = ("h100", "4090", "5090", "thor", "orin", "orin-nano")
LIMITS = {
    ("smolvla 1", 16): ((0.91, 3.6, 2.3, 9.4, 16.5, 35.7), (0.60, 2.0, 1.1, 7.4, 9.8, 19.7)),
    ("smolvla 2", 16): ((1.13, 4.9, 3.4, 10.2, 21.5, 48.8), (0.60, 2.0, 1.1, 7.4, 9.8, 19.7)),
    ("smolvla 2", 8): ((0.56, 2.5, 1.7, 5.1, 10.7, 24.4), (0.30, 1.0, 0.6, 3.7, 4.9, 9.8)),
    ("pi0 2", 16): ((4.5, 21.9, 15.8, 40.4, 91, 216), (1.9, 6.2, 3.5, 22.8, 30, 61)),
    ("pi0 2", 8): ((2.2, 10.9, 7.9, 20.2, 46, 108), (0.9, 3.1, 1.7, 11.4, 15, 31)),
}


def near(made: float, stated: float) -> bool:
    """Within 3 %, or half a unit of the last digit that was stated."""
    digits = len(f"{stated:g}".partition(".")[2])
    return abs(made - stated) <= max(0.03 * stated, 0.51 * 10**-digits)


@pytest.mark.parametrize(("name", "bits"), LIMITS)
def test_published_models_have_their_known_limits(name: str, bits: int):
    kind, views = name.split()
    model = {"smolvla": smolvla, "pi0": pi0}[kind](int(views))
    for key, total, action in zip(NAMES, *LIMITS[name, bits], strict=True):
        limits = model.limits(machine(key), bits)
        assert near(1e3 * total_s(limits), total), (key, total_s(limits), total)
        assert near(1e3 * total_s(limits, action=True), action), key


def test_published_models_have_their_known_flops():
    assert smolvla(2).flops == pytest.approx(593e9, rel=0.01)
    assert pi0(2).flops == pytest.approx(2949e9, rel=0.01)
    assert smolvla(1).stages[0].flops == pytest.approx(213e9, rel=0.03)


def test_a_stage_is_bound_by_the_slower_of_compute_and_memory():
    on = Machine("m", {16: 100.0}, 10.0, cache=0.0)
    assert limit(Stage(name="a", flops=1000, weights=10), on, 16).seconds == 10
    small = limit(Stage(name="a", flops=10, weights=100, repeats=3), on, 16)
    assert (small.seconds, small.bound) == (60, "memory")


def test_weights_that_fit_the_cache_are_read_once():
    stage = Stage(name="loop", flops=0, weights=100, repeats=10)
    fits, not_quite = Machine("m", {16: 1.0}, 10.0, cache=250.0), Machine("m", {16: 1.0}, 10.0, cache=249.0)
    assert limit(stage, fits, 16).seconds == 20
    assert limit(stage, not_quite, 16).seconds == 200


def test_the_fraction_of_a_measured_time_is_limit_over_time():
    limits = pi0(2).limits(machine("4090"), 16)
    assert fraction(limits, 2 * total_s(limits)) == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="positive"):
        fraction(limits, 0.0)


def test_the_shipped_policy_is_counted_from_its_own_weights():
    model = policy_model(SHIPPED)
    assert 0.3e6 < sum(stage.weights for stage in model.stages) < 20e6
    assert all(stage.flops > 0 for stage in model.stages)
    assert model.stages[2].repeats > 1


def test_unknown_machines_widths_and_models_are_refused():
    with pytest.raises(UnknownNameError, match="Known: 4090"):
        machine("h200")
    with pytest.raises(ConfigError, match="4-bit"):
        pi0(2).limits(machine("h100"), 4)
    with pytest.raises(ConfigError, match="one machine"):
        run(["pi0", "--measured-ms", "3"])
    with pytest.raises(CheckpointError, match="Known: smolvla"):
        run(["smolvl", "--machines", "h100"])


def test_the_verb_prints_limits_and_the_share_of_a_measured_time(capsys: pytest.CaptureFixture[str]):
    assert run(["smolvla", "--machines", "4090", "--measured-ms", "36"]) == 0
    text = capsys.readouterr().out
    assert "RTX 4090" in text
    assert "36 ms on RTX 4090 is 13." in text
    assert run(["pi0", "--machines", "h100", "thor", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["machines"]) == 2


def test_this_cpu_is_measured_and_computes_in_float32(monkeypatch: pytest.MonkeyPatch, capsys):
    from vla.kernels import machine as here

    monkeypatch.setattr(here, "_STREAM_BYTES", 2**20)
    monkeypatch.setattr(here.gemm_flops, "__defaults__", (0.01,))
    monkeypatch.setattr(here.read_bandwidth, "__defaults__", (0.01,))
    assert run(["smolvla", "--machines", "cpu", "--stages"]) == 0
    assert "measured now, float32" in capsys.readouterr().out
    assert last_level_cache() >= 0
    assert best_s(lambda: None, 0.001) < float("inf")
    assert roofline.RESIDENT < 1


@pytest.mark.parametrize("flag", ["--views", "--steps", "--chunk", "--measured-ms"])
def test_numbers_that_no_chunk_has_are_refused(flag: str):
    with pytest.raises(ConfigError, match=flag):
        run(["smolvla", "--machines", "h100", flag, "0"])


def test_a_time_below_the_limit_is_said_to_be_impossible(capsys: pytest.CaptureFixture[str]):
    for ms, said in (("1000", False), ("0.001", True)):
        assert run(["smolvla", "--machines", "h100", "--measured-ms", ms]) == 0
        assert ("No implementation is faster than the limit" in capsys.readouterr().out) == said
