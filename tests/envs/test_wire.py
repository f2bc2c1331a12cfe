"""Messages between a client and a benchmark: what is sent arrives, and anything else is refused."""

from __future__ import annotations

import socket
import struct
import threading

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vla.testing import assert_same
from vla_envs.remote.serving import wire

DTYPES = st.sampled_from([np.dtype(n) for n in ("bool", "u1", "i4", "i8", "f4", "f8")])


def passed_on(message: dict) -> dict:
    here, there = socket.socketpair()
    with here, there:
        thread = threading.Thread(target=wire.send, args=(here, message))
        thread.start()
        try:
            return wire.receive(there)
        finally:
            thread.join()


@given(DTYPES.flatmap(lambda d: arrays.arrays(d, arrays.array_shapes(min_dims=0, min_side=0, max_side=5))))
def test_arrays_arrive_as_they_were_sent(array: np.ndarray) -> None:
    got = passed_on({"images": {"front": array}, "more": [1, 2.5, None, "words", True]})
    assert_same(got["images"], {"front": array}, "array")
    assert got["images"]["front"].dtype == array.dtype
    assert got["more"] == [1, 2.5, None, "words", True]


def test_an_array_that_arrived_can_be_written_to() -> None:
    got = passed_on({"a": np.zeros((600, 600, 3), np.uint8)})["a"]
    got[0] = 1
    assert got.sum() == 1800


@pytest.mark.parametrize("value", [object(), np.array(["text"]), np.array([object()]), np.zeros(2, complex)])
def test_nothing_but_numbers_and_texts_is_sent(value: object) -> None:
    here, there = socket.socketpair()
    with here, there, pytest.raises(TypeError):
        wire.send(here, {"value": value})


def _array_of(dtype: str, shape: list[int], body: bytes) -> bytes:
    head = msgpack.packb([dtype, shape])
    return msgpack.packb({"a": msgpack.ExtType(1, struct.pack(">H", len(head)) + head + body)})


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        msgpack.packb([1, 2]),
        msgpack.packb({"a": msgpack.ExtType(2, b"abc")}),
        _array_of("|O", [1], b"12345678"),
        _array_of("<f4", [3], b"1234"),
        _array_of("<f4", [-1, -1], b"1234"),
    ],
    ids=["no msgpack", "no map", "unknown extension", "objects", "too short", "negative shape"],
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(struct.pack(">I", len(body)) + body)
        with pytest.raises(wire.WireError):
            wire.receive(there)


def test_a_message_that_would_fill_memory_is_not_read() -> None:
    here, there = socket.socketpair()
    with here, there:
        here.sendall(struct.pack(">I", wire.MAX_BYTES + 1))
        with pytest.raises(wire.WireError, match="announced"):
            wire.receive(there)


def test_a_side_that_leaves_in_the_middle_is_noticed() -> None:
    here, there = socket.socketpair()
    with there:
        here.sendall(struct.pack(">I", 100) + b"half")
        here.close()
        with pytest.raises(EOFError):
            wire.receive(there)
