"""A person takes over from a policy and hands back, or moves the arm alone: limits, recording, learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.eval.fake_suite import PointEnv, Seer, point_embodiment
from vla.control.chunks import ChunkExecutor, holding
from vla.control.loop import LoopResult, run_loop
from vla.control.safety import SafetyEnvelope
from vla.data.mixture import SourceConfig, open_sources
from vla.data.recorder import StoreRecorder
from vla.data.store import EpisodeStore
from vla.embodiment import Embodiment
from vla.errors import ConfigError, DatasetError, RobotError, UnknownNameError
from vla.robots.sim import SimRobot
from vla.session import SessionConfig, run_session
from vla.session.watching import Attachments
from vla.teleop import HUMAN, POLICY, Takeover
from vla.teleop.jog import Jog
from vla.teleop.keyboard import Keys

ASIDE = np.array([0.02, 0, 0, -1], np.float32)
WILD = np.array([9, 9, 9, 9], np.float32)


class Script:
    """A person who does these actions, one a step, and then nothing."""

    def __init__(self, *actions: np.ndarray | RobotError | None) -> None:
        self._actions, self.closed = list(actions), 0

    def connect(self, arm: Embodiment) -> None:
        """Nothing to open."""

    def read(self, state: Mapping[str, np.ndarray]) -> np.ndarray | None:
        wanted = self._actions.pop(0) if self._actions else None
        if isinstance(wanted, RobotError):
            raise wanted
        return wanted

    def close(self) -> None:
        self.closed += 1


class Watched(Seer):
    """A seer that remembers how often it was told to forget."""

    resets = 0

    def reset(self) -> None:
        self.resets += 1


def ran(
    script: Script, *, seer: Seer | None, store: Path | None = None, steps: int = 12, told: Callable = print
) -> tuple[LoopResult, SafetyEnvelope]:
    robot = SimRobot(PointEnv("reach", "point"), seed=0)
    envelope = SafetyEnvelope.of(robot)
    executor = None if seer is None else ChunkExecutor(seer, 4)
    takeover = Takeover(executor, script, robot.embodiment, holding(envelope), told)
    if store is None:
        return run_loop(robot, takeover, envelope, max_steps=steps), envelope
    with (
        EpisodeStore.create(store) as opened,
        StoreRecorder(opened, robot.embodiment, {"source": "test"}) as recorder,
    ):
        return run_loop(robot, takeover, envelope, max_steps=steps, hooks=[recorder]), envelope


def facts(store: Path) -> list[tuple[object, ...]]:
    with EpisodeStore.open(store) as opened:
        return [
            (info.provenance.get("actor"), info.length, info.success, info.provenance.get("ended_by"))
            for info in opened.episodes
        ]


def test_a_takeover_drops_the_chunk_and_the_policy_goes_on_from_where_the_person_left_it(tmp_path) -> None:
    seer, said = Watched(), []
    script = Script(None, None, ASIDE, ASIDE, ASIDE)
    result, _ = ran(script, seer=seer, store=tmp_path / "s.zarr", told=said.append, steps=40)
    assert said == ["you have the arm.", "the policy has the arm."]
    assert seer.resets == 1 + 2
    assert result.success
    policy, human, after = facts(tmp_path / "s.zarr")
    assert policy == (POLICY, 2, False, "takeover")
    assert human == (HUMAN, 3, None, "handing back")
    assert after[0] == POLICY
    assert after[2] is True


def test_what_a_person_sends_passes_the_same_envelope(tmp_path) -> None:
    _, envelope = ran(Script(WILD, WILD), seer=Seer(), store=tmp_path / "s.zarr", steps=2)
    assert envelope.counts["range"] == 2
    with EpisodeStore.open(tmp_path / "s.zarr") as store:
        arm = store.embodiments["point"]
        assert (store.column(0, "executed") <= np.array(arm.action_high)).all()
        assert store.episodes[0].provenance["safety"]["range"] == 2


def test_alone_a_person_is_recorded_from_the_first_motion_on_pauses_included(tmp_path) -> None:
    ran(Script(None, None, ASIDE, None, ASIDE), seer=None, store=tmp_path / "s.zarr", steps=5)
    assert [(actor, length) for actor, length, *_ in facts(tmp_path / "s.zarr")] == [(HUMAN, 3)]
    with EpisodeStore.open(tmp_path / "s.zarr") as store:
        assert np.allclose(store.column(0, "executed")[:, 0], [0.02, 0, 0.02])


def test_a_device_that_is_lost_stops_the_arm_and_says_so() -> None:
    with pytest.raises(RobotError, match="unplugged"):
        ran(Script(ASIDE, RobotError("The gamepad was unplugged.")), seer=Seer())


def test_only_what_the_person_showed_can_be_learned_from(tmp_path) -> None:
    path = tmp_path / "s.zarr"
    ran(Script(None, ASIDE, ASIDE), seer=Seer(), store=path, steps=4)
    (source,) = open_sources([SourceConfig(path=str(path), actor="human")])
    assert [info.length for info in source.episodes] == [2]
    with pytest.raises(UnknownNameError, match="Unknown actor"):
        SourceConfig(path=str(path), actor="nobody")  # type: ignore[arg-type]
    plain = tmp_path / "plain.zarr"
    with EpisodeStore.create(plain) as opened:
        robot = SimRobot(PointEnv("reach", "point"), seed=0)
        with StoreRecorder(opened, robot.embodiment, {}) as recorder:
            run_loop(robot, Seer(), SafetyEnvelope.of(robot), max_steps=3, hooks=[recorder])
    with pytest.raises(DatasetError, match="none of actor='human'"):
        open_sources([SourceConfig(path=str(plain), actor="human", failures=True)])


def test_keys_move_the_arm_while_they_are_held_and_hand_back() -> None:
    now = [0.0]
    keys = Keys(lambda: now[0], held_s=0.2)
    keys.connect(point_embodiment())
    state: dict[str, np.ndarray] = {}
    assert keys.read(state) is None
    for key in ("w", "a", "?"):
        keys.press(key)
    assert np.allclose(keys.read(state), [0.015, 0.015, 0, -1])
    now[0] = 0.3
    assert np.allclose(keys.read(state), [0, 0, 0, -1]), "let go: it stands still, and is the person's"
    keys.press("g")
    assert np.allclose(keys.read(state), [0, 0, 0, 1])
    keys.press("p")
    assert keys.read(state) is None
    keys.press("x")
    assert keys.poll() is not None


def test_an_arm_of_joints_is_not_jogged() -> None:
    from tests.control.bench_arm import bench

    with pytest.raises(ConfigError, match="leader arm can"):
        Jog(bench())


def test_a_session_records_a_person_alone_and_needs_one_where_there_is_no_policy(
    point_suite: str, tmp_path: Path
) -> None:
    config = SessionConfig(
        robot="sim:point", suite=point_suite, policy="off", planner="", realtime=False,
        max_steps=6, record=tmp_path / "s.zarr",
    )  # fmt: skip
    script = Script(ASIDE, ASIDE)
    run_session(config, "reach the red dot", say=lambda _: None, attached=Attachments(device=script))
    assert script.closed == 1
    assert facts(tmp_path / "s.zarr")[0][:2] == (HUMAN, 6)
    with pytest.raises(ConfigError, match="Nobody would move the arm"):
        run_session(config, "reach the red dot")


def test_a_session_hands_over_between_policy_and_person(point_suite: str, tmp_path: Path) -> None:
    config = SessionConfig(
        robot="sim:point", suite=point_suite, policy="seer", planner="", realtime=False,
        record=tmp_path / "s.zarr",
    )  # fmt: skip
    attached = Attachments(device=Script(None, ASIDE))
    result = run_session(config, "reach the red dot", say=lambda _: None, attached=attached)
    assert result.loop.success
    assert [row[0] for row in facts(tmp_path / "s.zarr")] == [POLICY, HUMAN, POLICY]
