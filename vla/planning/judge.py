"""Who says that a sentence is done, where the robot itself cannot: a model that looks at the picture."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np

from vla.errors import ConfigError, VlaError
from vla.planning.language import Chat, make_chat
from vla.robots import Reading, Robot
from vla.robots.wrapper import RobotWrapper

_TASK = """You look at a picture of a table with a robot arm. Say whether what the arm was told is done.
Answer "yes" or "no" first, then the reason in one short sentence."""


class JudgedRobot(RobotWrapper):
    """A robot whose readings say ``success`` when a model that sees the picture says so.

    The model is asked in a thread, again and again, so that no control step waits for it; its word counts for
    the sentence that it was asked about. An answer that is neither yes nor no is none, and an endpoint that
    fails is told of once: nothing is taken for done because nobody looked.

    Args:
        robot: wrapped; closed with this one.
        chat: must take pictures.
        camera: whose picture is shown; None: the first.
        pause_s: between two questions.

    Raises:
        ConfigError: the robot has no such camera.
    """

    def __init__(self, robot: Robot, chat: Chat, *, camera: str | None = None, pause_s: float = 1.0) -> None:
        names = [item.name for item in robot.embodiment.cameras]
        if not names or (camera is not None and camera not in names):
            raise ConfigError(f"A judge needs a picture: {camera or 'a camera'!r}, here {names}.")
        super().__init__(robot)
        self._chat, self._pause_s, self._camera = chat, pause_s, camera or names[0]
        self._lock, self._asking = threading.Lock(), threading.Event()
        self._shown: tuple[str, np.ndarray] | None = None
        self._done: str | None = None
        self.error = ""
        self._thread: threading.Thread | None = None

    def connect(self) -> Reading:
        self._done = None
        self._asking.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._ask, daemon=True, name="judge")
            self._thread.start()
        return self._seen(self._robot.connect())

    def read(self) -> Reading:
        return self._seen(self._robot.read())

    def command(self, action: np.ndarray) -> Reading:
        return self._seen(self._robot.command(action))

    def set_instruction(self, text: str) -> Reading:
        with self._lock:
            self._done = None
        return self._seen(self._robot.set_instruction(text))

    def close(self) -> None:
        self._asking.clear()
        self._robot.close()

    def _seen(self, reading: Reading) -> Reading:
        seen = reading.observation
        with self._lock:
            self._shown = (seen.instruction, seen.images[self._camera])
            success = self._done is not None and self._done == seen.instruction
        return replace(reading, info={**reading.info, "success": success, "judge_error": self.error})

    def _ask(self) -> None:
        while self._asking.is_set():
            with self._lock:
                shown = self._shown
            if shown is not None and self._done != shown[0]:
                sentence, image = shown
                try:
                    reply = self._chat.answer(_TASK, f"The arm was told: {sentence!r}. Is it done?", image)
                    self.error = ""
                except VlaError as error:
                    reply, self.error = "", str(error)
                if said_yes(reply):
                    with self._lock:
                        self._done = sentence
            time.sleep(self._pause_s)


def judged(robot: Robot, spec: str) -> JudgedRobot:
    """The robot, judged by the model that ``openai:MODEL@URL`` names.

    Raises:
        ConfigError: no such model, one that sees nothing, or the robot has no camera.
    """
    if spec.startswith("local:"):
        raise ConfigError("A local language model sees no pictures: judge with openai:MODEL@URL.")
    return JudgedRobot(robot, make_chat(spec))


def said_yes(reply: str) -> bool:
    """Whether an answer begins with yes."""
    return reply.strip().lower().lstrip("\"'*").startswith("yes")
