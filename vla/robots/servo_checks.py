"""What can be checked of an arm of servos: they are there, are those of the calibration, and are well."""

from __future__ import annotations

from collections.abc import Mapping

from vla.robots.calibration import ArmCalibration, CalibrationError
from vla.robots.servo_bus import ServoBus, ServoError, ServoState

#: What to do about an alert.
REMEDIES = {
    "voltage": "check the supply (too weak, or the wrong one for these servos)",
    "sensor": "the encoder failed: switch the arm off and on; if it stays, replace the servo",
    "overheat": "let it cool down, then recover()",
    "current": "take away what blocks it, then recover()",
    "shock": "switch the arm off and look at its wiring",
    "overload": "take away what blocks it, then recover()",
}


class ServoChecks:
    """Checks that raise a :class:`~vla.robots.servo_bus.ServoError` or
    :class:`~vla.robots.calibration.CalibrationError` naming servo, cause and cure.

    Args:
        bus: of the servos.
        calibration: of the arm.
        title: what to call the arm.
    """

    def __init__(self, bus: ServoBus, calibration: ArmCalibration, title: str) -> None:
        self._bus, self._calibration, self._title = bus, calibration, title

    def models(self) -> None:
        """All answer, and are what the calibration was made with."""
        silent = []
        for servo in self._calibration:
            try:
                number = self._bus.ping(servo.servo)
            except ServoError as error:
                if error.cause != "silent":
                    raise
                silent.append(servo)
                continue
            found = self._bus.models.get(number, f"unknown model {number}")
            if found != servo.model:
                raise ServoError(
                    f"Servo {servo.servo} ({servo.name}) is a {found}; the calibration was made with a "
                    f"{servo.model}. Is this the right arm?",
                    servos=(servo.servo,),
                    cause="model",
                )
        if silent:
            listing = ", ".join(f"{servo.servo} ({servo.name})" for servo in silent)
            hint = (
                "check the arm's supply"
                if len(silent) == len(self._calibration.servos)
                else "check their plugs"
            )
            raise ServoError(
                f"{self._title}: no answer from servo {listing}: {hint}, then connect() again.",
                servos=[servo.servo for servo in silent],
                cause="silent",
            )

    def memories(self) -> None:
        """They remember this calibration."""
        memories = {servo: self._bus.read_memory(servo) for servo in self._calibration.servos}
        if differences := self._calibration.contradictions(memories):
            raise CalibrationError(
                f"{self._title} is not the arm of this calibration, or it was calibrated again since:"
                + "".join(f"\n  - {line}" for line in differences)
                + "\nUse the file made last ('vla robot calibrate' makes a new one). Nothing was moved."
            )

    def alerts(self, states: Mapping[int, ServoState]) -> None:
        """A servo that complains raises, with what to do."""
        for servo in self._calibration:
            alerts = states[servo.servo].alerts
            if alerts:
                raise ServoError(
                    f"Servo {servo.servo} ({servo.name}) reports {' and '.join(alerts)} at "
                    f"{states[servo.servo].voltage_v:.1f} V and {states[servo.servo].temperature_c:.0f} "
                    f"degrees: {REMEDIES[alerts[0]]}, then connect() again.",
                    servos=(servo.servo,),
                    cause=alerts[0],
                )

    def health(self, states: Mapping[int, ServoState], *, released: bool) -> None:
        """Of an arm that is meant to hold: no alerts, and unless it was ``released`` no servo gone limp."""
        self.alerts(states)
        limp = [servo for servo in self._calibration if not states[servo.servo].holding]
        if limp and not released:
            listing = ", ".join(f"{servo.servo} ({servo.name})" for servo in limp)
            raise ServoError(
                f"Servo {listing} went limp though nobody switched it off: its supply was interrupted. "
                f"Support the arm, check plugs and supply, then connect() again.",
                servos=[servo.servo for servo in limp],
                cause="limp",
            )
