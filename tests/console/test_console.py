"""The console: nobody without its token gets in, the stop button stops whatever the loop does, and a person
at a real browser can do everything with the keyboard."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.console.browser import CHROMIUM, browser
from tests.eval.fake_suite import PointSuite
from vla.console.board import Board
from vla.console.lines import Lines
from vla.console.server import ConsoleServer
from vla.console.serving import serve_console
from vla.console.stopping import StopButton
from vla.data.store import EpisodeStore
from vla.errors import ConfigError, EnvError
from vla.robots import Reading
from vla.robots.named import ArmSettings
from vla.robots.sim import SimRobot
from vla.session import HardwareConfig, SessionConfig, SessionResult

LIMIT_S = 60.0


def until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LIMIT_S
    while not (value := what()):
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.02)
    return value


@dataclass
class Served:
    """A console that runs in a thread."""

    url: str
    thread: threading.Thread
    results: list[SessionResult | BaseException]

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.url).query)["token"][0]

    def socket(self, **more: Any) -> ClientConnection:
        netloc = urlsplit(self.url).netloc
        return connect(f"ws://{netloc}/ws?token={self.token}", proxy=None, **more)

    def end(self) -> SessionResult:
        self.thread.join(LIMIT_S)
        assert not self.thread.is_alive()
        result = self.results[0]
        assert isinstance(result, SessionResult), result
        return result


def served(config: SessionConfig) -> Served:
    urls: list[str] = []
    results: list[SessionResult | BaseException] = []

    def run() -> None:
        try:
            results.append(serve_console(config, ready=urls.append))
        except BaseException as error:  # noqa: BLE001  # told by the test that waits
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: urls or results)
    assert urls, results
    return Served(urls[0], thread, results)


class Page:
    """What a page does, without a browser: keeps the last snapshot and all messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.now, self.messages, self.pictures = (
            socket,
            dict[str, Any](),
            list[str](),
            set[int](),
        )

    def say(self, text: str) -> None:
        self.socket.send(json.dumps({"say": text}))

    def until(self, what: Callable[[], Any]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not (self.now and what()):
            assert time.monotonic() < deadline, (self.now, self.messages)
            data = self.socket.recv(timeout=LIMIT_S)
            if isinstance(data, bytes):
                assert data[1:3] == b"\xff\xd8"
                self.pictures.add(data[0])
            else:
                self.now = json.loads(data)
                self.messages += [text for _, text in self.now["messages"]]


@pytest.fixture
def config(point_suite: str, tmp_path: Path) -> SessionConfig:
    return SessionConfig(
        robot="sim:point", suite=point_suite, policy="expert", realtime=False, record=tmp_path / "said.zarr"
    )


def test_what_is_said_is_done_shown_and_recorded(config: SessionConfig) -> None:
    console = served(config)
    with console.socket() as socket:
        page = Page(socket)
        page.until(lambda: any("READY" in text for text in page.messages) and page.pictures)
        socket.send(json.dumps({"record": True}))
        page.until(lambda: page.now["recording"])
        page.say("reach the red dot")
        page.until(lambda: any("done, holding still" in text for text in page.messages))
        assert page.now["sentence"] == "reach the red dot"
        assert page.now["success"]
        assert page.now["steps"] > 0
        assert len(page.now["state_names"]) >= 1
        socket.send(json.dumps({"record": False}))
        page.until(lambda: not page.now["recording"])
        page.say("reach the blue dot")
        page.until(lambda: sum("done, holding still" in text for text in page.messages) == 2)
        page.say("quit")
        assert "reach the blue dot" in console.end().spoken
    assert config.record is not None
    with EpisodeStore.open(config.record) as store:
        assert [info.instruction for info in store.episodes] == ["reach the red dot"]


def test_stopped_is_stopped_until_reset(config: SessionConfig) -> None:
    console = served(config)
    with console.socket() as socket:
        page = Page(socket)
        page.until(lambda: any("READY" in text for text in page.messages))
        page.say("reach the red dot")
        page.until(lambda: any("done" in text for text in page.messages))
        url = f"http://{urlsplit(console.url).netloc}/stop?token={console.token}"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=LIMIT_S) as answer:
            assert json.load(answer) == {"stopped": True}
        page.until(lambda: any("halted: the operator stopped it" in text for text in page.messages))
        page.say("reach the blue dot")
        page.until(lambda: any("stopped: say reset first" in text for text in page.messages))
        assert page.now["sentence"] == "reach the red dot"
        page.say("reset")
        page.until(lambda: sum("scene" in text for text in page.messages) >= 2)
        page.say("quit")
        console.end()


def test_nobody_without_the_token_or_from_another_page_gets_in(config: SessionConfig) -> None:
    console = served(config)
    netloc = urlsplit(console.url).netloc
    for token, origin in (("", None), ("wrong", None), (console.token, "http://evil.example")):
        with pytest.raises(ConnectionClosed), connect(
            f"ws://{netloc}/ws?token={token}", proxy=None, origin=origin
        ) as socket:  # fmt: skip
            socket.recv(timeout=LIMIT_S)
    for query in ("", "?token=wrong"):
        request = urllib.request.Request(f"http://{netloc}/stop{query}", method="POST")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=LIMIT_S)
    with console.socket() as socket:
        page = Page(socket)
        for nonsense in (
            "{",
            "[]",
            '{"say": 3}',
            '{"say": ""}',
            '{"stop": 1}',
            json.dumps({"say": "x" * 501}),
        ):
            socket.send(nonsense)
        page.until(lambda: sum("not understood" in text for text in page.messages) == 6)
        page.say("quit")
    console.end()


def test_only_loopback_is_served() -> None:
    nothing = {"said": print, "stop": print}
    with pytest.raises(ConfigError, match="loopback only"):
        ConsoleServer(Board("r", "p"), host="0.0.0.0", **nothing)
    server = ConsoleServer(Board("r", "p"), **nothing)
    with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{server.port}"):
        ConsoleServer(Board("r", "p"), port=server.port, **nothing)
    server.close()


def test_a_pressed_button_lets_no_command_through() -> None:
    suite, button = PointSuite(), StopButton()
    button.press()  # nothing is there to move
    robot = button.around(SimRobot(suite.make(suite.tasks[0], suite.embodiments[0]), seed=0))
    robot.connect()
    still = np.zeros(robot.embodiment.action_dim, np.float32)
    before = robot.command(still)
    button.press()
    assert robot.command(still + 0.01).observation.time_s == before.observation.time_s
    with pytest.raises(EnvError, match="stopped"):
        robot._robot.command(still)
    assert robot.connect().observation.time_s == 0.0
    assert robot.command(still).observation.time_s > 0.0
    robot.close()


def test_a_driver_that_hangs_in_a_command_is_stopped_all_the_same() -> None:
    class Hanging(SimRobot):
        def __init__(self) -> None:
            super().__init__(PointSuite().make("reach", "point"), seed=0)
            self.commanded, self.stopped, self.over = (threading.Event() for _ in range(3))

        def command(self, action: np.ndarray) -> Reading:
            self.commanded.set()
            self.over.wait(LIMIT_S)
            return super().read()

        def stop(self) -> None:
            self.stopped.set()

    robot, button = Hanging(), StopButton()
    around = button.around(robot)
    around.connect()
    thread = threading.Thread(target=around.command, args=(np.zeros(4, np.float32),), daemon=True)
    thread.start()
    robot.commanded.wait(LIMIT_S)
    button.press()
    assert robot.stopped.is_set()
    assert not robot.over.is_set(), "the command is still under way"
    robot.over.set()
    thread.join(LIMIT_S)


def test_lines_come_until_they_end() -> None:
    lines = Lines()
    lines.put("  reach   the dot ")
    lines.end()
    assert list(lines) == ["reach the dot\n"]
    assert not lines.isatty()


@pytest.fixture
def tabletop(tmp_path: Path) -> Iterator[Served]:
    console = served(
        SessionConfig(
            robot="sim:panda", policy="expert", task="pick", realtime=True, record=tmp_path / "s.zarr"
        )
    )
    yield console
    console.thread.join(LIMIT_S)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_person_at_the_keyboard_can_do_everything(tabletop: Served, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as page:
        page.open(tabletop.url)
        page.until("document.querySelectorAll('#cameras img').length === 2")
        page.until("[...document.querySelectorAll('#cameras img')].every((i) => i.naturalWidth === 64)")
        page.until("document.querySelectorAll('#known option').length === 0 || true")
        page.until("document.activeElement.id === 'line'")
        said = page.evaluate(
            "[...document.querySelectorAll('#log li')].map((li) => li.textContent).join('\\n')"
        )
        sentence = next(line.split("say:")[1].strip() for line in said.splitlines() if "say:" in line)
        page.type(sentence)
        page.press("Enter")
        page.until("document.getElementById('status').textContent === 'moving'")
        page.until("document.getElementById('sentence').classList.contains('done')")
        assert page.text("#sentence") == sentence
        page.press("ArrowUp")
        assert page.evaluate("document.getElementById('line').value") == sentence
        page.until("document.querySelectorAll('#known option').length > 0")
        page.evaluate("document.getElementById('record').focus()")
        page.press("/")
        assert page.evaluate("document.activeElement.id") == "line"
        page.press("Escape")
        page.until("document.getElementById('log').textContent.includes('halted')")
        page.until("document.getElementById('status').textContent === 'stopped'")
        page.screenshot(tmp_path / "console.png")
        assert (tmp_path / "console.png").stat().st_size > 10_000
        page.click("[data-say=reset]")
        page.until("[...document.querySelectorAll('#log li')].at(-1).textContent.includes('moving')")
        page.press("p", alt=True)
        page.until("document.getElementById('status').textContent === 'holding'")
        assert page.evaluate("document.getElementById('move').disabled"), "no --teleop, no keys"
        page.evaluate("document.getElementById('line').value = ''")
        page.evaluate("document.getElementById('line').focus()")
        page.type("quit")
        page.press("Enter")
        tabletop.end()


def test_keys_of_the_page_move_the_arm_and_hand_it_back(config: SessionConfig) -> None:
    console = served(replace(config, policy="zero", teleop="keyboard", realtime=True))
    with console.socket() as socket:
        page = Page(socket)
        page.until(lambda: any("READY" in text for text in page.messages))
        assert page.now["can_move"]
        page.say("reach the red dot")
        page.until(lambda: page.now["steps"] > 2)
        began = page.now["samples"][-1][1]
        for _ in range(10):
            socket.send(json.dumps({"key": "s"}))
        page.until(lambda: any("you have the arm" in text for text in page.messages))
        page.until(lambda: page.now["samples"] and page.now["samples"][-1][1] != began)
        socket.send(json.dumps({"key": "p"}))
        page.until(lambda: any("the policy has the arm" in text for text in page.messages))
        page.say("quit")
        console.end()


def test_an_arm_that_is_no_simulation_asks_on_the_page_before_it_moves(
    point_suite: str, tmp_path: Path
) -> None:
    arm = ArmSettings(host=str(tmp_path / "log"))
    console = served(
        SessionConfig(
            robot="tests.robots.hardware:point", policy="seer", planner="", hardware=HardwareConfig(arm=arm)
        )
    )
    with console.socket() as socket:
        page = Page(socket)
        page.until(lambda: any("Say 'go'" in text for text in page.messages))
        assert any("you  the emergency stop" in text for text in page.messages)
        page.say("go")
        page.until(lambda: any("READY" in text for text in page.messages))
        page.say("reach the red dot")
        page.until(lambda: page.now["steps"] > 3)
        page.say("quit")
        assert console.end().loop.steps > 3
