"""Words for people: lists, counts and full stops."""

from __future__ import annotations

import pytest

from vla.text import counted, quoted, sentence


def test_a_list_is_no_python_list():
    assert quoted(["a", "b"]) == "'a', 'b'"
    assert quoted([0, 1]) == "0, 1"
    assert quoted([]) == "nothing"


@pytest.mark.parametrize("text", ["it broke", "it broke.", "it broke..", "it broke. "])
def test_a_sentence_ends_with_one_full_stop_however_it_came(text: str):
    assert sentence(text) == "it broke."
    assert sentence(ValueError(text)) == "it broke."


def test_one_is_no_plural():
    assert [counted(n, "more fault") for n in (0, 1, 2)] == ["0 more faults", "1 more fault", "2 more faults"]
