"""The dashboard server: one line of text in, one line out, as a PolyScope 5 answers.

Source: Universal Robots, "Dashboard Server e-Series, port 29999".
"""

from __future__ import annotations

from collections.abc import Callable

from vla_envs.counterparts.ur.controller import PLAYING, Controller

GREETING = "Connected: Universal Robots Dashboard Server\n"
_PROGRAM = "default.urp"
#: Refused in local control, where the pendant decides.
_REMOTE_ONLY = (
    "play", "stop", "pause", "power on", "power off", "brake release", "unlock protective stop",
    "restart safety", "load",
)  # fmt: skip


class Dashboard:
    """Answers the commands of one controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        c = controller
        self._answers: dict[str, Callable[[], str]] = {
            "robotmode": lambda: f"Robotmode: {c.robot_mode}",
            "safetymode": lambda: f"Safetymode: {c.safety_mode}",
            "safetystatus": lambda: f"Safetystatus: {c.safety_mode}",
            "running": lambda: f"Program running: {str(c.runtime == PLAYING).lower()}",
            "programstate": lambda: f"{'PLAYING' if c.runtime == PLAYING else 'STOPPED'} {_PROGRAM}",
            "is in remote control": lambda: str(c.remote).lower(),
            "polyscopeversion": lambda: "URSoftware {}.{}.{}.{} (Oct 12 2022)".format(*c.version),
            "get robot model": lambda: "UR5",
            "get serial number": lambda: "20000000000",
            "get loaded program": lambda: f"Loaded program: {_PROGRAM}",
            "isprogramsaved": lambda: f"true {_PROGRAM}",
            "power on": lambda: "Powering on" if c.power_on() else "Failed to execute: power on",
            "power off": self._power_off,
            "brake release": self._brake_release,
            "unlock protective stop": self._unlock,
            "play": lambda: "Failed to execute: play",  # no program but the uploaded script is interpreted
            "pause": lambda: "Failed to execute: pause",
            "stop": self._stop,
            "close popup": lambda: "closing popup",
            "close safety popup": lambda: "closing safety popup",
            "restart safety": self._restart_safety,
            "quit": lambda: "Disconnected",
        }

    def answer(self, line: str) -> str:
        """The line sent back, without its line feed."""
        command = line.strip()
        key = command.lower()
        self._controller.say(f"dashboard: {command}")
        if key.startswith("addtolog"):
            return "Added log message"
        if key.startswith("popup"):
            return "showing popup"
        if not self._controller.remote and key.startswith(_REMOTE_ONLY):
            return f"Failed to execute: {command} (not in remote control)"
        if key not in self._answers:
            return f"could not understand: '{command}'"
        return self._answers[key]()

    def _power_off(self) -> str:
        self._controller.power_off()
        return "Powering off"

    def _brake_release(self) -> str:
        done = self._controller.release_brakes()
        return "Brake releasing" if done else "Failed to execute: brake release"

    def _unlock(self) -> str:
        if self._controller.unlock():
            return "Protective stop releasing"
        return (
            "Cannot unlock protective stop until 5s after occurrence. Always inspect cause of protective "
            "stop before unlocking"
        )

    def _stop(self) -> str:
        running = self._controller.runtime == PLAYING
        self._controller.end_program("dashboard")
        return "Stopped" if running else "Failed to execute: stop"

    def _restart_safety(self) -> str:
        self._controller.reboot()
        return "Restarting safety"
