"""The parity certificate: measured on fresh inputs, stored beside the weights, failing where it must."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.kernels.heads import BLOCKS, make_head, noise, prefix
from tests.train.runs import fill_store, tiny_config
from vla.cli.doctor import run
from vla.errors import CheckpointError
from vla.kernels import parity
from vla.kernels.parity import Case, Row, certificate, certify, exact, measure, policy_cases
from vla.models.backbones import PrefixFeatures
from vla.models.saving import load_policy
from vla.train.loop import train

SHIPPED = Path(__file__).parents[2] / "policies/vla_policies/pretrained/tabletop"


def case(name: str = "one") -> Case:
    seen, state = prefix()
    drawn = torch.randn(2, 6, 5, generator=noise(), dtype=torch.float64)
    return Case(name, PrefixFeatures(seen.features.double(), seen.mask), state.double(), drawn)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", ["flow", "regression"])
def test_eager_and_static_are_within_tolerance_of_float64(name: str, block: str):
    rows = list(measure(name, make_head(name, block), [case()], 3, ("eager", "static")))
    assert [r.path for r in rows] == ["eager", "static"]
    assert all(0 < r.error < 1e-5 and not r.missed for r in rows)


def test_the_truth_is_the_stock_head_in_float64():
    head, one = make_head("flow", "parallel"), case()
    with torch.no_grad():
        doubled = make_head("flow", "parallel").double()
        x = one.noise
        for i in range(3):
            memory = doubled.encode_prefix(one.prefix, one.state)
            x = x + doubled.velocity(memory, x, torch.full((2,), i / 3)) / 3
    torch.testing.assert_close(exact(head, one, 3), x, atol=1e-6, rtol=1e-6)  # times are float32


def test_a_wrong_path_is_missed(monkeypatch: pytest.MonkeyPatch):
    honest = parity.approximate
    monkeypatch.setattr(parity, "approximate", lambda *args: honest(*args) * 1.001)
    rows = list(measure("flow", make_head("flow", "parallel"), [case()], 3, ("static",)))
    assert rows[0].missed
    assert not certificate(rows, "", 0, "cpu", [])["passed"]


def test_not_a_number_is_a_miss_and_nothing_run_is_no_pass():
    bad = Row(head="flow", path="static", dtype="float32", tolerance=1e-5, error=float("nan"))
    idle = Row(head="flow", path="triton", dtype="float32", tolerance=1e-5, reason="no GPU")
    assert bad.missed
    assert not idle.missed
    assert not certificate([idle], "", 0, "cpu", [])["passed"]


def test_a_path_that_does_not_run_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    rows = list(measure("flow", make_head("flow", "parallel"), [case()], 1, ("triton",)))
    assert all(r.error is None and "riton" in r.reason for r in rows)


def test_inputs_have_several_prompt_lengths_and_numbers_of_cameras():
    net, contract = load_policy(SHIPPED)
    cases = policy_cases(net, contract, noise())
    assert len(cases) == len(parity.PROMPT_WORDS)
    seen = [tuple(c.prefix.mask.sum(1).tolist()) for c in cases]
    assert all(len(set(row)) == len(contract.camera_roles) for row in seen)


def test_the_shipped_policy_passes_and_its_certificate_names_its_weights(tmp_path: Path):
    out = tmp_path / "parity.json"
    found = certify(SHIPPED, out=out, paths=("eager", "static"), seed=5)
    assert found["passed"]
    assert json.loads(out.read_text()) == found
    assert found["weights_sha256"] == load_policy(SHIPPED)[1].weights_sha256


def test_a_failed_certificate_is_not_overwritten_silently(tmp_path: Path):
    out = tmp_path / "parity.json"
    out.write_text(json.dumps({"passed": False, "created": "then"}))
    with pytest.raises(CheckpointError, match="failed on then"):
        certify(SHIPPED, out=out, paths=("static",), seed=5)
    assert certify(SHIPPED, out=out, paths=("static",), overwrite=True, seed=5)["passed"]


def test_doctor_exits_with_one_on_a_miss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    monkeypatch.setattr(parity, "PATHS", ("static",))
    for tolerance, code in ((1e-5, 0), (1e-12, 1)):
        monkeypatch.setitem(parity.TOLERANCE, torch.float32, tolerance)
        arguments = ["--parity", "default", "--out", str(tmp_path / f"{code}.json")]
        monkeypatch.setattr(
            certify, "__kwdefaults__", {**certify.__kwdefaults__, "paths": ("static",), "seed": 5}
        )
        assert run(arguments) == code
        assert ("MISSED" in capsys.readouterr().out) == bool(code)


def test_the_certificate_runs_with_tokens_of_the_past(tmp_path: Path):
    config, tokens = tiny_config(fill_store(tmp_path / "s.zarr"), steps=1), []
    for moments in (0, 2):
        model = replace(config.model, history=moments)
        policy = train(replace(config, model=model), tmp_path / f"run{moments}")
        tokens.append({c.state.shape[1] for c in policy_cases(*load_policy(policy), noise())})
    assert tokens[1] == {count + 2 for count in tokens[0]}
    found = certify(policy, paths=("eager", "static"), seed=5)
    assert found["passed"]
    assert {row["path"] for row in found["rows"] if row["error"] is not None} >= {"eager", "static"}
