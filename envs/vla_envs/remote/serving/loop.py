"""The server: hosts worlds of one benchmark for one client, one request after the other, until it leaves."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np

from . import wire

_WATCH_S = 1.0


class World(Protocol):
    """One task of a benchmark. What ``reset`` and ``step`` return is called *seen*:

    ``{"state": {field: float32 [n]}, "instruction": str, "success": bool, "reward": float,
    "terminated": bool, "truncated": bool}``, and ``"aux"``: labels for training, float32 by name
    (``vla.interfaces.AUX_KEYS``), where the benchmark has any. The same seed, options and actions must give
    the same, bit for bit, whatever was drawn on the way.
    """

    #: What clients should know of it; part of its fingerprint.
    facts: Mapping[str, Any]

    def reset(self, seed: int, options: Mapping[str, Any]) -> dict[str, Any]: ...

    def step(self, action: np.ndarray) -> dict[str, Any]: ...

    def images(self) -> dict[str, np.ndarray]:
        """uint8 [h w 3] RGB, top row first, by camera."""
        ...

    def frame(self, size: int) -> np.ndarray:
        """uint8 [h w 3], for people; the client brings it to the size asked for."""
        ...

    def expert(self) -> np.ndarray | None:
        """What the benchmark's scripted policy does now; None where it has none."""
        ...

    def close(self) -> None: ...


class Worlds(Protocol):
    """A module that hosts a benchmark."""

    #: Distributions whose versions decide what happens.
    PACKAGES: tuple[str, ...]

    def open_world(self, **settings: Any) -> World: ...


class Hosted:
    """A world with what was done to it, so that any moment of an episode can be gone back to by replaying."""

    def __init__(self, world: World, render: bool) -> None:
        self.world, self._render = world, render
        self._origin: tuple[int, dict[str, Any]] | None = None
        self._actions: list[np.ndarray] = []
        self._seen: dict[str, Any] = {}

    def reset(self, seed: int, options: Mapping[str, Any], look: bool) -> dict[str, Any]:
        self._origin = None
        self._seen = self.world.reset(seed, options)
        self._origin, self._actions = (seed, dict(options)), []
        return self._shown(look)

    def step(self, action: np.ndarray, look: bool) -> dict[str, Any]:
        self._step(action)
        return self._shown(look)

    def look(self) -> dict[str, np.ndarray]:
        """The pictures of the present moment."""
        return self.world.images()

    def replay(
        self, seed: int, options: Mapping[str, Any], actions: np.ndarray, look: bool
    ) -> dict[str, Any]:
        """To where these actions lead from the reset; goes on from here if that lies on the way."""
        before = self._actions
        on_the_way = (
            self._origin == (seed, dict(options))
            and len(before) <= len(actions)
            and all(np.array_equal(a, b) for a, b in zip(before, actions, strict=False))
        )
        if not on_the_way:
            self._origin = None
            self._seen = self.world.reset(seed, options)
            self._origin, self._actions = (seed, dict(options)), []
        for action in actions[len(self._actions) :]:
            self._step(action)
        return self._shown(look)

    def _step(self, action: np.ndarray) -> None:
        origin, self._origin = self._origin, None  # a step that fails leaves a state nobody knows
        if origin is None:
            raise RuntimeError("step before reset, or after a step that failed: reset first")
        self._seen = self.world.step(action)
        self._actions.append(np.array(action))
        self._origin = origin

    def _shown(self, look: bool) -> dict[str, Any]:
        return {**self._seen, "images": self.world.images() if self._render and look else {}}


class Server:
    """Carries out requests; see the methods that do not begin with an underscore."""

    def __init__(self, worlds: Worlds) -> None:
        self._worlds, self._hosted, self._next = worlds, dict[int, Hosted](), 0

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request; whatever goes wrong becomes an error with its traceback."""
        calls: dict[str, Callable[..., Any]] = {
            "open": self.open,
            "reset": lambda world, **given: self._hosted[world].reset(**given),
            "step": lambda world, **given: self._hosted[world].step(**given),
            "replay": lambda world, **given: self._hosted[world].replay(**given),
            "look": lambda world: self._hosted[world].look(),
            "expert": lambda world: self._hosted[world].world.expert(),
            "frame": lambda world, size: self._hosted[world].world.frame(size),
            "close": self.close,
        }
        try:
            return {"value": calls[request["call"]](**request["arguments"])}
        except Exception as error:  # noqa: BLE001  # process edge: the client raises it
            return {"error": _told(error)}

    def open(self, settings: Mapping[str, Any], render: bool) -> dict[str, Any]:
        """Build a world; its number and facts."""
        world = self._worlds.open_world(**settings)
        self._next += 1
        self._hosted[self._next] = Hosted(world, render)
        return {"world": self._next, "facts": dict(world.facts)}

    def close(self, world: int) -> None:
        self._hosted.pop(world).world.close()


def serve(descriptor: int, worlds: str) -> None:
    """Serve over an inherited socket until the client leaves.

    Args:
        descriptor: of the socket.
        worlds: module that hosts the benchmark, ``serving.metaworld_worlds``, or a Python file.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the client decides
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    with socket.socket(fileno=descriptor) as connection:
        try:
            server = _introduce(connection, worlds)
            while server is not None:
                wire.send(connection, server.answer(wire.receive(connection)))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass  # the client has gone, and so do we
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # drawing libraries are not all able to leave in order, and there is nothing left to save


def _introduce(connection: socket.socket, worlds: str) -> Server | None:
    """Agree on the protocol before anything is imported; None where the benchmark cannot be served."""
    asked = wire.receive(connection)
    if asked.get("protocol") != wire.PROTOCOL:
        wire.send(connection, {"value": {"protocol": wire.PROTOCOL}})
        return None
    try:
        module: Any = load_module(worlds)
        answer = {"protocol": wire.PROTOCOL, "python": sys.version.split()[0], "versions": _versions(module)}
    except Exception as error:  # noqa: BLE001  # process edge: the client raises it
        wire.send(connection, {"error": _told(error)})
        return None
    wire.send(connection, {"value": answer})
    return Server(module)


def load_module(name: str) -> Any:
    """A module by its dotted name, or from a Python file; a file is run once."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    known = f"file:{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, name)
        if spec is None or spec.loader is None:
            raise ImportError(f"{name} is no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[known] = module
    return sys.modules[known]


def _versions(module: Any) -> dict[str, str]:
    found = {}
    for name in module.PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _told(error: Exception) -> dict[str, str]:
    return {"kind": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}


def _watch(parent: int) -> None:
    """A world that never comes back would outlive its client: leave when the parent has."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)
