"""Environments of others by description: read with their own keys and units, judged as any suite is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vla import registry
from vla.errors import ConfigError, UnknownNameError, VlaError
from vla.eval.evaluate import evaluate
from vla.eval.grid import EvalConfig
from vla.testing import check_env
from vla_envs.gymnasium_suite.description import load_description
from vla_envs.gymnasium_suite.suite import GymnasiumSuite
from vla_envs.remote.process import RemoteError
from vla_envs.remote.serving.gymnasium_worlds import resized

FETCH = Path(load_description.__code__.co_filename).with_name("fetch.json")


def cart(**changes: Any) -> dict[str, Any]:
    """The description of the cart, with some keys changed."""
    arm = json.loads(FETCH.read_text())["embodiment"]
    line = {"size": 1, "unit": "m", "frame": "world", "mode": "absolute"}
    arm |= {
        "name": "cart",
        "control_hz": 10.0,
        "state": [{**line, "name": "x", "low": [-9], "high": [9], "slot": "arm0.tcp_position"}],
        "action": [
            {**line, "name": "dx", "mode": "delta", "low": [-0.1], "high": [0.1],
             "slot": "arm0.tcp_position_delta"},
            {**line, "name": "gripper", "low": [-1], "high": [1], "slot": "arm0.gripper"},
        ],
    }  # fmt: skip
    task = {"id": "fake/Cart-v0", "instruction": "Roll to the mark", "success": {"info": "there"}}
    return {
        "benchmark": "here",
        "imports": ["cart_env.py"],
        "embodiment": arm,
        "cameras": {"front": "render"},
        "state": {"x": {"at": ["arm", "place"], "start": 1, "scale": 0.01}},
        "action_scale": [0.1, 1.0],
        "tasks": {"roll": task},
        **changes,
    }


@pytest.fixture
def described(tmp_path: Path):
    """Writes a description beside its environment; returns the path."""
    code = Path(__file__).with_name("fake_gymnasium.py").read_text()
    (tmp_path / "cart_env.py").write_text(code)

    def write(**changes: Any) -> str:
        (tmp_path / "cart.json").write_text(json.dumps(cart(**changes)))
        return str(tmp_path / "cart.json")

    return write


def test_a_described_environment_keeps_the_contract_of_every_env(described) -> None:
    env = GymnasiumSuite(described()).make("roll", "cart", image_size=20)
    check_env(env)


def test_state_action_picture_and_success_are_read_as_described(described) -> None:
    env = GymnasiumSuite(described()).make("roll", "cart", image_size=20)
    obs, info = env.reset(seed=0)
    before = float(obs["state"]["x"][0])
    obs, *_ = env.step(np.array([0.05, 0], np.float32))
    assert obs["state"]["x"][0] == pytest.approx(before + 0.05, abs=1e-6)
    assert obs["images"]["front"].shape == (20, 20, 3)
    assert obs["instruction"] == "Roll to the mark"
    for _ in range(20):
        _, _, terminated, _, info = env.step(np.array([0.1, 0], np.float32))
        if terminated:
            break
    assert info["success"]
    assert env.facts["max_steps"] == 30


def test_the_suite_is_found_behind_its_at_and_judged_like_any(described, tmp_path: Path) -> None:
    name = f"vla_envs.gymnasium_suite.suite:GymnasiumSuite@{described()}"
    config = EvalConfig(suite=name, policy="random", num_seeds=2, workers=0, image_size=20)
    summary = evaluate(config, tmp_path / "run", progress=False)
    assert summary.overall["base"].success.n == 2
    assert summary.overall["base"].errors == 0


def test_reward_or_termination_may_be_success(described) -> None:
    for success in ({"reward_at_least": 1.0}, {"reward_at_least": -1.0}, {"terminated": True}):
        task = {**cart()["tasks"]["roll"], "success": success}
        env = GymnasiumSuite(described(tasks={"roll": task})).make("roll", "cart", image_size=20)
        env.reset(seed=0)
        _, _, _, _, info = env.step(np.zeros(2, np.float32))
        assert info["success"] == (success == {"reward_at_least": -1.0})


def test_an_instruction_may_be_what_the_environment_states(described) -> None:
    task = {**cart()["tasks"]["roll"], "instruction": {"info": "says"}}
    env = GymnasiumSuite(described(tasks={"roll": task})).make("roll", "cart", image_size=20)
    with pytest.raises(RemoteError, match="says"):  # this one states nothing when it is reset
        env.reset(seed=0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"camera": {}}, "camera"),
        ({"state": {}}, "state fields"),
        ({"state": {"x": {"key": ["arm"]}}}, "key"),
        ({"cameras": {"wrist": "render"}}, "cameras"),
        ({"action_scale": [1.0]}, "2 numbers"),
        ({"tasks": {}}, "no tasks"),
        ({"tasks": {"roll": {"id": "fake/Cart-v0", "success": {"info": "there"}}}}, "instruction"),
        ({"tasks": {"roll": {"id": "a", "instruction": "b", "success": {}}}}, "success"),
        ({"tasks": {"roll": {"id": "a", "instruction": "b", "success": {"reward": 1}}}}, "reward_at_least"),
        ({"embodiment": {"name": "cart"}}, "cameras"),
    ],
)
def test_a_description_that_is_wrong_is_refused_by_name(described, changes: dict, complaint: str) -> None:
    path = described(**changes)
    with pytest.raises(VlaError, match=complaint):
        GymnasiumSuite(path)


def test_an_environment_of_another_sort_is_refused(described) -> None:
    task = {**cart()["tasks"]["roll"], "id": "fake/Levers-v0"}
    with pytest.raises(RemoteError, match="only a Box"):
        GymnasiumSuite(described(tasks={"roll": task})).make("roll", "cart", image_size=20)
    arm = cart()["embodiment"]
    one = {**arm, "action": arm["action"][:1]}
    with pytest.raises(ConfigError, match="takes 2 numbers"):
        GymnasiumSuite(described(embodiment=one, action_scale=[0.1])).make("roll", "cart", image_size=20)


def test_the_shipped_description_is_whole_and_others_are_named() -> None:
    suite = registry.suite("vla_envs.gymnasium_suite.suite:GymnasiumSuite@fetch")
    assert "pick_and_place" in suite.tasks
    with pytest.raises(UnknownNameError, match="fetch"):
        GymnasiumSuite("fetsch")


def test_pictures_are_cut_square_and_averaged() -> None:
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[:2, 2:4] = 100
    np.testing.assert_array_equal(resized(picture, 2)[..., 0], [[100, 0], [0, 0]])
    assert resized(np.full((7, 9, 3), 50, np.uint8), 3).tolist() == [[[50] * 3] * 3] * 3
    with pytest.raises(ValueError, match="smaller"):
        resized(picture, 5)
