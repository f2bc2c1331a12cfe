"""A Universal Robots controller: RTDE, script, dashboard and gripper sockets before a simulated UR5e.

What it does and what it leaves out is in ``docs/robots/ur.md``. Run it with ``python -m
vla_envs.counterparts.ur``.
"""
