"""A UR5e under ros2_control, to try the ROS 2 driver on: behind a rosbridge, or as a ROS node.

``python -m vla_envs.counterparts.ros --host 127.0.0.2`` serves it.
"""
