"""The process of a counterpart: a servo bus on a pseudo-terminal, and a side channel that controls it.

usage: python -m vla_envs.counterparts.serving SETTINGS_JSON     (started by ``process.ServoCounterpart``)

The port is a link in a folder of its own, so that it keeps its name when the bus is unplugged and plugged in
again. Time is the wall clock's, or stands still between ``advance`` calls (``clock: stepped``): then what
happens depends on nothing but the bytes and the seed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
import tty
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vla.errors import UnknownNameError, VlaError
from vla_envs.counterparts.dynamixel import DynamixelBus
from vla_envs.counterparts.faults import Faults
from vla_envs.counterparts.feetech import FeetechBus
from vla_envs.counterparts.mounting import mountings
from vla_envs.counterparts.plants import FirstOrderPlant, Plant, TabletopPlant
from vla_envs.remote.serving import wire
from vla_envs.tabletop.arms import so101

BUSES = {"feetech": FeetechBus, "dynamixel": DynamixelBus}
#: A packet that stops for this long is given up.
INTER_BYTE_S = 0.05
#: Physics is caught up with at least this often, and never by more than this at once.
TICK_S, MAX_CATCH_UP_S = 0.004, 0.1
#: Bytes written before an ``advance`` was asked for arrive within this time (the terminal is asynchronous).
IN_FLIGHT_S = 0.001


class Bus(Protocol):
    """What the loop asks of a bus, whichever protocol it speaks."""

    faults: Faults

    def receive(self, data: bytes) -> bytes: ...

    def forget(self) -> None: ...

    def tick(self, time_s: float) -> None: ...

    def refresh(self) -> None: ...

    def hold_here(self) -> None: ...

    def power_up(self) -> None: ...

    def calibrate_truly(self) -> None: ...

    def truth(self) -> list[dict[str, int]]: ...


def make_plant(settings: dict[str, Any]) -> Plant:
    """First-order servos with the ranges of the SO-101, or the SO-101 of a tabletop task."""
    if settings["task"]:
        return TabletopPlant(settings["task"], settings["image_size"])
    arm = so101.build()
    spec_joints = {joint.name: joint for joint in arm.spec.joints}
    names = (*arm.joint_names, arm.gripper_joint)
    low, high = np.array([spec_joints[name].range for name in names]).T
    return FirstOrderPlant(names, low, high)


class Port:
    """The bus's end of a pseudo-terminal behind a name that stays."""

    def __init__(self, link: Path) -> None:
        self._link = link
        self._ends: tuple[int, int] | None = None
        self.plug()

    @property
    def ends(self) -> list[int]:
        """What to wait on; nothing while unplugged."""
        return [] if self._ends is None else [self._ends[0]]

    def plug(self) -> None:
        if self._ends is not None:
            return
        ours, theirs = os.openpty()
        tty.setraw(theirs)
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(os.ttyname(theirs))
        self._ends = ours, theirs  # theirs stays open: a client may come and go

    def unplug(self) -> None:
        """As a pulled cable: the client's next read or write fails."""
        if self._ends is not None:
            for end in self._ends:
                os.close(end)
            self._link.unlink(missing_ok=True)
            self._ends = None

    def read(self) -> bytes:
        assert self._ends is not None
        return os.read(self._ends[0], 4096)

    def write(self, data: bytes) -> None:
        assert self._ends is not None
        os.write(self._ends[0], data)


class Counterpart:
    """Bus, plant, port and side channel in one thread.

    Args:
        settings: see ``process.ServoCounterpart``.
        control: the side channel.
    """

    def __init__(self, settings: dict[str, Any], control: socket.socket) -> None:
        self.plant = make_plant(settings)
        self.bus: Bus = BUSES[settings["protocol"]](self.plant, mountings(len(self.plant.names)), Faults())
        if settings["calibrated"]:
            self.bus.calibrate_truly()
        if settings["task"]:
            self.bus.hold_here()
        self._stepped = settings["clock"] == "stepped"
        self._image_size = settings["image_size"]
        self._control = control
        self._port = Port(Path(settings["port"]))
        self._heard_s = self._now_s = time.monotonic()
        self._frozen: dict[str, np.ndarray] = {}
        self._dark: set[str] = set()
        self._num_pictures = 0

    def serve(self) -> None:
        """Until the side channel ends."""
        wire.send(self._control, {"joints": list(self.plant.names)})
        while True:
            ready, _, _ = select.select([*self._port.ends, self._control], [], [], TICK_S)
            self._catch_up()
            self._answer_bus(0.0)
            if self._control in ready:
                try:
                    request = wire.receive(self._control)
                except (EOFError, ConnectionError):
                    return
                wire.send(self._control, self._obey(request))

    def _answer_bus(self, patience_s: float) -> None:
        """Everything that waits on the wire, and what comes within ``patience_s`` of it."""
        while self._port.ends and select.select(self._port.ends, [], [], patience_s)[0]:
            now = time.monotonic()
            if now - self._heard_s > INTER_BYTE_S:
                self.bus.forget()
            self._heard_s = now
            answer = self.bus.receive(self._port.read())
            if answer:
                self._port.write(answer)

    def _catch_up(self) -> None:
        now = time.monotonic()
        passed, self._now_s = now - self._now_s, now
        if not self._stepped:
            self._advance(min(passed, MAX_CATCH_UP_S))

    def _advance(self, seconds: float) -> None:
        self.plant.advance(seconds)
        self.bus.tick(self.plant.time_s)

    def _obey(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"value": self._call(request["call"], request["arguments"])}
        except VlaError as error:
            return {"error": str(error)}

    def _call(self, name: str, given: dict[str, Any]) -> Any:
        calls = {
            "advance": self._advance_when_told, "fault": self._fault, "clear": self._clear,
            "camera": self._camera_fault, "picture": self._picture, "state": self._state,
            "reset": self._reset, "outcome": self._outcome, "plug": self._plug,
            "power_cycle": self._power_cycle, "push": self._push,
        }  # fmt: skip
        if name not in calls:
            raise UnknownNameError("call of a servo counterpart", name, calls)
        return calls[name](**given)

    def _advance_when_told(self, seconds: float) -> float:
        self._answer_bus(IN_FLIGHT_S)
        self._advance(seconds)
        return self.plant.time_s

    def _fault(self, kind: str, servo: int, count: int) -> None:
        self.bus.faults.inject(kind, servo, count)
        self.bus.refresh()

    def _clear(self) -> None:
        self.bus.faults.clear()
        self._frozen.clear()
        self._dark.clear()
        self._port.plug()
        self.bus.refresh()

    def _plug(self, plugged: bool) -> None:
        if plugged:
            self._port.plug()
        else:
            self._port.unplug()

    def _power_cycle(self) -> None:
        self.bus.power_up()

    def _push(self, angles: list[float]) -> None:
        """Somebody puts the (limp) arm into another pose."""
        for index, angle in enumerate(angles):
            self.plant.drive(index, float(angle), 1.0)
        self.plant.advance(2.0)
        for index in range(len(angles)):
            self.plant.drive(index, None, 0.0)

    def _camera_fault(self, camera: str, kind: str) -> None:
        if kind == "frozen":
            self._frozen[camera] = self._picture(camera)["picture"]
        elif kind == "lost":
            self._dark.add(camera)
        else:
            raise UnknownNameError("fault of a camera", kind, ("frozen", "lost"))

    def _picture(self, camera: str) -> dict[str, Any]:
        """A picture and the time of the plant; ``lost`` cameras have none."""
        if camera in self._dark:
            return {"picture": None, "time_s": self.plant.time_s}
        if camera in self._frozen:
            return {"picture": self._frozen[camera], "time_s": self.plant.time_s}
        return {"picture": self._fresh_picture(camera), "time_s": self.plant.time_s}

    def _fresh_picture(self, camera: str) -> np.ndarray:
        self._num_pictures += 1
        if isinstance(self.plant, TabletopPlant):
            picture = self.plant.picture(camera)
        else:  # no scene: a test card whose left edge shows the joints, so that it changes with them
            size = self._image_size
            picture = np.full((size, size, 3), 60, np.uint8)
            shares = (self.plant.angles - self.plant.low) / (self.plant.high - self.plant.low)
            for i, share in enumerate(shares):
                picture[:, i] = np.uint8(255 * np.clip(share, 0, 1))
        noisy = picture.copy()  # no two frames of a real sensor are equal
        noisy[-1, -1, 2] = self._num_pictures % 256
        return noisy

    def _state(self) -> dict[str, Any]:
        return {"angles": self.plant.angles, "time_s": self.plant.time_s, "servos": self.bus.truth()}

    def _reset(self, seed: int, options: dict[str, Any]) -> dict[str, Any]:
        told = self._tabletop().reset(seed, options)
        self.bus.hold_here()
        return told

    def _outcome(self) -> dict[str, Any]:
        return self._tabletop().outcome()

    def _tabletop(self) -> TabletopPlant:
        if not isinstance(self.plant, TabletopPlant):
            raise UnknownNameError("plant with a task", "first order", ("task=place",))
        return self.plant


def main() -> int:
    settings = json.loads(sys.argv[1])
    with contextlib.suppress(PermissionError):  # servos answer in microseconds, however busy the host is
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    with socket.socket(fileno=settings["control"]) as control:
        Counterpart(settings, control).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
