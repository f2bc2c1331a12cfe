"""lerobot finds this distribution by its name and imports it: then ``--robot.type=vla`` is known."""

from lerobot_robot_vla.robot import VlaRobot, VlaRobotConfig

__all__ = ["VlaRobot", "VlaRobotConfig"]
