"""What every test starts from: one thread a process, a headless renderer, no network."""

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A shell that runs the tests in the background ignores Ctrl-C for them; processes they start must not.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _variable, _value in (
    ("OMP_NUM_THREADS", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("LP_NUM_THREADS", "0"),
    ("HF_HUB_OFFLINE", "1"),
    ("TRANSFORMERS_OFFLINE", "1"),
    ("TRITON_INTERPRET", "1"),  # kernels run on the CPU; must be known before Triton is imported
):
    os.environ.setdefault(_variable, _value)
settings.register_profile("patient", deadline=None)  # a busy machine is not a failure
settings.load_profile("patient")


#: Their robots, counterparts and browsers are processes that keep real time.
REALTIME = ("robots", "console")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(Path(__file__).parent).parts[0] in REALTIME:
            item.add_marker("realtime")


@pytest.fixture(autouse=True)
def _plain_floats():
    """Training flushes subnormal numbers to zero; undo that, since Hypothesis must be able to make them."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
