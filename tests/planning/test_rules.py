"""The planner without a model: what is one motion stays one, what is several comes in order."""

from __future__ import annotations

import pytest

from vla.errors import ConfigError, UnknownNameError
from vla.planning import PlanError, Scene, make_planner
from vla.planning.rules import RulePlanner
from vla_envs.tabletop.instructions import TEMPLATES

NOWHERE = Scene()


@pytest.mark.parametrize(
    ("said", "steps"),
    [
        ("open the drawer, then press the red button", ["open the drawer", "press the red button"]),
        ("First open the drawer. Then press the red button.", ["open the drawer", "press the red button"]),
        ("open the drawer; press the red button", ["open the drawer", "press the red button"]),
        ("press the red button after that open the drawer", ["press the red button", "open the drawer"]),
        ("before you open the drawer, press the red button", ["press the red button", "open the drawer"]),
        ("press the red button before you open the drawer", ["press the red button", "open the drawer"]),
        ("once you open the drawer, press the red button", ["open the drawer", "press the red button"]),
        (
            "put the red cube in the blue bowl and push the green cube to the yellow zone",
            ["put the red cube in the blue bowl", "push the green cube to the yellow zone"],
        ),
        (
            "pick up the red cube, then put it in the blue bowl",
            ["pick up the red cube", "put the red cube in the blue bowl"],
        ),
        (
            "first stack the red cube on the green cube, next take the red cube off it and finally press the "
            "blue button",
            ["stack the red cube on the green cube", "take the red cube off it", "press the blue button"],
        ),
    ],
)  # fmt: skip
def test_what_is_said_in_a_row_comes_in_order(said: str, steps: list[str]) -> None:
    assert list(RulePlanner().plan(said, NOWHERE)) == steps


@pytest.mark.parametrize("wording", ["train", "heldout"])
def test_every_template_of_the_suite_is_one_step(wording: str) -> None:
    for kinds in TEMPLATES.values():
        for template in kinds[wording]:
            sentence = template.format(target="red cube", goal="blue bowl", prep="in")
            assert RulePlanner().plan(sentence, NOWHERE) == (sentence,)


def test_a_table_is_cleared_thing_by_thing() -> None:
    scene = Scene(
        things=("red cube", "green cube", "blue bowl"),
        sentences=(
            "pick up the red cube",
            "put the red cube in the blue bowl",
            "put the green cube in the blue bowl",
            "put the red cube in the white bowl",
        ),
    )
    steps = RulePlanner().plan("clear the table, then press the red button", scene)
    assert steps == (*scene.sentences[1:3], "press the red button")
    with pytest.raises(PlanError, match="nothing here can be put into anything"):
        RulePlanner().plan("clear the table", Scene(things=("red button",)))


@pytest.mark.parametrize("said", ["", " . ", "then"])
def test_nothing_to_do_is_refused(said: str) -> None:
    with pytest.raises(PlanError, match="nothing to do"):
        RulePlanner().plan(said, NOWHERE)


def test_planners_are_named_with_their_model() -> None:
    assert isinstance(make_planner("rules"), RulePlanner)
    with pytest.raises(UnknownNameError, match="Did you mean 'rules'"):
        make_planner("rule")
    for spec in ("openai", "rules:x", "openai:model", "openai:model@ftp://x"):
        with pytest.raises(ConfigError, match=r"openai:MODEL@|expected rules"):
            make_planner(spec)
