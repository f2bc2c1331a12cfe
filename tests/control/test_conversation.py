"""A conversation: what the person is told, what is done after a change of mind, and what the film shows."""

import io
import re
from pathlib import Path

import numpy as np
import pytest

from tests.control.test_session import talk
from vla import registry
from vla.control.loop import Command
from vla.conversation import AdvisingRobot, Prompt
from vla.errors import ConfigError
from vla.report.video import CAPTION_PX, SETTLE_STEPS, caption, read_frames
from vla.robots import Reading
from vla.robots.sim import SimRobot
from vla.session import SessionConfig, run_session
from vla.types import Observation

RED, YELLOW = "pick up the red cube", "pick up the yellow cube"
SUITE = registry.suite("tabletop")


class Timed(Prompt):
    """Says the first line when asked, and the others at prepared turns of the loop."""

    def __init__(self, first: str, later: dict[int, str], told: list[str]) -> None:
        super().__init__(io.StringIO(""), told.append)
        self._first, self._later, self._turn = first, later, -1

    def wait(self) -> Command:
        command = self._command(self._first)
        assert command is not None
        return command

    def poll(self) -> Command | None:
        self._turn += 1
        return self._command(self._later[self._turn]) if self._turn in self._later else None


def captioned(frame: np.ndarray, sentences: tuple[str, ...]) -> str:
    """Which of the sentences stands below a frame of a film."""

    def strip(sentence: str) -> np.ndarray:
        seen = Observation(images={}, state={}, instruction=sentence, embodiment="panda", time_s=0.0)
        return caption(Reading(observation=seen, info={}, done=False), frame.shape[1])[:24]

    def distance(sentence: str) -> float:
        return float(np.abs(frame[-CAPTION_PX:][:24].astype(int) - strip(sentence)).mean())

    return min(sentences, key=distance)


@pytest.mark.parametrize("policy", ["expert", "learned"])
def test_a_change_of_mind_is_followed_to_its_end_and_every_step_is_filmed(
    policy: str, tmp_path: Path
) -> None:
    told: list[str] = []
    config = SessionConfig(
        robot="sim:panda", policy=policy, task="pick", video=tmp_path / "v.mp4", realtime=False
    )
    prompt = Timed(RED, {6: YELLOW, 90: "quit"}, told)
    result = run_session(config, prompt=prompt)
    assert result.instruction == YELLOW
    assert f'"{RED}": changed after 6 steps' in result.spoken
    assert f'"{YELLOW}": done after' in result.spoken
    moving = sum(map(int, re.findall(r"after (\d+) steps", result.spoken)))
    frames = read_frames(tmp_path / "v.mp4")
    assert len(frames) == 1 + moving + SETTLE_STEPS
    said = [captioned(frame, (RED, YELLOW)) for frame in frames]
    assert said == [RED] * 7 + [YELLOW] * (len(frames) - 7)
    assert [line for line in told if line.startswith(("moving", "done"))] == [
        f'moving: "{RED}"', f'moving: "{YELLOW}"', "done, holding still.",
    ]  # fmt: skip


def test_the_ready_line_says_arm_scene_things_sentences_and_the_way_out() -> None:
    told: list[str] = []
    config = SessionConfig(robot="sim:panda", task="pick", realtime=False)
    result = run_session(config, prompt=Timed("quit", {}, told))
    (ready,) = [line for line in told if line.startswith("READY")]
    for words in (
        "panda",
        "pick scene 0",
        "policy expert",
        "red cube, ",
        RED,
        "reset TASK",
        "drawer",
        "quit",
    ):
        assert words in ready
    assert str(result) == "Nothing was said, nothing moved."


@pytest.mark.parametrize("task", SUITE.tasks)
def test_every_sentence_that_is_offered_can_be_followed(task: str) -> None:
    env = SUITE.make(task, "panda", render=False)
    env.reset(seed=0)
    sentences = env.sentences()  # type: ignore[attr-defined]
    assert len(sentences) == len(set(sentences)) >= 2
    goals = []
    for sentence in sentences:
        env.set_instruction(sentence)  # type: ignore[attr-defined]
        goals.append(env.goal)  # type: ignore[attr-defined]
    assert len(set(goals)) == len(sentences)
    env.close()


@pytest.mark.parametrize("sentence", ["open the red drawer", "bake a cake"])
def test_a_refusal_lists_what_can_be_said_here_and_how_to_get_elsewhere(sentence: str) -> None:
    inner = SimRobot(SUITE.make("pick", "panda", render=False), seed=0)
    robot = AdvisingRobot(inner, SUITE.tasks)
    robot.connect()
    with pytest.raises(ConfigError) as refused:
        robot.set_instruction(sentence)
    text = str(refused.value)
    assert text.count(RED) == text.count(YELLOW) == 1
    assert "'reset TASK'" in text
    assert "drawer" in text
    inner.close()


def test_reset_task_lays_a_scene_of_it_and_waits(point_suite: str) -> None:
    result, said = talk("reach the red dot", "reset reach", "reach the blue dot")
    assert (result.instruction, result.seed) == ("reach the blue dot", 1)
    assert sum(line.startswith("READY") for line in said) == 2


def test_a_task_that_is_none_changes_nothing_and_names_the_right_one(point_suite: str) -> None:
    result, said = talk("reach the red dot", "reset reech")
    assert result.seed == 0
    assert any("Did you mean 'reach'" in line for line in said)


def test_a_first_sentence_that_the_scene_cannot_do_gets_another_scene() -> None:
    told: list[str] = []
    config = SessionConfig(robot="sim:panda", task="pick", realtime=False)
    result = run_session(config, prompt=Timed("open the red drawer", {60: "quit"}, told))
    assert "looking for one that can" in "\n".join(told)
    assert '"open the red drawer": done' in result.spoken
