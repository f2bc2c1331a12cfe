"""TFRecord files and the ``tf.train.Example`` messages in them, without TensorFlow.

A record (tensorflow/core/lib/io/record_writer.h)::

    uint64 length | uint32 masked crc32c of length | byte data[length] | uint32 masked crc32c of data
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vla.data.shards import crc32c
from vla.errors import DatasetError

HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h
_FETCH_AGAIN = "Fetch the file again, or skip what is damaged (vla data import --skip-damaged)."

#: Values of one feature: bytes, float32 or int64.
Values = list[memoryview] | np.ndarray


def masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecord: crc32c rotated and shifted, so that it can be stored beside data."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class Record:
    """Where a record lies: number in its file, place of its header and size of its data (bytes)."""

    path: Path
    number: int
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.path}, record {self.number} (byte {self.offset})"


def scan_records(path: Path) -> Iterator[Record]:
    """Where the records of a file lie; reads headers only.

    Raises:
        DatasetError: a header does not fit its checksum, or the file ends within a record.
    """
    end, offset, number = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while offset < end:
            file.seek(offset)
            header = file.read(HEADER.size)
            record = Record(path=path, number=number, offset=offset, size=0)
            if len(header) < HEADER.size:
                raise DatasetError(f"{record}: the file ends within a header. {_FETCH_AGAIN}")
            size, crc = HEADER.unpack(header)
            if masked_crc32c(header[:8]) != crc:
                raise DatasetError(
                    f"{record}: the length does not fit its checksum; nothing after it can be found. "
                    f"{_FETCH_AGAIN}"
                )
            following = offset + HEADER.size + size + FOOTER.size
            if following > end:
                raise DatasetError(
                    f"{record}: the file ends after {end} bytes, the record at {following}: it is truncated. "
                    f"{_FETCH_AGAIN}"
                )
            yield Record(path=path, number=number, offset=offset, size=size)
            offset, number = following, number + 1


def read_record(file: BinaryIO, record: Record) -> bytes:
    """The data of a record; raises :class:`DatasetError` where they do not fit their checksum."""
    file.seek(record.offset + HEADER.size)
    data, footer = file.read(record.size), file.read(FOOTER.size)
    if len(data) < record.size or footer != FOOTER.pack(masked_crc32c(data)):
        raise DatasetError(f"{record}: the data do not fit their checksum. {_FETCH_AGAIN}")
    return data


def parse_example(data: bytes) -> dict[str, Values]:
    """A ``tf.train.Example`` -> feature name -> its values (tensorflow/core/example/feature.proto).

    Raises:
        ValueError: bytes that are no such message.
    """
    features: dict[str, Values] = {}
    for number, message in _fields(memoryview(data)):
        if number != 1 or isinstance(message, int):
            continue
        for _, entry in _fields(message):  # map<string, Feature>: one message an entry
            pair = dict(_fields(_message(entry)))
            kinds = list(_fields(_message(pair[2]))) if 2 in pair else []
            features[bytes(_message(pair[1])).decode()] = _values(kinds)
    return features


def _values(kinds: list[tuple[int, memoryview | int]]) -> Values:
    if not kinds:
        return []
    kind, message = kinds[-1]
    items = [item for _, item in _fields(_message(message))]
    if kind == 1:
        return [_message(item) for item in items]
    if kind == 2:  # packed, or each value on its own (4 bytes)
        return np.frombuffer(b"".join(_message(item) for item in items), "<f4")
    if kind == 3:
        numbers: list[int] = []
        for item in items:
            numbers += [item] if isinstance(item, int) else _varints(item)
        return np.array(numbers, np.uint64).view(np.int64)
    raise ValueError(f"a feature of kind {kind}")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of each field of a protobuf message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, at = _varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(message):
            raise ValueError("a field ends past its message")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a number that does not end")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _varints(message: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(message):
        number, at = _varint(message, at)
        numbers.append(number)
    return numbers


def _message(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message was expected")
    return value
