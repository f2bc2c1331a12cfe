"""A policy on a vision-language model, from training to acting: in 16 bits, with adapters, by hub name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, pipeline

import vla.models.auto
from tests.data.worlds import make_arm
from tests.models.backbones.tiny_vlms import save_model
from tests.train.runs import SIZE, fill_store, vlm_config
from vla.contract import PolicyContract
from vla.errors import ConfigError, ContractError
from vla.kernels.counting import policy_model
from vla.kernels.parity import certify
from vla.models.auto import TASK, VlaModel
from vla.models.lora import LoraConfig
from vla.models.saving import load_policy, merge_adapters
from vla.train.config import BudgetConfig
from vla.train.loop import train
from vla.types import Observation
from vla_policies.learned import LearnedPolicy


def observe(seed: int = 0, **changes: Any) -> Observation:
    arm, rng = make_arm("alpha", image_size=SIZE), np.random.default_rng(seed)
    return Observation(
        images={c.name: rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8) for c in arm.cameras},
        state={m.name: rng.uniform(m.low, m.high).astype(np.float32) for m in arm.state},
        instruction="pick up the red cube",
        embodiment="alpha",
        **changes,
    )


def make_policy(folder: Path, *, history: int = 0, **vlm: Any) -> Path:
    """Two steps of training; the model that it started from is gone."""
    source = save_model("smolvlm", folder / "smolvlm")
    config = vlm_config(fill_store(folder / "s.zarr"), source, vlm=vlm, budget=BudgetConfig(steps=2))
    config = replace(config, model=replace(config.model, heads=("flow",), history=history))
    policy = Path(str(train(config, folder / "run")))
    (folder / "smolvlm").rename(folder / "gone")
    return policy if (policy / "policy.json").is_file() else policy / "policy"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("adapted"), freeze="all", lora=LoraConfig(rank=2))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_policy_on_a_16_bit_backbone_acts_wherever_policies_do(dtype: str, tmp_path: Path):
    policy = make_policy(tmp_path, dtype=dtype)
    learned = LearnedPolicy.load(policy, engine="torch")
    assert next(learned.net.parameters()).dtype == getattr(torch, dtype)
    assert learned.net.dtype == torch.float32
    chunk = learned.act([observe()])[0]
    piped = pipeline(TASK, model=str(policy), device="cpu")(observe())
    np.testing.assert_allclose(piped.actions, chunk.actions, atol=1e-6)
    found = certify(policy, paths=("eager",), out=tmp_path / "parity.json")
    assert not any(row["missed"] for row in found["rows"])
    assert policy_model(policy).stages


def test_a_policy_is_not_run_in_another_dtype_than_it_was_trained_in(plain: Path):
    for dtype in ("bfloat16", torch.float16):
        with pytest.raises(ConfigError, match=r"trained in, here float32.*model\.vlm\.dtype"):
            AutoModel.from_pretrained(plain, dtype=dtype)
    pipe = pipeline(TASK, model=str(plain), dtype="bfloat16", device="cpu")  # falls back, which it logs
    assert pipe.model.net.dtype == torch.float32
    assert np.isfinite(pipe(observe()).actions).all()
    assert VlaModel.from_pretrained(plain, dtype="float32").net.dtype == torch.float32


def test_a_hub_name_brings_all_that_the_policy_needs(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The hub serves only what is asked for, out of a repository that holds more."""

    def serve(name: str, *, allow_patterns: list[str], revision: str = "main") -> str:
        there = [str(path.relative_to(plain)) for path in plain.rglob("*") if path.is_file()]
        for file in filter_repo_objects([*there, "checkpoint.safetensors"], allow_patterns=allow_patterns):
            (tmp_path / name / revision / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(plain / file, tmp_path / name / revision / file)
        return str(tmp_path / name / revision)

    monkeypatch.setattr(vla.models.auto, "snapshot_download", serve)
    model = VlaModel.from_pretrained("someone/policy", revision="v1")
    expected = load_policy(plain)[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.net.state_dict().items())


def test_a_hub_name_without_a_policy_says_so(monkeypatch: pytest.MonkeyPatch):
    def serve(*_: Any, **__: Any) -> str:
        raise FileNotFoundError("no such repository")

    monkeypatch.setattr(vla.models.auto, "snapshot_download", serve)
    with pytest.raises(ContractError, match=r"'someone/nothing'.*no such repository"):
        VlaModel.from_pretrained("someone/nothing")


def test_a_loaded_policy_is_saved_where_its_model_s_source_is_gone(plain: Path, tmp_path: Path):
    AutoModel.from_pretrained(plain).save_pretrained(tmp_path / "copy")
    AutoProcessor.from_pretrained(plain).save_pretrained(tmp_path / "copy")
    chunks = [LearnedPolicy.load(path).act([observe()])[0].actions for path in (plain, tmp_path / "copy")]
    np.testing.assert_array_equal(*chunks)


def test_a_pipeline_tells_a_policy_with_a_history_that_there_is_none_and_says_so(tmp_path: Path):
    policy = make_policy(tmp_path, history=2)
    pipe = pipeline(TASK, model=str(policy), device="cpu")
    first, again = pipe(observe()), pipe(observe())
    fresh = LearnedPolicy.load(policy).act([observe()])[0]
    np.testing.assert_allclose(first.actions, fresh.actions, atol=1e-6)
    np.testing.assert_array_equal(first.actions, again.actions)
    assert "2 moments" in first.info["note"]


def test_a_merged_policy_has_plain_weights_and_acts_the_same(adapted: Path, tmp_path: Path):
    contract = merge_adapters(adapted, tmp_path / "merged")
    assert contract.network["backbone_settings"]["lora"] is None
    assert contract.provenance["merged_adapters"]["of"] == PolicyContract.load(adapted).weights_sha256
    names = [load_file(path / "model.safetensors").keys() for path in (adapted, tmp_path / "merged")]
    assert [any("lora_" in name for name in some) for some in names] == [True, False]
    chunks = [LearnedPolicy.load(path).act([observe()])[0].actions for path in (adapted, tmp_path / "merged")]
    np.testing.assert_allclose(*chunks, atol=1e-5)


def test_a_policy_without_adapters_has_nothing_to_merge(plain: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="no LoRA adapters"):
        merge_adapters(plain, tmp_path / "merged")
