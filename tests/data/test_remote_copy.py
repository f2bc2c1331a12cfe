"""Foreign formats at a URL: fetched once, announced, within limits, renewed where they changed."""

from __future__ import annotations

import logging
import shutil
from collections import namedtuple

import fsspec
import pytest

from vla.data import remote_copy
from vla.data.remote_copy import _state, local_copy
from vla.errors import ConfigError, DatasetError, StoreError
from vla.files import write_json


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_CACHE", str(tmp_path))
    monkeypatch.delenv("VLA_FETCH_GB", raising=False)


@pytest.fixture
def five_bytes():
    """A data set of two files at a URL."""
    system = fsspec.filesystem("memory")
    for name, content in (("meta/info.json", b"{}"), ("data/0.bin", b"345")):
        system.pipe_file(f"/sized/set/{name}", content)
    yield "memory://sized/set"
    system.rm("/sized", recursive=True)


def test_the_size_is_said_before_anything_is_fetched_and_only_then(five_bytes, caplog, monkeypatch):
    said = []
    fetch = remote_copy._fetch
    monkeypatch.setattr(remote_copy, "_fetch", lambda *a: (said.append(len(caplog.records)), fetch(*a)))
    with caplog.at_level(logging.WARNING):
        local_copy(five_bytes)
        local_copy(five_bytes)
    assert said == [1, 1]
    (record,) = caplog.records
    assert "Fetching 5 bytes in 2 files from memory://sized/set to" in record.getMessage()


def test_more_than_the_limit_is_refused_unless_asked_for(five_bytes, monkeypatch, tmp_path):
    monkeypatch.setenv("VLA_FETCH_GB", "4e-9")
    with pytest.raises(StoreError, match=r"5 bytes in 2 files, more than the 4 bytes .*VLA_FETCH_GB=1 "):
        local_copy(five_bytes)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    monkeypatch.setenv("VLA_FETCH_GB", "5e-9")
    assert (local_copy(five_bytes) / "data/0.bin").read_bytes() == b"345"
    fsspec.filesystem("memory").pipe_file("/sized/set/data/1.bin", b"6")
    monkeypatch.setenv("VLA_FETCH_GB", "1e-9")  # what is there already does not count
    assert (local_copy(five_bytes) / "data/1.bin").read_bytes() == b"6"
    monkeypatch.setenv("VLA_FETCH_GB", "much")
    fsspec.filesystem("memory").pipe_file("/sized/set/data/2.bin", b"7")
    with pytest.raises(ConfigError, match="'much', expected a number of gigabytes"):
        local_copy(five_bytes)


def test_a_disk_without_room_is_refused_before_it_is_full(five_bytes, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 6, 4))
    with pytest.raises(StoreError, match=r"has 4 bytes free\. Make room, or set VLA_CACHE"):
        local_copy(five_bytes)


def test_an_interrupted_fetch_goes_on_with_what_is_missing(five_bytes, monkeypatch):
    system = type(fsspec.filesystem("memory"))
    get, asked = system.get_file, []

    def breaking(self, path, *args, **more):
        asked.append(path)
        if len(asked) == 2:
            raise ConnectionResetError("gone")
        return get(self, path, *args, **more)

    monkeypatch.setattr(system, "get_file", breaking)
    with pytest.raises(StoreError, match="ConnectionResetError: gone"):
        local_copy(five_bytes)
    copy = local_copy(five_bytes)
    assert len(asked) == 3
    assert sorted(path.name for path in copy.rglob("*.*")) == ["0.bin", "info.json"]


def test_other_formats_are_fetched_once(monkeypatch):
    system = fsspec.filesystem("memory")
    for name, text in (("meta/info.json", b"{}"), ("data/0.bin", b"12345")):
        system.pipe_file(f"/foreign/set/{name}", text)
    copy = local_copy("memory://foreign/set")
    assert (copy / "data/0.bin").read_bytes() == b"12345"
    monkeypatch.setattr(type(system), "get_file", lambda *_, **__: pytest.fail("fetched again"))
    assert local_copy("memory://foreign/set") == copy
    with pytest.raises(StoreError, match="nothing at memory://foreign/none"):
        local_copy("memory://foreign/none")


def test_what_changed_or_went_at_the_url_does_so_in_the_copy():
    system, url = fsspec.filesystem("memory"), "memory://changing/set"
    for name in ("data/0.bin", "data/1.bin", "old/2.bin"):
        system.pipe_file(f"/changing/set/{name}", b"12345")
    copy = local_copy(url)
    (copy / "embodiment.json").write_text("mine")
    system.pipe_file("/changing/set/data/0.bin", b"54321")  # of the same size
    system.rm("/changing/set/old/2.bin")
    assert local_copy(url) == copy
    assert (copy / "data/0.bin").read_bytes() == b"54321"
    left = sorted(str(path.relative_to(copy)) for path in copy.rglob("*"))
    assert left == ["data", "data/0.bin", "data/1.bin", "embodiment.json"]


def test_an_entity_tag_counts_more_than_the_time_of_upload():
    first = {"ETag": "a", "LastModified": 1, "size": 5, "name": "x"}
    assert _state(first) == _state({**first, "LastModified": 2})
    assert _state(first) != _state({**first, "ETag": "b"})
    assert _state({"size": 5, "mtime": 1.0}) != _state({"size": 5, "mtime": 2.0})


def test_one_file_at_a_url_is_fetched_under_its_name():
    system = fsspec.filesystem("memory")
    for content in (b"12345", b"54321"):
        system.pipe_file("/single/a.hdf5", content)
        copy = local_copy("memory://single/a.hdf5")
        assert (copy.name, copy.read_bytes()) == ("a.hdf5", content)


@pytest.mark.parametrize("name", ["../x", "data/../../x", "/etc/x", "..", "a\\..\\x", "data\\x"])
def test_a_listed_name_that_leaves_the_folder_is_refused_before_anything_is_fetched(
    five_bytes, monkeypatch, tmp_path, name
):
    listed = {f"/sized/set/{name}" if not name.startswith("/") else name: 1, "/sized/set/data/0.bin": 3}
    monkeypatch.setattr(remote_copy, "_list", lambda *_: (listed, {path: ["1"] for path in listed}))
    monkeypatch.setattr(remote_copy, "_fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(DatasetError, match="outside of the folder"):
        local_copy(five_bytes)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_notes_that_name_a_file_elsewhere_remove_nothing(five_bytes, tmp_path):
    copy, precious = local_copy(five_bytes), tmp_path / "precious"
    precious.write_text("mine")
    write_json(copy.with_name("set.fetched.json"), {"../../../precious": ["4"]})
    with pytest.raises(DatasetError, match="Nothing was fetched or removed"):
        local_copy(five_bytes)
    assert precious.read_text() == "mine"


def test_a_link_in_the_copy_is_not_followed_out_of_it(five_bytes, tmp_path):
    copy, elsewhere = local_copy(five_bytes), tmp_path / "elsewhere"
    shutil.move(copy / "data", elsewhere)
    (copy / "data").symlink_to(elsewhere)
    fsspec.filesystem("memory").pipe_file("/sized/set/data/0.bin", b"3456")
    with pytest.raises(DatasetError, match="outside of the folder"):
        local_copy(five_bytes)
    assert (elsewhere / "0.bin").read_bytes() == b"345"
