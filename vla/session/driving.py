"""Who moves the arm in a session: a policy, a person, or both in turn."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from vla.control.chunks import ChunkExecutor, holding
from vla.control.loop import Operator
from vla.control.safety import SafetyEnvelope
from vla.errors import ConfigError
from vla.interfaces import Policy
from vla.session.watching import Attachments
from vla.teleop import Takeover, Teleoperator
from vla.teleop.keyboard import Keys
from vla.teleop.named import make_teleoperator

if TYPE_CHECKING:
    from vla.session.config import SessionConfig

#: In place of a policy: the person alone.
OFF = "off"


def device_of(config: SessionConfig, attached: Attachments, *, prompt: bool) -> Teleoperator | None:
    """What the person moves the arm with, if anything.

    Raises:
        ConfigError: neither a policy nor a device, or a keyboard that sentences are typed on.
    """
    if attached.device is not None:
        return attached.device
    if not config.teleop:
        if config.policy == OFF:
            raise ConfigError("Nobody would move the arm: give a policy, or --teleop.")
        return None
    if config.teleop == "keyboard" and prompt:
        raise ConfigError(
            "The keyboard cannot both move the arm and take sentences: say the sentence with the command, or "
            "use the console, a gamepad or a leader arm."
        )
    return make_teleoperator(config.teleop, config.leader_calibration)


@contextlib.contextmanager
def driven(
    device: Teleoperator | None,
    executor: ChunkExecutor | None,
    envelope: SafetyEnvelope,
    say: Callable[[str], None],
) -> Iterator[Policy]:
    """What decides in the loop: the executor, a person (no executor), or the two in turn."""
    if device is None:
        assert executor is not None, "device_of() sees to it"
        yield executor
        return
    takeover = Takeover(executor, device, envelope.embodiment, holding(envelope), say)
    try:
        yield takeover
    finally:
        takeover.close()


def operator_of(device: Teleoperator | None, operator: Operator | None) -> Operator | None:
    """The person: who types sentences, else whose keys move the arm (``x`` ends it)."""
    return device if operator is None and isinstance(device, Keys) else operator
