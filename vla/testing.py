"""Contract suites: what every Env, Policy, Suite and Robot must do, ours and third parties' alike.

Call them from a test::

    def test_my_suite_keeps_the_contract():
        vla.testing.check_suite(MySuite())

Each raises ``AssertionError`` with what was expected; a suite that passes meets evaluation, data
generation and control without surprises.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from vla.embodiment import Embodiment
from vla.errors import ActionError, EnvError, UnknownNameError, VlaError
from vla.interfaces import (
    AUX_KEYS,
    DrawsOnDemand,
    Env,
    Policy,
    Suite,
    observation_from_gym,
    variants_of,
    wordings_of,
)
from vla.robots.checks import check_robot
from vla.types import Observation

__all__ = ["assert_same", "check_env", "check_policy", "check_robot", "check_suite", "sample_observation"]

NO_SUCH = "no_such_name"


def check_suite(
    suite: Suite, *, tasks: Sequence[str] | None = None, embodiments: Sequence[str] | None = None
) -> None:
    """Names, refusals, and every chosen cell's env and expert.

    Args:
        suite: to be checked.
        tasks, embodiments: cells to build; all by default (slow for a large suite: choose).
    """
    assert suite.name, "a suite has a name"
    assert suite.tasks, f"{suite.name}: a suite has at least one task"
    assert suite.embodiments, f"{suite.name}: a suite has at least one embodiment"
    _raises(
        UnknownNameError, lambda: suite.make(NO_SUCH, suite.embodiments[0]), "make() with an unknown task"
    )
    _raises(UnknownNameError, lambda: suite.make(suite.tasks[0], NO_SUCH), "make() with an unknown arm")
    for task, arm in itertools.product(tasks or suite.tasks, embodiments or suite.embodiments):
        env = suite.make(task, arm)
        try:
            assert env.embodiment.name == arm, f"{task}/{arm}: the env says it is {env.embodiment.name!r}"
            check_env(env)
            obs, _ = env.reset(seed=0)
            seen = observation_from_gym(obs, env.embodiment)  # a policy is shown no aux
            check_policy(suite.expert(env), env.embodiment, observations=[seen])
        finally:
            env.close()


def check_env(env: Env, *, seeds: Sequence[int] = (0, 1), num_steps: int = 6) -> None:
    """Exact resets, restorable states, honest observations, refused nonsense.

    Args:
        env: to be checked; it is reset and stepped, and left open.
        seeds: two different scenes.
        num_steps: length of the rollouts that are compared.
    """
    _check_reset(env, seeds)
    _check_variants(env, seeds[0])
    _check_rollout(env, seeds[0], num_steps)
    if isinstance(env, DrawsOnDemand):
        _check_drawing(env, seeds[0], num_steps)
    _check_restore(env, seeds[0], num_steps)
    _check_refusals(env, seeds[0])


def check_policy(
    policy: Policy, embodiment: Embodiment, *, observations: Sequence[Observation] | None = None
) -> None:
    """One well-formed chunk an observation, the same ones after a reset, and observations left alone.

    Args:
        policy: to be checked; deterministic from its reset on (seed what is random).
        embodiment: what the chunks are for.
        observations: what to show it; by default two made up from the embodiment. An expert bound to an
            env needs that env's own.
    """
    shown = list(observations or [sample_observation(embodiment, seed) for seed in (0, 1)])
    before = [{name: image.copy() for name, image in o.images.items()} for o in shown]
    policy.reset()
    first = policy.act(shown)
    assert len(first) == len(shown), f"{len(shown)} observations were answered with {len(first)} chunks"
    for chunk in first:
        embodiment.check_action(chunk.actions)
        assert chunk.actions.ndim == 2, (
            f"actions of shape {chunk.actions.shape}; expected [horizon action_dim]"
        )
        assert chunk.actions.dtype == np.float32, f"actions are {chunk.actions.dtype}; expected float32"
        assert chunk.horizon >= 1, "an empty chunk"
        assert chunk.control_hz == embodiment.control_hz, (
            f"chunk for {chunk.control_hz} Hz; {embodiment.name!r} runs at {embodiment.control_hz} Hz"
        )
    policy.reset()
    for chunk, again in zip(first, policy.act(shown), strict=True):
        np.testing.assert_array_equal(chunk.actions, again.actions, "another answer after reset()")
    for observation, images in zip(shown, before, strict=True):
        for name, image in images.items():
            np.testing.assert_array_equal(observation.images[name], image, "the policy changed an image")


def sample_observation(
    embodiment: Embodiment, seed: int = 0, instruction: str = "pick up the red cube"
) -> Observation:
    """A made-up observation inside an embodiment's ranges."""
    rng = np.random.default_rng(seed)
    return Observation(
        images={c.name: rng.integers(0, 256, (c.height, c.width, 3), np.uint8) for c in embodiment.cameras},
        state={f.name: rng.uniform(f.low, f.high).astype(np.float32) for f in embodiment.state},
        instruction=instruction,
        embodiment=embodiment.name,
    )


def assert_same(left: Any, right: Any, where: str) -> None:
    """Equal bit for bit: nested mappings of arrays, texts and numbers (NaN equals NaN)."""
    if isinstance(left, Mapping):
        assert set(left) == set(right), f"{where}: keys {sorted(left)} and {sorted(right)}"
        for key in left:
            assert_same(left[key], right[key], f"{where}[{key!r}]")
    elif isinstance(left, np.ndarray):
        np.testing.assert_array_equal(left, right, where)
    else:
        assert left == right, f"{where}: {left!r} and {right!r}"


def _check_reset(env: Env, seeds: Sequence[int]) -> None:
    obs, info = env.reset(seed=seeds[0])
    _check_observation(env, obs)
    _check_info(obs, info)
    assert info["success"] is False, "a new episode begins with success"
    other, _ = env.reset(seed=seeds[1])
    same, same_info = env.reset(seed=seeds[0])
    assert_same(obs, same, f"reset(seed={seeds[0]}) twice")
    assert_same(info, same_info, f"info of reset(seed={seeds[0]}) twice")
    different = any((obs["images"][c] != other["images"][c]).any() for c in obs["images"])
    different = different or any((obs["state"][f] != other["state"][f]).any() for f in obs["state"])
    assert different, f"seeds {seeds[0]} and {seeds[1]} give the same scene"


def _check_variants(env: Env, seed: int) -> None:
    base, _ = env.reset(seed=seed, options={"variant": "base", "wording": "train"})
    if "swapped" in variants_of(env):
        swapped, info = env.reset(seed=seed, options={"variant": "swapped", "wording": "train"})
        for part in ("images", "state"):
            assert_same(base[part], swapped[part], f"{part} of the swapped variant")
        assert base["instruction"] != swapped["instruction"], "the swapped variant asks for the same"
        assert info["success"] is False, "the swapped variant begins with success"
    if "heldout" in wordings_of(env):
        heldout, _ = env.reset(seed=seed, options={"variant": "base", "wording": "heldout"})
        assert_same(base["state"], heldout["state"], "state under a held-out wording")
    _raises(UnknownNameError, lambda: env.reset(seed=seed, options={NO_SUCH: 1}), "an unknown reset option")
    _raises(
        UnknownNameError, lambda: env.reset(seed=seed, options={"variant": NO_SUCH}), "an unknown variant"
    )


def _check_rollout(env: Env, seed: int, num_steps: int) -> None:
    actions = _actions(env, num_steps)
    first, second = _rollout(env, seed, actions), _rollout(env, seed, actions)
    for t, (a, b) in enumerate(zip(first, second, strict=True)):
        assert_same(a, b, f"step {t} of the same actions from seed {seed}")


def _rollout(env: Env, seed: int, actions: np.ndarray) -> list[dict[str, Any]]:
    env.reset(seed=seed)
    return [_step(env, action) for action in actions]


def _check_drawing(env: Env, seed: int, num_steps: int) -> None:
    """Pictures drawn on demand are those that are drawn every step, and are never of another moment."""
    bare: Any = env
    actions = _actions(env, num_steps)
    drawn = _rollout(env, seed, actions)
    bare.draws_on_demand = True
    try:
        early, _ = env.reset(seed=seed)
        for t, action in enumerate(actions):
            obs = env.step(action)[0]
            if t % 2:
                assert_same(dict(drawn[t]["obs"]["images"]), dict(obs["images"]), f"step {t}, on demand")
        for camera in early["images"]:
            _raises(EnvError, lambda c=camera: early["images"][c], "looking back at what was not drawn")
    finally:
        bare.draws_on_demand = False


def _check_restore(env: Env, seed: int, num_steps: int) -> None:
    actions = _actions(env, 2 * num_steps)
    obs, _ = env.reset(seed=seed)
    for action in actions[:num_steps]:
        obs = env.step(action)[0]
    state = env.save_state()
    went_on = [_step(env, action) for action in actions[num_steps:]]
    assert_same(obs, env.restore_state(state), "observation after restore_state()")
    for t, action in enumerate(actions[num_steps:]):
        assert_same(went_on[t], _step(env, action), f"step {t} after restore_state()")


def _check_refusals(env: Env, seed: int) -> None:
    env.reset(seed=seed)
    dim = env.embodiment.action_dim
    for bad in (np.nan, np.inf):
        action = np.zeros(dim, np.float32)
        action[-1] = bad
        _raises(ActionError, lambda a=action: env.step(a), f"an action with {bad}")
    _raises(VlaError, lambda: env.step(np.zeros(dim + 1, np.float32)), "an action of another size")
    _raises(VlaError, lambda: env.step(np.zeros((1, dim), np.float32)), "a batch of actions")


def _step(env: Env, action: np.ndarray) -> dict[str, Any]:
    obs, reward, terminated, truncated, info = env.step(action)
    _check_observation(env, obs)
    _check_info(obs, info)
    assert isinstance(terminated, bool), f"terminated is {type(terminated).__name__}, not bool"
    assert isinstance(truncated, bool), f"truncated is {type(truncated).__name__}, not bool"
    return {"obs": obs, "reward": float(reward), "end": [terminated, truncated], "info": info}


def _check_observation(env: Env, obs: Mapping[str, Any]) -> None:
    embodiment = env.embodiment
    assert set(obs) == {"images", "state", "instruction"}, f"observation has {sorted(obs)}"
    assert isinstance(obs["instruction"], str), "the instruction is not a text"
    assert obs["instruction"], "the instruction is empty"
    embodiment.pack_state(obs["state"])
    for camera in embodiment.cameras:
        if obs["images"]:  # an env built without rendering has none
            image = obs["images"][camera.name]
            assert image.shape == (camera.height, camera.width, 3), f"{camera.name}: {image.shape}"
            assert image.dtype == np.uint8, f"{camera.name}: {image.dtype}"
    assert isinstance(env, gymnasium.Env), f"{type(env).__name__} is not a gymnasium.Env"
    assert env.observation_space.contains(obs), "the observation is not in the observation space"


def _check_info(obs: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    for key, kind in (("success", bool), ("wrong", bool), ("instruction", str), ("aux", Mapping)):
        assert isinstance(info.get(key), kind), (
            f"info[{key!r}] is {info.get(key)!r}; expected {kind.__name__}"
        )
    assert info["instruction"] == obs["instruction"], "info and observation disagree on the instruction"
    for name, size in AUX_KEYS.items():
        if name in info["aux"]:
            value = info["aux"][name]
            assert value.shape == (size,), f"aux[{name!r}] has shape {value.shape}; expected ({size},)"
            assert value.dtype == np.float32, f"aux[{name!r}] is {value.dtype}; expected float32"


def _actions(env: Env, num_steps: int) -> np.ndarray:
    """float32 [num_steps, action_dim], inside the ranges, the same every time."""
    embodiment = env.embodiment
    rng = np.random.default_rng(7)
    shape = (num_steps, embodiment.action_dim)
    return rng.uniform(embodiment.action_low, embodiment.action_high, shape).astype(np.float32)


def _raises(kind: type[Exception], call: Callable[[], Any], what: str) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{what} was accepted; expected {kind.__name__}")
