"""Devices by name: what stands after ``--teleop``."""

from __future__ import annotations

from vla.errors import ConfigError, UnknownNameError
from vla.teleop import Teleoperator

#: Name -> what stands behind the colon.
DEVICES = {"keyboard": "", "gamepad": "", "leader": "PORT"}


def make_teleoperator(spec: str, calibration: str = "") -> Teleoperator:
    """``keyboard``, ``gamepad`` or ``leader:PORT`` (an SO-101 leader).

    Args:
        spec: which device.
        calibration: of the leader, a file that ``vla robot calibrate`` wrote.

    Raises:
        UnknownNameError, ConfigError: no such device, or it is not said where.
    """
    kind, _, rest = spec.partition(":")
    if kind not in DEVICES:
        raise UnknownNameError("teleoperation device", kind, DEVICES)
    if bool(rest) != bool(DEVICES[kind]):
        raise ConfigError(f"Device {spec!r}: expected {':'.join(filter(None, (kind, DEVICES[kind])))}.")
    if kind == "keyboard":
        from vla.teleop.keyboard import TerminalKeys

        return TerminalKeys()
    if kind == "gamepad":
        from vla.teleop.gamepad import Gamepad

        return Gamepad()
    if not calibration:
        raise ConfigError("A leader arm needs its calibration: --leader-calibration FILE.")
    from vla.robots.calibration import ArmCalibration
    from vla.robots.feetech import FeetechBus
    from vla.robots.so101 import so101_kinematics
    from vla.teleop.leader import Leader

    return Leader(FeetechBus(rest), ArmCalibration.load(calibration), so101_kinematics())
