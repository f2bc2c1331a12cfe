"""Following a plan: an operator of the loop who says the next sentence when the last one is done."""

from __future__ import annotations

from collections.abc import Callable

from vla.control.loop import Command, Operator, Tick
from vla.planning import PlanError, Planner, Scene
from vla.robots import Reading
from vla.text import counted

#: Seconds that a sentence may take before the plan is given up.
PATIENCE_S = 30.0


class Follower:
    """Operator and hook in one: give it to ``run_loop`` as both.

    A sentence is done when the robot says so (``info["success"]``); the next one follows, and after the last
    the loop ends, or the person has the word again. What the person says in between counts at once: a
    sentence is planned anew in place of what is left, ``stop`` holds until the next one. A sentence that the
    robot refuses, or that is not done in time, ends a plan of several: the rest was meant for another table.

    Args:
        planner: takes apart what is said.
        scene: what is on the table at that moment.
        control_hz: of the arm.
        tell: says something to the person.
        person: who may interrupt; None: nobody.
        patience_s: of one sentence.

    Attributes:
        done, left: of the last plan, sentences that succeeded, and those that were not done or not tried.
    """

    def __init__(
        self,
        planner: Planner,
        scene: Callable[[], Scene],
        control_hz: float,
        *,
        tell: Callable[[str], None],
        person: Operator | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._planner, self._scene, self._tell, self._person = planner, scene, tell, person
        self._patience = round(patience_s * control_hz)
        self._patience_s = patience_s
        self.done: list[str] = []
        self.left: list[str] = []
        self._current, self._steps, self._due = "", 0, False

    def begin(self, text: str) -> str:
        """Plan, and return the first sentence, which the caller puts in force.

        Raises:
            PlanError: there is nothing to follow in the text.
        """
        steps = self._planner.plan(text, self._scene())
        if len(steps) > 1:
            listing = "".join(f"\n  {i}. {step}" for i, step in enumerate(steps, 1))
            self._tell(f"{counted(len(steps), 'step')}:{listing}")
        self.done, self.left = [], list(steps)
        return self._next()

    def poll(self) -> Command | None:
        command = None if self._person is None else self._person.poll()
        if command is not None and command.kind == "instruct":
            try:
                return Command(kind="instruct", text=self.begin(command.text))
            except PlanError as error:
                self._tell(str(error))
                return None
        if command is not None:
            if command.kind != "leave":  # then what was begun is brought to its end
                self._current, self.left, self._due = "", [], False
            return command
        if self._due:
            return Command(kind="instruct", text=self._next())
        return Command(kind="quit") if self._person is None and not self._current else None

    def tell(self, message: str) -> None:
        """What the loop says to the person; not that the arm holds still while more is to come."""
        if not self._due:
            self._tell(message)

    def started(self, reading: Reading) -> None:
        """The first sentence is in force, or nothing is."""

    def ticked(self, tick: Tick) -> None:
        if not self._current:
            return
        self._steps += 1
        if tick.observation.instruction != self._current:
            self._give_up(f"{self._current!r} cannot be followed here")
        elif tick.reading.info.get("success", False):
            self.done.append(self.left.pop(0))
            self._current, self._due = "", bool(self.left)
        elif self._steps >= self._patience:
            self._give_up(f"{self._current!r} is not done after {self._patience_s:g} s")

    def _next(self) -> str:
        self._current, self._steps, self._due = self.left[0], 0, False
        return self._current

    def _give_up(self, why: str) -> None:
        if len(self.done) + len(self.left) == 1 and self._person is not None:
            return  # one sentence is the person's to give up
        later = f"; not tried: {', '.join(map(repr, self.left[1:]))}" if self.left[1:] else ""
        self._tell(f"plan given up: {why}{later}.")
        self._current = ""
