"""A policy over the network: server, client, and the bytes between them.

``client``, ``messages`` and ``wire`` need numpy, msgpack and websockets alone: no torch where the robot is.
"""
