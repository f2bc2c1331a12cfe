"""The controller's TCP ports on one address, served without threads between its cycles."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from vla_envs.counterparts.ur import rtde
from vla_envs.counterparts.ur.controller import Controller
from vla_envs.counterparts.ur.dashboard import GREETING, Dashboard
from vla_envs.counterparts.ur.gripper import GripperServer

RTDE_PORT, DASHBOARD_PORT, GRIPPER_PORT = 30004, 29999, 63352
SCRIPT_PORTS = (30001, 30002, 30003)
_CYCLE_HZ = 500.0
_MAX_LINE, _MAX_SCRIPT = 4096, 1 << 20


@dataclass(eq=False)
class Client:
    """One connection: what came in and is not yet used, and what its RTDE side has negotiated."""

    connection: socket.socket
    port: int
    buffer: bytearray = field(default_factory=bytearray)
    protocol: int = 1
    outputs: rtde.Recipe | None = None
    every: int = 1
    inputs: dict[int, rtde.Recipe] = field(default_factory=dict)
    started: bool = False
    unsent: bytearray = field(default_factory=bytearray)


class Sockets:
    """All listening ports of one controller.

    Attributes:
        mute: no RTDE data goes out (packets lost on the way).
        deaf: what RTDE clients send is thrown away.

    Raises:
        OSError: a port of that address is taken.
    """

    def __init__(self, controller: Controller, host: str) -> None:
        self._controller, self._host = controller, host
        self._dashboard, self._gripper = Dashboard(controller), GripperServer(controller)
        self._selector = selectors.DefaultSelector()
        self._clients: list[Client] = []
        self._listeners: list[socket.socket] = []
        self._taken: dict[str, Client] = {}
        self.mute = self.deaf = False
        self.open()

    def open(self) -> None:
        """Listen on every port, unless it does."""
        if self._listeners:
            return
        for port in (RTDE_PORT, DASHBOARD_PORT, GRIPPER_PORT, *SCRIPT_PORTS):
            listener = socket.create_server((self._host, port), backlog=8)
            listener.setblocking(False)
            self._listeners.append(listener)
            self._selector.register(listener, selectors.EVENT_READ, port)

    def refuse(self) -> None:
        """Stop listening and drop everybody, as a controller that is off or booting."""
        for listener in self._listeners:
            self._selector.unregister(listener)
            listener.close()
        self._listeners.clear()
        self.drop(None)

    def drop(self, port: int | None) -> None:
        """Cut the connections of one port, or all."""
        for client in [c for c in self._clients if port in (None, c.port)]:
            self._close(client)

    def serve(self, timeout_s: float) -> None:
        """Take what came in within ``timeout_s``, and answer it."""
        for key, _ in self._selector.select(max(0.0, timeout_s)):
            if isinstance(key.data, Client):
                self._read(key.data)
            else:
                self._accept(key.fileobj, key.data)  # type: ignore[arg-type]

    def publish(self, cycle: int) -> None:
        """Send the RTDE data that is due."""
        if self.mute:
            return
        for client in list(self._clients):
            if client.started and client.outputs is not None and cycle % client.every == 0:
                self._send(client, client.outputs.pack(self._controller.outputs()))

    def close(self) -> None:
        self.refuse()
        self._selector.close()

    # --- connections

    def _accept(self, listener: socket.socket, port: int) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = listener.accept()
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = Client(connection, port)
            self._clients.append(client)
            self._selector.register(connection, selectors.EVENT_READ, client)
            if port == DASHBOARD_PORT:
                self._send(client, GREETING.encode())

    def _close(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client.connection)
            client.connection.close()
            self._taken = {name: owner for name, owner in self._taken.items() if owner is not client}

    def _send(self, client: Client, data: bytes) -> None:
        client.unsent += data
        try:
            sent = client.connection.send(client.unsent)
            del client.unsent[:sent]
        except BlockingIOError:
            if len(client.unsent) > _MAX_SCRIPT:  # nobody reads on the other side
                self._close(client)
        except OSError:
            self._close(client)

    def _read(self, client: Client) -> None:
        try:
            data = client.connection.recv(1 << 16)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            if client.port in SCRIPT_PORTS and client.buffer:
                self._controller.start_script(client.buffer.decode("latin1"))
            return self._close(client)
        client.buffer += data
        if client.port == RTDE_PORT:
            return self._take_packets(client)
        if client.port in SCRIPT_PORTS:
            return self._take_script(client)
        return self._take_lines(client)

    def _take_lines(self, client: Client) -> None:
        answer: Callable[[str], str] = (
            self._dashboard.answer if client.port == DASHBOARD_PORT else self._gripper.answer
        )
        while b"\n" in client.buffer:
            line, _, rest = bytes(client.buffer).partition(b"\n")
            client.buffer[:] = rest
            self._send(client, (answer(line.decode("latin1")) + "\n").encode())
        if len(client.buffer) > _MAX_LINE:
            self._close(client)

    def _take_script(self, client: Client) -> None:
        """A script is over with a line ``end`` that is not indented."""
        text = client.buffer.decode("latin1")
        if "\nend\n" in text or text.endswith("\nend"):
            client.buffer.clear()
            self._controller.start_script(text)
        elif len(text) > _MAX_SCRIPT:
            self._close(client)

    # --- RTDE

    def _take_packets(self, client: Client) -> None:
        try:
            while (taken := rtde.take_packet(client.buffer)) is not None:
                self._answer(client, *taken)
        except (ValueError, struct.error) as error:
            self._controller.say(f"RTDE connection closed: {error}")
            self._close(client)

    def _answer(self, client: Client, kind: bytes, payload: bytes) -> None:
        if kind == rtde.PROTOCOL_VERSION:
            asked = int.from_bytes(payload, "big")
            client.protocol = asked if asked in (1, 2) else client.protocol
            self._send(client, rtde.packet(kind, bytes([asked in (1, 2)])))
        elif kind == rtde.CONTROLLER_VERSION:
            self._send(client, rtde.packet(kind, struct.pack(">4I", *self._controller.version)))
        elif kind == rtde.SETUP_OUTPUTS:
            self._send(client, rtde.packet(kind, self._setup_outputs(client, payload)))
        elif kind == rtde.SETUP_INPUTS:
            self._send(client, rtde.packet(kind, self._setup_inputs(client, payload)))
        elif kind in (rtde.START, rtde.PAUSE):
            accepted = kind == rtde.PAUSE or client.outputs is not None or bool(client.inputs)
            client.started = accepted and kind == rtde.START
            self._send(client, rtde.packet(kind, bytes([accepted])))
        elif kind == rtde.DATA:
            self._take_inputs(client, payload)
        elif kind != rtde.TEXT:
            raise ValueError(f"unknown RTDE packet type {kind!r}")

    def _setup_outputs(self, client: Client, payload: bytes) -> bytes:
        frequency = _CYCLE_HZ
        if client.protocol == 2:
            (frequency,) = struct.unpack(">d", payload[:8])
            payload = payload[8:]
        if not 1.0 <= frequency <= _CYCLE_HZ:
            raise ValueError(f"an output frequency of {frequency} Hz; expected 1..500")
        recipe = rtde.Recipe(1, _names(payload), rtde.OUTPUT_TYPES)
        missing = [n for n, kind in zip(recipe.names, recipe.types, strict=True) if kind == "NOT_FOUND"]
        if missing:
            self._controller.say(f"RTDE outputs not found: {missing}")
        client.every = round(_CYCLE_HZ / frequency)
        client.outputs = recipe if recipe.valid else None
        number = bytes([recipe.number if recipe.valid else 0]) if client.protocol == 2 else b""
        return number + ",".join(recipe.types).encode()

    def _setup_inputs(self, client: Client, payload: bytes) -> bytes:
        recipe = rtde.Recipe(len(client.inputs) + 1, _names(payload), rtde.INPUT_TYPES)
        taken = [self._taken.get(name, client) is not client for name in recipe.names]
        recipe.types = ["IN_USE" if used else kind for used, kind in zip(taken, recipe.types, strict=True)]
        accepted = recipe.valid and not any(taken)
        if accepted:
            client.inputs[recipe.number] = recipe
            self._taken.update(dict.fromkeys(recipe.names, client))
        return bytes([recipe.number if accepted else 0]) + ",".join(recipe.types).encode()

    def _take_inputs(self, client: Client, payload: bytes) -> None:
        if self.deaf:
            return
        recipe = client.inputs.get(payload[0]) if payload else None
        if recipe is None:
            raise ValueError("data for a recipe that was not set up")
        self._controller.take_inputs(recipe.unpack(payload[1:]))


def _names(payload: bytes) -> list[str]:
    """Variable names; ur-rtde ends its list with a comma, which controllers let pass."""
    return payload.decode("ascii").removesuffix(",").split(",")
