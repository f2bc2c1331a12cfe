"""A Franka FR3: franka-sim with its motion limits and reflexes, and the tabletop's Panda that mirrors it.

franka-sim speaks the Franka Control Interface and is pinned to another NumPy and MuJoCo: it runs in an
environment of its own (``scripts/setup_counterpart``). What is honest to conclude from it is in
``docs/robots/franka.md``.
"""
