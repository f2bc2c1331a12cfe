import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla.eval.groups import Group, Queue, grouped
from vla.eval.records import EpisodeKey


def episodes(*cells: int) -> list[EpisodeKey]:
    return [EpisodeKey(task=f"t{c}", embodiment="a", seed=s) for c, n in enumerate(cells) for s in range(n)]


def groups_of(keys: list[EpisodeKey], batch: int, todo: list[EpisodeKey] | None = None) -> list[Group]:
    return grouped(keys, keys if todo is None else todo, batch=batch, first_seed=0)


def test_what_is_missing_does_not_change_who_runs_with_whom() -> None:
    keys = episodes(7, 2)
    whole = groups_of(keys, 3)
    assert [[key.seed for key in group.keys] for group in whole] == [[0, 1, 2], [3, 4, 5], [6], [0, 1]]
    rest = groups_of(keys, 3, todo=[keys[4], keys[7]])
    assert [group.keys for group in rest] == [whole[1].keys, whole[3].keys]
    assert [sorted(group.wanted) for group in rest] == [[keys[4]], [keys[7]]]


def test_conditions_are_batched_apart_from_one_another() -> None:
    plain = episodes(2)
    blank = [EpisodeKey(task="t0", embodiment="a", seed=s, ablation="blank") for s in range(2)]
    mixed = [plain[0], blank[0], plain[1], blank[1]]
    assert [group.keys for group in groups_of(mixed, 2)] == [tuple(plain), tuple(blank)]


def test_more_seeds_leave_the_whole_groups_as_they_are() -> None:
    few, many = groups_of(episodes(6), 3), groups_of(episodes(11), 3)
    assert [group.keys for group in many[:2]] == [group.keys for group in few]


def test_a_group_survives_json() -> None:
    group = groups_of(episodes(3), 3, todo=episodes(2))[0]
    assert Group.from_json(json.loads(json.dumps(group.to_json()))) == group


@settings(deadline=None)
@given(
    cells=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    turns=st.lists(st.integers(0, 3), max_size=80),
    batch=st.integers(1, 5),
    handful=st.integers(1, 5),
)
def test_the_queue_hands_out_every_episode_once(
    cells: list[int], turns: list[int], batch: int, handful: int
) -> None:
    keys = episodes(*cells)
    queue, handed = Queue(groups_of(keys, batch), handful), Counter[EpisodeKey]()
    for worker in [*turns, *[0] * len(keys)]:
        taken = queue.take(worker)
        assert len({group.cell for group in taken}) <= 1
        for group in taken:
            handed.update(group.keys)
    assert len(queue) == 0
    assert handed == Counter(keys)


def test_workers_keep_to_different_cells_until_one_runs_dry() -> None:
    queue = Queue(groups_of(episodes(4, 4), 1), handful=2)
    tasks = [[queue.take(w)[0].cell.task for w in (0, 1)] for _ in range(2)]
    assert tasks == [["t0", "t1"], ["t0", "t1"]]
    assert queue.take(0) == []


def test_what_is_put_back_is_handed_out_again() -> None:
    groups = groups_of(episodes(3), 1)
    queue = Queue(groups, handful=3)
    queue.put_back(queue.take(0)[1:])
    assert queue.take(1) == groups[1:]


@pytest.mark.parametrize("told", [0, 1])
def test_a_group_that_kills_twice_is_taken_apart_and_an_episode_that_kills_alone_is_given_up(
    told: int,
) -> None:
    keys = episodes(3)
    queue = Queue(groups_of(keys, 3), handful=1)
    pending = queue.take(0)
    for key in keys[:told]:
        pending = [pending[0].without(key)]
    assert queue.bury(pending) is None
    assert queue.take(0) == pending  # as a whole: the same company
    assert queue.bury(pending) is None
    apart = [queue.take(0) for _ in keys[told:]]
    assert apart == [[Group.alone(key)] for key in keys[told:]]
    assert queue.bury(apart[0]) == keys[told]


def test_few_episodes_of_one_cell_are_shared_out() -> None:
    queue = Queue(groups_of(episodes(2), 1), workers=2)
    assert [len(queue.take(worker)) for worker in (0, 1)] == [1, 1]
