"""The side that runs in the benchmark's own Python: imports numpy, msgpack and the benchmark only."""
