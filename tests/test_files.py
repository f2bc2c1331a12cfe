"""Files are whole or not there, and one process at a time writes a directory."""

import json
import threading

import pytest

from vla import files
from vla.errors import ContractError, VlaError
from vla.files import exclusive, read_json, replace_directory, write_json, written_whole


def fill(directory, text):
    directory.mkdir()
    (directory / "file").write_text(text)
    return directory


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("text", ['{"a": ', "[1]", "\udcff"])
def test_a_damaged_file_is_named_with_its_remedy(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ContractError, match=r"a\.json is damaged.*Do this"):
        read_json(path, ContractError, "Do this.")
    path.unlink()
    with pytest.raises(ContractError, match=r"a\.json is missing. Do this"):
        read_json(path, ContractError, "Do this.")


def test_a_replaced_directory_is_there_at_every_moment(tmp_path):
    place = fill(tmp_path / "place", "0")
    gone, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            if not place.exists():
                gone.append(True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(1, 200):
        replace_directory(place, fill(tmp_path / "part", str(number)))
    stop.set()
    watcher.join()
    assert ((place / "file").read_text(), gone) == ("199", [])
    assert [p.name for p in tmp_path.iterdir()] == ["place"]


def test_where_directories_cannot_change_places_they_are_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    place = tmp_path / "place"
    for number in range(3):
        replace_directory(place, fill(tmp_path / "part", str(number)))
    assert (place / "file").read_text() == "2"
    assert [p.name for p in tmp_path.iterdir()] == ["place"]


def test_a_directory_is_held_by_one_and_free_afterwards(tmp_path):
    again = exclusive(tmp_path / "x" / ".." / "a", "training")
    with (
        exclusive(tmp_path / "a", "generating"),
        exclusive(tmp_path / "b", "generating"),
        pytest.raises(VlaError, match=r"Not training in .*a: another process"),
        again,
    ):
        pass
    with exclusive(tmp_path / "a", "training"):
        assert (tmp_path / ".a.lock").exists()
    assert not list(tmp_path.glob(".*.lock"))


def test_what_is_stopped_leaves_nothing_at_its_place_and_the_next_one_works(tmp_path):
    def write_half():
        with written_whole(tmp_path / "out") as begun:
            fill(begun, "half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []
    fill(tmp_path / ".out.begun", "half")  # as a kill leaves it
    with written_whole(tmp_path / "out") as begun:
        fill(begun, "whole")
    assert (tmp_path / "out" / "file").read_text() == "whole"
    assert not (tmp_path / ".out.begun").exists()
    with pytest.raises(VlaError, match="not empty"), written_whole(tmp_path / "out"):
        pass
