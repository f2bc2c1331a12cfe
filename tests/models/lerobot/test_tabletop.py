"""``vla eval`` and ``vla run`` with a SmolVLA checkpoint in lerobot's format that fits the tabletop suite."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.lerobot import tiny
from vla import registry
from vla.cli.main import main
from vla.errors import ContractError
from vla.eval.records import read_records
from vla.models.lerobot import load_lerobot
from vla.models.lerobot.contract import LerobotContract

CAMERAS = {"observation.images.cam0": "front", "observation.images.cam1": "wrist"}
STATE = ("tcp_position", "tcp_yaw", "gripper_opening")  # 6 entries, as the checkpoint has
SIZE = 32


def narrow(folder: Path, size: int) -> None:
    """The tiny policy has 6 actions; the table's arms have 5."""
    config = json.loads((folder / "config.json").read_text())
    config["output_features"]["action"]["shape"] = [size]
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("policy_preprocessor", "policy_postprocessor"):
        pipeline = json.loads((folder / f"{name}.json").read_text())
        for step in pipeline["steps"]:
            if "state_file" in step:
                step["config"]["features"]["action"]["shape"] = [size]
                tensors = load_file(folder / step["state_file"])
                kept = {k: v[:size].clone() if k.startswith("action") else v for k, v in tensors.items()}
                save_file(kept, folder / step["state_file"])
        (folder / f"{name}.json").write_text(json.dumps(pipeline))


def arm(name: str = "panda"):
    env = registry.suite("tabletop").make("pick", name, image_size=SIZE, render=False)
    try:
        return env.embodiment
    finally:
        env.close()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tiny.write("smolvla", tmp_path_factory.mktemp("lerobot") / "policy", n_action_steps=10)
    narrow(folder, 5)
    contract = LerobotContract(embodiment=arm(), cameras=CAMERAS, state=STATE, execution_horizon=10)
    contract.save(folder, load_lerobot(folder).config)
    return folder


def evaluate(directory, out, arm_name="panda") -> int:
    words = ["eval", "--policy", f"lerobot:{directory}", "--out", str(out), "--arms", arm_name]
    return main([*words, "--tasks", "pick", "--episodes", "1", "--workers", "0", "--audit", "off", "--quiet"])


def test_vla_eval_judges_it_and_records_what_it_was(directory, tmp_path, capsys):
    assert evaluate(directory, tmp_path / "eval") == 0
    assert "pick" in capsys.readouterr().out
    (record,) = read_records(tmp_path / "eval" / "records.jsonl")
    assert record.steps > 0
    summary = (tmp_path / "eval" / "config.json").read_text()
    assert f"lerobot:{directory}" in summary


def test_vla_eval_refuses_an_arm_it_was_not_made_for(directory, tmp_path, capsys):
    assert evaluate(directory, tmp_path / "eval", "ur5e") != 0
    said = capsys.readouterr().err
    assert "made for 'panda', not for 'ur5e'" in said
    assert not (tmp_path / "eval" / "records.jsonl").exists()


def test_vla_run_drives_the_arm_with_it(directory, tmp_path, capsys):
    words = ["run", "pick up the red cube", "--policy", f"lerobot:{directory}", "--headless"]
    code = main([*words, "--out", str(tmp_path / "film.mp4")])
    assert code in (0, 1)  # random weights: success is not the claim
    assert "after" in capsys.readouterr().out
    assert (tmp_path / "film.mp4").stat().st_size > 0


def test_features_that_do_not_fit_are_refused_by_name(directory, tmp_path):
    wide = tiny.write("smolvla", tmp_path / "wide")
    contract = LerobotContract(
        embodiment=arm(), cameras=CAMERAS, state=(*STATE, "tcp_error"), execution_horizon=10
    )
    with pytest.raises(ContractError, match=r"(?s)have 9 entries, not 6.*action has 5 entries, not 6"):
        contract.save(wide, load_lerobot(wide).config)


def test_statistics_decide_the_actions(directory, tmp_path):
    batch, noise = tiny.batch(), tiny.noise("smolvla")
    before = load_lerobot(directory).chunk(batch, noise)[0].numpy()
    copy = tmp_path / "copy"
    load_lerobot(directory).save(copy)
    (path,) = copy.glob("*unnormalizer*.safetensors")
    tensors = load_file(path)
    save_file({**tensors, "action.std": 2 * tensors["action.std"]}, path)
    after = load_lerobot(copy).chunk(batch, noise)[0].numpy()
    mean = tensors["action.mean"].numpy()
    np.testing.assert_allclose(after - mean, 2 * (before - mean), rtol=1e-4, atol=1e-5)


def test_renaming_steps_and_the_tokenizer_are_honoured(directory, tmp_path):
    copy = tmp_path / "copy"
    load_lerobot(directory).save(copy)
    path = copy / "policy_preprocessor.json"
    pipeline = json.loads(path.read_text())
    (step,) = [s for s in pipeline["steps"] if s["registry_name"] == "rename_observations_processor"]
    step["config"]["rename_map"] = {"observation.images.top": "observation.images.cam0"}
    path.write_text(json.dumps(pipeline))
    batch, noise = tiny.batch(), tiny.noise("smolvla")
    expected, _ = load_lerobot(directory).chunk(batch, noise)
    renamed = {**batch, "observation.images.top": batch["observation.images.cam0"]}
    del renamed["observation.images.cam0"]
    assert torch.equal(load_lerobot(copy).chunk(renamed, noise)[0], expected)
    other, _ = load_lerobot(directory).chunk({**batch, "task": ["push the red cube", "cube"]}, noise)
    assert not torch.equal(other, expected)
