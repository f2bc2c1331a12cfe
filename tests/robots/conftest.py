from collections.abc import Iterator

import pytest

from tests.eval.plugin import point_suite
from vla_envs.counterparts.process import ServoCounterpart

__all__ = ["point_suite"]


@pytest.fixture(scope="module", params=["feetech", "dynamixel"])
def scene(request: pytest.FixtureRequest) -> Iterator[ServoCounterpart]:
    """A bus of each kind, whose time passes only while a driver sleeps."""
    with ServoCounterpart(request.param, clock="stepped") as counterpart:
        yield counterpart


@pytest.fixture(scope="module")
def feetech() -> Iterator[ServoCounterpart]:
    with ServoCounterpart("feetech", clock="stepped") as counterpart:
        yield counterpart


@pytest.fixture(scope="module")
def dynamixel() -> Iterator[ServoCounterpart]:
    with ServoCounterpart("dynamixel", clock="stepped") as counterpart:
        yield counterpart
