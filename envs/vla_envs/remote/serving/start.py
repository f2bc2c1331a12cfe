"""Run by the benchmark's own Python: ``python -I start.py DESCRIPTOR WORLDS`` (see ``loop.serve``)."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    # behind the benchmark's own packages, so that nothing of ours can stand in for one of them
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    importlib.import_module("serving.loop").serve(int(sys.argv[1]), sys.argv[2])
