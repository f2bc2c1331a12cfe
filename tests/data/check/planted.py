"""One fault of every kind, planted into made demonstrations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.data.check.made import LENGTH, MadeSource


def nan(s: MadeSource) -> None:
    s.values[5]["state"][7:9, 2] = np.nan


def ragged(s: MadeSource) -> None:
    s.values[5]["action"] = s.values[5]["action"][:-1]


def gone(s: MadeSource) -> None:
    del s.values[5]["state"]


def undecodable(s: MadeSource) -> None:
    s.pictures[5]["front"][20] = None


def black(s: MadeSource) -> None:
    s.pictures[5]["front"][20] = np.zeros((48, 48, 3), np.uint8)


def torn(s: MadeSource) -> None:
    picture = s.pictures[5]["front"][20].copy()  # type: ignore[union-attr]
    picture[24:] = 128
    s.pictures[5]["front"][20] = picture


def frozen(s: MadeSource) -> None:
    s.pictures[5]["front"][10:25] = [s.pictures[5]["front"][10]] * 15


def unreported(s: MadeSource) -> None:
    s.values[5]["state"][12:31, :10] = s.values[5]["state"][12, :10]


def odd(s: MadeSource) -> None:
    s.pictures[5]["front"][20] = 255 - s.pictures[5]["front"][20]  # type: ignore[operator]


def jump(s: MadeSource) -> None:
    s.values[5]["state"][20:, 0] += 0.4


def outlier(s: MadeSource) -> None:
    s.values[5]["state"][20, 4] = 2.9


def other_unit(s: MadeSource) -> None:
    s.values[5]["state"][:, :3] += 2.0


def state_range(s: MadeSource) -> None:
    s.values[5]["state"][20, 1] = 0.6


def action_range(s: MadeSource) -> None:
    s.values[5]["action"][20, 1] = 0.05


def constant_action(s: MadeSource) -> None:
    for values in s.values:
        values["action"][:, 3] = 0.0


def constant_state(s: MadeSource) -> None:
    for values in s.values:
        values["state"][:, 9] = 0.5


def clipped(s: MadeSource) -> None:
    for values in s.values:
        values["action"][:, 3] = np.clip(100 * values["action"][:, 3], -0.15, 0.15)


def waits_first(s: MadeSource) -> None:
    s.stand_still(5, 0, 14)


def waits_last(s: MadeSource) -> None:
    s.stand_still(5, 25, LENGTH - 1)


def waits_between(s: MadeSource) -> None:
    s.stand_still(5, 8, 29)


def back_in_time(s: MadeSource) -> None:
    s.values[5]["time_s"][20] = s.values[5]["time_s"][18]


def gap(s: MadeSource) -> None:
    s.values[5]["time_s"][20:] += 0.3


def rate(s: MadeSource) -> None:
    s.values[5]["time_s"] *= 2


def silent(s: MadeSource) -> None:
    s.rename(5, "")


def blank_text(s: MadeSource) -> None:
    s.rename(5, " \n")


def file_name(s: MadeSource) -> None:
    s.rename(5, "KITCHEN_SCENE3_put_the_bowl_demo.hdf5")


def identifier(s: MadeSource) -> None:
    s.rename(5, "pick_cube_v2")


def slip(s: MadeSource) -> None:
    s.rename(5, "reach the red sqaure")


def twice(s: MadeSource) -> None:
    s.repeat(9, of=5)


def almost_twice(s: MadeSource) -> None:
    s.repeat(9, of=5)
    s.values[9]["state"] = s.values[9]["state"] + np.float32(1e-4)


def contradiction(s: MadeSource) -> None:
    s.repeat(9, of=5)
    s.rename(9, "push the drawer shut")


def short(s: MadeSource) -> None:
    s.cut(5, 2)


def long(s: MadeSource) -> None:
    for index in range(len(s)):
        if index != 5:
            s.cut(index, 5)


def late(s: MadeSource) -> None:
    for values in s.values:
        for name in ("action", "executed"):
            values[name] = np.roll(values[name], 3, axis=0)


def early(s: MadeSource) -> None:
    for values in s.values:
        for name in ("action", "executed"):
            values[name] = np.roll(values[name], -7, axis=0)


def opposite(s: MadeSource) -> None:
    for values in s.values:
        for name in ("action", "executed"):
            values[name][:, 1] *= -1


def scale(s: MadeSource) -> None:
    for values in s.values:
        values["state"][:, :3] *= 0.1


def mismatch(s: MadeSource) -> None:
    for name in ("action", "executed"):
        s.values[5][name] = np.roll(s.values[5][name], LENGTH // 2, axis=0)


def held(s: MadeSource) -> None:
    high = s.arm.action_high[0]
    s.values[5]["action"][7, 0] = 1.004 * high
    s.values[5]["executed"][7, 0] = high


def dummy_first(s: MadeSource) -> None:
    for values in s.values[1:]:
        values["action"][0, :4] = 1e-9


def dummy_last(s: MadeSource) -> None:
    for values in s.values:
        values["action"][-1, :4] = 0


def far_first(s: MadeSource) -> None:
    for values in s.values:
        values["action"][0, 3] = 9.0


def missing(s: MadeSource) -> None:
    s.lost.append((None, "part-00001 is missing, with all its episodes"))


def jumps_everywhere(s: MadeSource) -> None:
    s.values[5]["state"][::2, 0] += 0.4


def auxiliary(s: MadeSource) -> None:
    s.values[5]["aux/force"] = np.zeros((LENGTH - 1, 3))


PLANTED: dict[str, list[tuple[Callable[[MadeSource], None], int | None]]] = {
    "missing": [(missing, None)],
    "unreadable": [(gone, 5)],
    "held_action": [(held, None)],
    "placeholder_first": [(dummy_first, None), (far_first, None)],
    "placeholder_last": [(dummy_last, None)],
    "ragged": [(ragged, 5), (auxiliary, 5)],
    "not_finite": [(nan, 5)],
    "unreadable_frame": [(undecodable, 5)],
    "blank_frame": [(black, 5)],
    "torn_frame": [(torn, 5)],
    "frozen_frames": [(frozen, 5)],
    "frozen_state": [(unreported, 5)],
    "odd_frame": [(odd, 5)],
    "jump": [(jump, 5), (jumps_everywhere, 5)],
    "outlier": [(outlier, 5)],
    "episode_outlier": [(other_unit, 5)],
    "constant_action": [(constant_action, None)],
    "constant_state": [(constant_state, None)],
    "state_out_of_range": [(state_range, 5)],
    "action_out_of_range": [(action_range, 5)],
    "saturated_action": [(clipped, None)],
    "idle_start": [(waits_first, 5)],
    "idle_end": [(waits_last, 5)],
    "idle_middle": [(waits_between, 5)],
    "time_backwards": [(back_in_time, 5)],
    "time_gap": [(gap, 5)],
    "wrong_rate": [(rate, 5)],
    "empty_instruction": [(silent, 5), (blank_text, 5)],
    "odd_instruction": [(file_name, 5), (identifier, 5)],
    "misspelt_instruction": [(slip, 5)],
    "contradicting_instruction": [(contradiction, 9)],
    "duplicate": [(twice, 9)],
    "near_duplicate": [(almost_twice, 9)],
    "short_episode": [(short, 5)],
    "long_episode": [(long, 5)],
    "action_late": [(late, None)],
    "action_early": [(early, None)],
    "opposite_sign": [(opposite, None)],
    "wrong_scale": [(scale, None)],
    "mismatch": [(mismatch, 5)],
}
