"""Benchmarks that nobody here wrote, each in a Python of its own, behind the environment interface.

``serving`` runs there (numpy, msgpack and the benchmark are all it imports); everything else runs here.
"""
