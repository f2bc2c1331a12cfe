"""An exported policy computes what the policy computes, and says so where it would not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.worlds import make_arm, make_episode
from tests.train.runs import SIZE, fill_store, tiny_config
from vla.cli.flags import policy_spec
from vla.cli.main import main
from vla.contract import CONTRACT_FILE, PolicyContract
from vla.control.policies import PolicySpec
from vla.errors import CheckpointError, ConfigError, ContractError, UnknownNameError
from vla.export import quantise, writing
from vla.export.graphs import exportable, pad_words
from vla.export.manifest import FOLDER, MANIFEST_FILE, Manifest
from vla.export.writing import export_policy
from vla.kernels.parity import certify
from vla.models.saving import load_policy
from vla.train.loop import train
from vla_policies.learned import LearnedPolicy

onnx = pytest.importorskip("onnx", reason="exporting needs onnx: pip install 'vla[onnx]'")
pytest.importorskip("onnxruntime", reason="running an export needs ONNX Runtime: pip install 'vla[onnx]'")

ARMS = [make_arm("alpha", image_size=SIZE), make_arm("beta", image_size=SIZE, joints=5)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A policy with an export of two observations at once, with int8 files."""
    where = tmp_path_factory.mktemp("export")
    run = train(tiny_config(fill_store(where / "demos.zarr"), steps=2), where / "run")
    policy = run if (run / CONTRACT_FILE).is_file() else run / "policy"
    export_policy(policy, batch=2)
    return policy


@pytest.fixture
def policy(exported, tmp_path) -> Path:
    """A private copy."""
    return Path(shutil.copytree(exported, tmp_path / "policy"))


def observe(count: int):
    """Of both arms in turn."""
    sources = [(ARMS[i % 2], np.random.default_rng(i)) for i in range(count)]
    return [make_episode(source, arm, length=1).steps[0].observation for arm, source in sources]


def actions(policy: LearnedPolicy, count: int = 3) -> np.ndarray:
    return np.stack([chunk.actions for chunk in policy.act(observe(count))])


def test_an_export_is_the_default_engine_and_gives_the_same_actions(exported):
    stock, found = LearnedPolicy.load(exported, engine="torch"), LearnedPolicy.load(exported)
    assert (stock.engine, found.engine) == ("torch", "onnx")
    np.testing.assert_allclose(actions(found), actions(stock), atol=1e-5)
    assert found.act(observe(1))[0].info["engine"] == "onnx"


def test_noise_and_locations_are_those_of_the_network(exported):
    made = [LearnedPolicy.load(exported, engine=name) for name in ("torch", "onnx")]
    for one in made:
        one.generator = torch.Generator().manual_seed(3)
    left, right = (one.act(observe(3)) for one in made)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a.actions, b.actions, atol=1e-5)
        assert set(a.info) == set(b.info)


def test_another_head_runs_on_torch_unless_onnx_is_asked_for(exported):
    assert LearnedPolicy.load(exported, head="regression").engine == "torch"
    with pytest.raises(ConfigError, match="runs the head 'flow', not 'regression'"):
        LearnedPolicy.load(exported, head="regression", engine="onnx")
    with pytest.raises(UnknownNameError, match="onnx-int8"):
        LearnedPolicy.load(exported, engine="onx")


def test_a_regression_head_exports_too(policy, tmp_path):
    made = export_policy(policy, tmp_path / "out", head="regression")
    assert (made.num_steps, made.draws_noise) == (1, False)
    found = LearnedPolicy.load(policy, "regression", engine="onnx", export=tmp_path / "out")
    stock = LearnedPolicy.load(policy, "regression", engine="torch")
    np.testing.assert_allclose(actions(found), actions(stock), atol=1e-5)


def test_files_that_miss_the_reference_are_not_written(policy, tmp_path, monkeypatch):
    honest = writing.exact_actions
    monkeypatch.setattr(writing, "exact_actions", lambda *args: tuple(x + 1e-3 for x in honest(*args)))
    with pytest.raises(CheckpointError, match="miss the float64 reference"):
        export_policy(policy, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_changed_file_and_other_weights_are_refused(policy):
    path = policy / FOLDER / "steps.onnx"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=r"steps\.onnx is not the file"):
        LearnedPolicy.load(policy)
    manifest = policy / FOLDER / MANIFEST_FILE
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "weights_sha256": "0" * 64}))
    with pytest.raises(ContractError, match="Export again"):
        LearnedPolicy.load(policy)


def test_int8_is_kept_only_within_its_limit(policy, monkeypatch):
    monkeypatch.setattr(quantise, "LEAST_SIDE", 16)
    contract, folder = PolicyContract.load(policy), policy / FOLDER
    with pytest.raises(CheckpointError, match="no accepted int8"):
        LearnedPolicy.load(policy, engine="onnx-int8")
    quantise.quantise(folder, contract)
    stock, small = (LearnedPolicy.load(policy, engine=name) for name in ("torch", "onnx-int8"))
    report = quantise.action_error(stock, small, observe(4), contract.embodiments)
    assert 0 < report["mean"] <= report["percentile_99"] <= report["largest"] < 1
    assert quantise.judge(folder, contract, report, limit=report["largest"]).int8["within_limit"]
    with pytest.raises(CheckpointError, match="float32 export stays"):
        quantise.judge(folder, contract, report, limit=report["largest"] / 2)
    assert not list(folder.glob("*int8*"))
    assert LearnedPolicy.load(policy).engine == "onnx"


def test_int8_reaches_every_step(policy, monkeypatch):
    monkeypatch.setattr(quantise, "LEAST_SIDE", 16)
    steps = policy / FOLDER / "steps.onnx"
    names = quantise.large_products(steps)
    weights = {node.input[1] for node in onnx.load(steps).graph.node if node.name in names}
    assert len(names) == len(weights) * PolicyContract.load(policy).num_flow_steps
    quantise.quantise(policy / FOLDER, PolicyContract.load(policy))
    made = onnx.load(policy / FOLDER / "steps.int8.onnx").graph.node
    assert sum(node.op_type == "MatMulInteger" for node in made) >= len(names)


def test_a_broken_int8_export_cannot_be_accepted(policy, monkeypatch):
    monkeypatch.setattr(quantise, "LEAST_SIDE", 16)
    contract, report = PolicyContract.load(policy), {"percentile_99": 0.0, "mean": 0.0, "observations": 1}
    quantise.quantise(policy / FOLDER, contract)
    with pytest.raises(CheckpointError, match="up to nan"):
        quantise.judge(policy / FOLDER, contract, {**report, "largest": float("nan")}, accept=True)


def test_the_action_error_is_a_share_of_the_declared_range(exported):
    stock, contract = LearnedPolicy.load(exported, engine="torch"), PolicyContract.load(exported)

    class Shifted:
        reset = stock.reset

        def act(self, observations):
            arm = contract.embodiments[observations[0].embodiment]
            span = np.concatenate([np.subtract(f.high, f.low) for f in arm.action])
            return [replace(chunk, actions=chunk.actions + 0.25 * span) for chunk in stock.act(observations)]

    report = quantise.action_error(stock, Shifted(), observe(2), contract.embodiments)
    assert report["largest"] == pytest.approx(0.25, abs=1e-4)
    assert report["mean"] == pytest.approx(0.25, abs=1e-4)


def test_the_certificate_has_a_row_for_the_export(policy):
    rows = {row["path"]: row for row in certify(policy, paths=("static",), seed=1)["rows"]}
    assert 0 < rows["onnx"]["error"] < rows["onnx"]["tolerance"]
    assert not rows["onnx"]["missed"]


def test_the_verb_writes_beside_the_policy(policy, capsys):
    assert main(["export", str(policy), "--words", "6", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["words"] == 6
    assert json.loads((policy / FOLDER / MANIFEST_FILE).read_text())["batch"] == 1
    long = [replace(observe(1)[0], instruction="put it " * 5)]
    with pytest.raises(ConfigError, match="larger --words"):
        LearnedPolicy.load(policy).act(long)


@pytest.mark.parametrize("elsewhere", [True, False])
def test_the_verb_says_how_to_run_what_it_wrote(policy, tmp_path, capsys, elsewhere):
    flags = ["--out", str(tmp_path / "there")] if elsewhere else []
    assert main(["export", str(policy), *flags]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    built = PolicySpec.parse(policy_spec(last.removeprefix("run it: vla eval --policy "))).build()
    assert built.engine == "onnx"


def test_int8_files_kept_beyond_their_limit_say_so(policy, monkeypatch, capsys):
    def beyond(directory, out, flags):
        report = {"largest": 0.2, "mean": 0.01, "observations": 3, "limit": 0.01, "within_limit": False}
        return replace(Manifest.load(out, PolicyContract.load(directory)), int8=report)

    monkeypatch.setattr("vla.cli.export._quantise", beyond)
    assert main(["export", str(policy), "--int8", "--accept-error"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "limit 0.01: BEYOND it" in said[-2]
    assert said[-1].endswith(f"learned:{policy},engine=onnx-int8")


def test_what_has_no_fixed_graphs_is_refused(exported):
    net, _ = load_policy(exported)
    with pytest.raises(UnknownNameError, match="diffusion"):
        exportable(net, "diffusion")


def test_a_policy_with_history_exports_and_remembers_the_same(tmp_path):
    config = tiny_config(fill_store(tmp_path / "demos.zarr"), steps=2)
    run = train(replace(config, model=replace(config.model, history=2)), tmp_path / "run")
    export_policy(run, batch=2)
    stock, found = (LearnedPolicy.load(run, engine=name) for name in ("torch", "onnx"))
    gap = stock.contract.execution_horizon / ARMS[0].control_hz
    made = []
    for decision in range(3):
        seen = [replace(o, time_s=decision * gap, episode=i) for i, o in enumerate(observe(2))]
        made.append([[chunk.actions for chunk in policy.act(seen)] for policy in (stock, found)])
    for ours, theirs in made:
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert not np.allclose(made[0][0], made[2][0], atol=1e-6)  # the same sight, another past


def test_padding_words_changes_nothing_but_the_size():
    ids, mask = pad_words(torch.tensor([[3, 4]]), torch.tensor([[True, True]]), 4)
    assert ids.tolist() == [[3, 4, 0, 0]]
    assert mask.tolist() == [[True, True, False, False]]
