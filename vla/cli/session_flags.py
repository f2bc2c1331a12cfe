"""The flags of every verb that speaks to an arm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vla.cli.flags import policy_spec
from vla.errors import ConfigError

if TYPE_CHECKING:
    from vla.session import SessionConfig

#: Seconds of a dry run.
DRY_RUN_S = 10.0


@dataclass(frozen=True, kw_only=True)
class SessionFlags:
    """Which arm, which policy, and how.

    Args:
        robot: a simulated arm (sim:panda), or a kind of real one: ur5e, fr3, so101, ros2,
            replay, or module:function.
        policy: default (shipped), a directory that vla train wrote, expert, random, zero, NAME:PATH, or off:
            you alone move the arm (--teleop).
        head: which of the policy's action heads decides; its default if not given.
        suite: registered suite that a simulated arm lives in.
        seed: where the search for a scene that fits the sentence starts, in simulation.
        task: scene that a conversation opens with; the suite's first if not given.
        execution: what the arm does while the policy thinks, in real time: hold still (sync), execute the
            last chunk on (async), average all chunks (ensemble), have it continued by the next (rtc).
        planner: takes apart what is said: rules (at "then", "before", full stops ...), openai:MODEL@URL,
            local:FOLDER, or off. Rules in simulation and off for a real arm if not given.
        judge: openai:MODEL@URL, a model that sees the picture and says when a sentence is done.
        record: episode store that what is done is added to (made if missing).
        teleop: take over from the policy and hand back: keyboard, gamepad, or leader:PORT (an SO-101).
        leader_calibration: file that vla robot calibrate wrote for the leader.
        host: address of a real arm's controller.
        port: serial port of a real arm.
        calibration: file that vla robot calibrate wrote for it.
        arm_file: of a real arm: what describes it (ros2), or a recorded episode in its place (replay):
            STORE#NUMBER.
        cameras: of a real arm: NAME=NUMBER, path or URL, e.g. front=0 wrist=2.
        embodiment: which of the policy's arms a real one is; the one of its kind's name if not given.
        speed: of a real arm, as a share of the policy's own; 0.25 if not given.
        dry_run: connect to a real arm, look and think, and send nothing: shows what would be sent.
        yes: do not ask before a real arm's first motion. You stand beside it and have looked.
        seconds: that one sentence may take with a real arm when nobody is there to say stop; 60 if not
            given, 10 for a dry run.
    """

    robot: str = "sim:panda"
    policy: str = "default"
    head: str | None = None
    suite: str = "tabletop"
    seed: int = 0
    task: str = ""
    execution: Literal["sync", "async", "ensemble", "rtc"] = "sync"
    planner: str | None = None
    judge: str = ""
    record: Path | None = None
    teleop: str = ""
    leader_calibration: Path | None = None
    host: str = ""
    port: str = ""
    calibration: Path | None = None
    arm_file: str = ""
    cameras: tuple[str, ...] = ()
    embodiment: str = ""
    speed: float | None = None
    dry_run: bool = False
    yes: bool = False
    seconds: float | None = None

    def session(self, **more: Any) -> SessionConfig:
        """What they say, with ``more`` of the configuration."""
        from vla.session import SessionConfig

        simulated = self.robot.startswith("sim:")
        planner = self.planner or ("rules" if simulated else "off")
        return SessionConfig(
            robot=self.robot,
            policy=policy_spec(self.policy, self.head),
            suite=self.suite,
            seed=self.seed,
            task=self.task,
            execution=self.execution,
            planner="" if planner == "off" else planner,
            judge=self.judge,
            record=self.record,
            teleop=self.teleop,
            leader_calibration="" if self.leader_calibration is None else str(self.leader_calibration),
            hardware=self._hardware(simulated),
            **more,
        )

    def _hardware(self, simulated: bool) -> Any:
        names = (
            "host",
            "port",
            "calibration",
            "arm_file",
            "cameras",
            "embodiment",
            "speed",
            "dry_run",
            "yes",
            "seconds",
        )
        said = [name for name in names if getattr(self, name)]
        if simulated:
            if said:
                flags = ", ".join(f"--{name.replace('_', '-')}" for name in said)
                raise ConfigError(f"{self.robot} is a simulation: {flags} would be a real arm's.")
            return None
        from vla.robots.named import ArmSettings, camera_sources
        from vla.session.config import DEFAULT_SPEED, HardwareConfig

        arm = ArmSettings(
            host=self.host,
            port=self.port,
            calibration="" if self.calibration is None else str(self.calibration.absolute()),
            arm_file=str(Path(self.arm_file).absolute()) if self.arm_file else "",
            cameras=camera_sources(self.cameras),
            speed=DEFAULT_SPEED if self.speed is None else self.speed,
        )
        return HardwareConfig(
            arm=arm,
            embodiment=self.embodiment,
            dry_run=self.dry_run,
            confirmed=self.yes,
            seconds=self.seconds or (DRY_RUN_S if self.dry_run else HardwareConfig.seconds),
        )
