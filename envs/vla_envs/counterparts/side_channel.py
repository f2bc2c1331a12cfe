"""The line beside a robot's own protocol, for whoever tests: scenes, pictures, faults, the verdict.

Length-prefixed msgpack (``vla_envs.remote.serving.wire``): ``{"call", "arguments"}`` is answered with
``{"value"}`` or ``{"error"}``.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from vla.errors import VlaError
from vla_envs.counterparts.table import TabletopPlant
from vla_envs.remote.serving import wire

CONTROL_PORT = 30020


class SideChannel:
    """Answers calls in threads of their own; pictures are painted in one thread (OpenGL).

    Args:
        host, port: address to bind.
        plant: whose scene and cameras are meant.
        lock: held by whoever steps the plant.
        calls: what there is besides ``outcome`` and ``frame``, by name.

    Attributes:
        frozen: cameras deliver their last picture over and over.
    """

    def __init__(
        self,
        host: str,
        port: int,
        plant: TabletopPlant,
        lock: threading.Lock,
        calls: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._plant, self._lock = plant, lock
        self._calls = {"pid": os.getpid, "outcome": self._outcome, "frame": self._capture, **calls}
        self._painter = ThreadPoolExecutor(max_workers=1)
        self._frames: dict[str, tuple[np.ndarray, float]] = {}
        self.frozen = False
        self._listener = socket.create_server((host, port), backlog=8)
        threading.Thread(target=self._accept, daemon=True).start()

    def in_painter(self, put_up: Callable[[], Any]) -> Any:
        """Change the scene in the thread that owns the renderer, and paint it: the first time takes long."""

        def change() -> Any:
            with self._lock:
                told = put_up()
            for camera in self._plant.env.embodiment.cameras:
                self._paint(camera.name)
            return told

        return self._painter.submit(change).result()

    def close(self) -> None:
        """Answer nobody any more."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection:
            while True:
                try:
                    wire.send(connection, self._respond(wire.receive(connection)))
                except (EOFError, OSError, wire.WireError):
                    return

    def _respond(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        call = self._calls.get(str(asked.get("call")))
        if call is None:
            return {"error": f"no call {asked.get('call')!r}; there are {sorted(self._calls)}"}
        try:
            return {"value": call(**asked.get("arguments", {}))}
        except (VlaError, TypeError) as error:
            return {"error": str(error)}

    def _outcome(self) -> dict[str, Any]:
        with self._lock:
            return {"success": self._plant.success, "wrong": self._plant.wrong}

    def _capture(self, camera: str) -> dict[str, Any]:
        if not (self.frozen and camera in self._frames):
            self._frames[camera] = self._painter.submit(self._paint, camera).result()
        image, taken = self._frames[camera]
        return {"image": image, "age_s": time.monotonic() - taken}

    def _paint(self, camera: str) -> tuple[np.ndarray, float]:
        with self._lock:
            data, taken = self._plant.snapshot(), time.monotonic()
        return self._plant.render(data, camera), taken
