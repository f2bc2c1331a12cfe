"""A session whose operator sits before the page."""

from __future__ import annotations

from collections.abc import Callable

from vla.console.board import Board
from vla.console.lines import Lines
from vla.console.recording import RecordingSwitch
from vla.console.server import ConsoleServer
from vla.console.stopping import StopButton
from vla.conversation import AdvisingRobot, Prompt
from vla.robots import Robot
from vla.session import SessionConfig, SessionResult, run_session
from vla.session.watching import Attachments
from vla.teleop.keyboard import Keys


def serve_console(
    config: SessionConfig, *, host: str = "127.0.0.1", port: int = 0, ready: Callable[[str], None]
) -> SessionResult:
    """Serve the page until somebody quits there.

    Args:
        config: of the session; ``record`` names the store that the switch records into, and where ``teleop``
            is ``keyboard`` the page's keys move the arm.
        host, port: where the page is, see :class:`~vla.console.server.ConsoleServer`.
        ready: told the page's address, token included.

    Raises:
        VlaError: as :func:`~vla.session.run_session` and the server.
    """
    board, lines, button = Board(config.robot, config.policy), Lines(), StopButton()
    switch = RecordingSwitch() if config.record is not None else None

    def stop() -> None:
        button.press()
        lines.put("halt")

    def around(robot: Robot) -> Robot:
        board.attach(robot.embodiment)
        if isinstance(robot, AdvisingRobot):
            board.suggest(robot.sentences())
        return button.around(robot)

    record = None if switch is None else switch.switch
    keys = Keys() if config.teleop == "keyboard" else None
    pressed = None if keys is None else keys.press
    server = ConsoleServer(
        board, said=lines.put, stop=stop, record=record, pressed=pressed, host=host, port=port
    )
    recorder = switch.around if switch is not None else lambda hook: hook
    attached = Attachments(hooks=(board,), robot=around, recorder=recorder, device=keys)
    prompt = Prompt(stream=lines, say=board.say)
    server.start()
    ready(server.url)
    try:
        return run_session(config, prompt=prompt, attached=attached)
    finally:
        lines.end()
        server.close()
