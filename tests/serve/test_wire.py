"""Encoding and decoding are inverse, in the bytes of the real clients too; nothing else is let in."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from vla.errors import WireError
from vla.serve.wire import DTYPES, MAX_CONTAINERS, pack, unpack
from vla.testing import assert_same

arrays = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda dtype: st_numpy.arrays(np.dtype(dtype), st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0))
)
leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | arrays
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(values, st.sampled_from(["bytes", "text"]))
def test_what_is_packed_is_unpacked(value, keys):
    def same(left, right):
        if isinstance(left, dict):
            assert left.keys() == right.keys()
            for key in left:
                same(left[key], right[key])
        elif isinstance(left, list):
            assert len(left) == len(right)
            for a, b in zip(left, right, strict=True):
                same(a, b)
        elif isinstance(left, np.ndarray):
            assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
        else:
            assert repr(left) == repr(right)  # NaN too

    assert isinstance(pack(value, keys), bytes)
    if not (isinstance(value, dict) and {"__ndarray__", "__npgeneric__"} & set(value)):
        same(value, unpack(pack(value, keys)))


def test_numpy_numbers_keep_their_type():
    back = unpack(pack({"x": np.float32(0.1), "n": np.uint8(7), "yes": np.bool_(True)}))
    assert_same({k: (type(v), v.item()) for k, v in back.items()}, {
        "x": (np.float32, np.float32(0.1).item()), "n": (np.uint8, 7), "yes": (np.bool_, True)
    }, "numbers")  # fmt: skip


def array(**changes):
    return {"__ndarray__": True, "data": bytes(12), "dtype": "<f4", "shape": [3], **changes}


HOSTILE = {
    "nothing": b"",
    "text that is not UTF-8": b"\xa2\xff\xfe",
    "cut off": pack({"a": np.zeros(9)})[:-1],
    "more behind": pack({}) + b"\x00",
    "a list that says it is endless": b"\xdd\xff\xff\xff\xff",
    "bytes that say they are endless": b"\xc6\xff\xff\xff\xff",
    "deep nesting": b"\x91" * 100_000 + b"\xc0",
    "deep maps": b"\x81\xa1a" * 100_000 + b"\xc0",
    "very many lists": b"\xdc\x04\x00" + b"\x90" * 1024,
    "an extension type": msgpack.packb(msgpack.ExtType(1, b"cos\nsystem")),
    "a time stamp": msgpack.packb(msgpack.Timestamp(1)),
    "a number for a key": msgpack.packb({1: 2}),
    "bytes for a key": msgpack.packb({b"prompt": "x"}),
    "the same key twice": b"\x82\xa1a\x01\xa1a\x02",
    "objects": msgpack.packb(array(dtype="|O", shape=[1], data=bytes(8))),
    "void": msgpack.packb(array(dtype="|V12", shape=[1])),
    "complex": msgpack.packb(array(dtype="<c8", shape=[1], data=bytes(8))),
    "big-endian": msgpack.packb(array(dtype=">f4")),
    "a dtype that is code": msgpack.packb(array(dtype="f4,(2,3)f8")),
    "a dtype that is a list": msgpack.packb(array(dtype=[["a", "<f4"]])),
    "a negative size": msgpack.packb(array(shape=[-1])),
    "sizes beyond the data": msgpack.packb(array(shape=[2**30, 2**30])),
    "sizes that multiply to more than 64 bits": msgpack.packb(array(shape=[2**30] * 5)),
    "a true size": msgpack.packb(array(shape=[True, 3])),
    "too many axes": msgpack.packb(array(shape=[3, 1, 1, 1, 1, 1])),
    "text for data": msgpack.packb(array(data="x" * 12)),
    "no data": msgpack.packb({"__ndarray__": True, "dtype": "<f4", "shape": [3]}),
    "a further key": msgpack.packb(array(more=1)),
    "a number that no uint8 can be": msgpack.packb({"__npgeneric__": True, "data": 300, "dtype": "|u1"}),
    "a text for a number": msgpack.packb({"__npgeneric__": True, "data": "3", "dtype": "|u1"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_message_may_hold_is_refused(name: str):
    with pytest.raises(WireError):
        unpack(HOSTILE[name])


def test_few_bytes_cannot_become_much_memory():
    with pytest.raises(WireError, match=f"more than {MAX_CONTAINERS}"):
        unpack(pack([[[]] * 500] * 500))


def test_objects_are_not_packed():
    for value in (np.array([object()]), object(), np.zeros(2, complex), {"a": {1, 2}}):
        with pytest.raises(WireError):
            pack(value)
