"""A plan is followed to its end, interrupted at once, and given up where a part cannot be done."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from vla.control.loop import Command
from vla.planning import PlanError, Scene
from vla.planning.follow import Follower
from vla.planning.rules import RulePlanner
from vla.session import SessionConfig, run_session

PAIR = "reach the red dot, then reach the blue dot"


class Person:
    """Says what is in the list, one a turn."""

    def __init__(self) -> None:
        self.says: list[Command] = []

    def poll(self) -> Command | None:
        return self.says.pop(0) if self.says else None

    def tell(self, message: str) -> None: ...


def tick(instruction: str, *, success: bool = False):
    observation = SimpleNamespace(instruction=instruction)
    return SimpleNamespace(observation=observation, reading=SimpleNamespace(info={"success": success}))


def follower(person: Person | None = None, patience_s: float = 1.0) -> tuple[Follower, list[str]]:
    told: list[str] = []
    made = Follower(RulePlanner(), Scene, 10.0, tell=told.append, person=person, patience_s=patience_s)
    return made, told


def test_one_sentence_follows_the_other_and_the_last_ends_it():
    plan, told = follower()
    assert plan.begin(PAIR) == "reach the red dot"
    assert told == ["2 steps:\n  1. reach the red dot\n  2. reach the blue dot"]
    plan.ticked(tick("reach the red dot"))
    assert plan.poll() is None
    plan.ticked(tick("reach the red dot", success=True))
    plan.tell("done, holding still.")
    assert len(told) == 1  # it does not hold still: more is to come
    assert plan.poll() == Command(kind="instruct", text="reach the blue dot")
    plan.ticked(tick("reach the blue dot", success=True))
    assert plan.poll() == Command(kind="quit")
    assert (plan.done, plan.left) == (["reach the red dot", "reach the blue dot"], [])


@pytest.mark.parametrize("refused", [True, False])
def test_what_is_refused_or_takes_too_long_ends_the_plan(refused: bool):
    plan, told = follower()
    plan.begin(PAIR)
    for _ in range(10):
        plan.ticked(tick("something else" if refused else "reach the red dot"))
    assert plan.poll() == Command(kind="quit")
    why = "cannot be followed here" if refused else "is not done after 1 s"
    assert told[1:] == [f"plan given up: 'reach the red dot' {why}; not tried: 'reach the blue dot'."]
    assert plan.left == ["reach the red dot", "reach the blue dot"]


def test_the_person_interrupts_at_any_time():
    person = Person()
    plan, told = follower(person)
    plan.begin(PAIR)
    person.says = [Command(kind="instruct", text="reach the green dot; reach the red dot")]
    assert plan.poll() == Command(kind="instruct", text="reach the green dot")
    assert plan.left == ["reach the green dot", "reach the red dot"]
    person.says = [Command(kind="stop")]
    assert plan.poll() == Command(kind="stop")
    for _ in range(20):
        plan.ticked(tick("reach the green dot"))
        assert plan.poll() is None
    person.says = [Command(kind="instruct", text=" . ")]
    assert plan.poll() is None
    assert "nothing to do" in told[-1]


def test_a_session_follows_a_plan_in_one_scene(point_suite: str):
    said: list[str] = []
    config = SessionConfig(robot="sim:point", suite=point_suite, policy="expert", realtime=False)
    result = run_session(config, PAIR, say=said.append)
    assert result.loop.success
    assert [line.split(": ")[1].split(" after")[0] for line in result.spoken.splitlines()] == ["done", "done"]
    assert sum("moving" in line for line in said) == 2
    with pytest.raises(PlanError):
        run_session(config, " . ", say=said.append)


def test_a_plan_that_breaks_off_is_no_success(point_suite: str):
    said: list[str] = []
    config = SessionConfig(robot="sim:point", suite=point_suite, policy="expert", realtime=False)
    result = run_session(config, "reach the red dot, then fly to the moon", say=said.append)
    assert not result.loop.success
    assert any("plan given up: 'fly to the moon' cannot be followed here" in line for line in said)
    alone = SessionConfig(robot="sim:point", suite=point_suite, policy="expert", realtime=False, planner="")
    with pytest.raises(Exception, match="then reach the blue dot"):
        run_session(alone, PAIR, say=said.append)
