"""The few motions all experts are made of. Each maps the state of the world to one action.

Actions are [dx dy dz dyaw gripper] in metres, radians and -1 (open) .. +1 (closed) per control step.
Skills hold no memory: what to do next is read off where things are, so that an expert corrects
whatever noise, a clumsy policy or a person did before.
"""

from __future__ import annotations

import math

import numpy as np

from vla_envs.tabletop.embodiments import DELTA_LIMIT_M, YAW_LIMIT_RAD
from vla_envs.tabletop.objects import DRAWER_TRAVEL_M, SLIDER_RANGE_M
from vla_envs.tabletop.tasks.base import Goal
from vla_envs.tabletop.tasks.beside import spot_beside
from vla_envs.tabletop.tasks.drawer import knob_position
from vla_envs.tabletop.tasks.insert import in_hole
from vla_envs.tabletop.tasks.press import CAP_HEIGHT_M
from vla_envs.tabletop.tasks.slide import SIDE
from vla_envs.tabletop.tasks.turn import SENSE, clasped, handle_position
from vla_envs.tabletop.world import World, wrap

OPEN, CLOSED = -1.0, 1.0
HOVER_M = 0.055  # fingertip clearance above an object before descending
NEAR_M = 0.008  # close enough sideways to descend or to close the fingers
CARRY_M = 0.095  # height of the tool while carrying over other things
FAST_M, SLOW_M = DELTA_LIMIT_M, 0.02
STUCK_M = 0.022  # the tool lags its command by this much only when something blocks it
YAW_TOLERANCE_RAD = 0.12
FULL_TURN_RAD = 0.97  # of the tool's yaw, from straight
PEG_PLAY_M = 0.005  # a peg's foot this near to the hole's middle goes in without touching: the play is 6.5 mm
FINGER_HALF_M = 0.02  # half extent of any arm's closed fingers along the closing direction


def move(
    world: World, target: np.ndarray, gripper: float, *, yaw: float = 0.0, speed: float = FAST_M
) -> np.ndarray:
    """Step the commanded tool pose straight towards ``target`` [3], at most ``speed`` m per step."""
    delta = target - world.commanded
    length = float(np.linalg.norm(delta))
    if length > speed:
        delta *= speed / length
    turn = np.clip(yaw - world.commanded_yaw, -YAW_LIMIT_RAD, YAW_LIMIT_RAD)
    return np.array([*delta, turn, gripper], np.float32)


def grasp(world: World, name: str, grip: np.ndarray, yaw: float) -> np.ndarray:
    """Bring open fingers over, down to ``grip`` [3] and close them on the thing."""
    tcp = world.tcp
    aside = float(np.hypot(*(grip - tcp)[:2]))
    turned = abs(wrap(yaw - world.tcp_yaw, math.pi)) < YAW_TOLERANCE_RAD
    low = tcp[2] - grip[2] < HOVER_M * 0.6
    aligned = aside < (0.014 if low else NEAR_M) and (turned or low)
    reached = abs(world.commanded[2] - grip[2]) < 0.004 and abs(tcp[2] - grip[2]) < 0.016
    at_grip = aside < 0.014 and (reached or abs(tcp[2] - grip[2]) < 0.006)
    if at_grip:
        return move(world, grip, CLOSED, yaw=yaw, speed=SLOW_M)
    if aligned and tcp[2] - world.commanded[2] < STUCK_M:
        return move(world, grip, OPEN, yaw=yaw, speed=FAST_M if tcp[2] - grip[2] > 0.05 else SLOW_M)
    hover = grip + [0.0, 0.0, HOVER_M]
    if tcp[2] - world.commanded[2] > STUCK_M:  # something is under the fingers: up and try again
        return move(world, tcp + [0.0, 0.0, HOVER_M], OPEN, yaw=yaw)
    if aside > 0.05:  # travel high, then come down over the thing
        hover = np.array([grip[0], grip[1], max(hover[2], min(tcp[2], hover[2] + 0.05))])
    if tcp[2] < hover[2] - 0.02:  # low and aside: straight up first
        hover = np.array([*world.commanded[:2], hover[2]])
    return move(world, hover, OPEN, yaw=yaw)


def carry(
    world: World, name: str, place: np.ndarray, clearance: float, tolerance: float = 0.012
) -> np.ndarray:
    """Lift a held thing, bring it to ``tolerance`` over ``place`` [3] (for its centre), lower it, let go."""
    thing, tcp = world.position(name), world.tcp
    offset = place - thing
    aside = float(np.hypot(*offset[:2]))
    yaw = world.commanded_yaw
    if aside > tolerance:
        if thing[2] < clearance - 0.015 and aside > 0.025:
            return move(
                world, np.array([*world.commanded[:2], tcp[2] + clearance - thing[2]]), CLOSED, yaw=yaw
            )
        over = np.array([tcp[0] + offset[0], tcp[1] + offset[1], tcp[2] + clearance - thing[2]])
        return move(world, over, CLOSED, yaw=yaw, speed=FAST_M if aside > 0.04 else SLOW_M)
    if offset[2] < -0.008:
        return move(world, tcp + [*offset[:2], offset[2]], CLOSED, yaw=yaw, speed=SLOW_M)
    return move(world, world.commanded, OPEN, yaw=yaw)


def retreat(world: World) -> np.ndarray:
    """Straight up with open fingers."""
    return move(world, world.tcp + [0.0, 0.0, 0.05], OPEN, yaw=world.commanded_yaw)


def grasp_yaw(world: World, name: str) -> float:
    """Yaw that lets the fingers close on two faces of a cube; round things keep the tool's yaw."""
    if world.pool[name].kind == "cube":
        return wrap(world.yaw(name), math.pi / 2)
    return 0.0


def pick(world: World, goal: Goal) -> np.ndarray:
    """Grasp and lift straight up."""
    if world.held(goal.target):
        return move(world, world.tcp + [0.0, 0.0, 0.05], CLOSED, yaw=world.commanded_yaw)
    return grasp(world, goal.target, _grip_point(world, goal.target), grasp_yaw(world, goal.target))


def place(world: World, goal: Goal) -> np.ndarray:
    """Grasp, carry over, lower, let go, rise."""
    assert goal.destination is not None
    name, where = goal.target, world.position(goal.destination)
    half = world.pool[name].half_height
    resting = where + [0.0, 0.0, half + 0.010]
    return _deliver(world, name, resting, clearance=0.085, arrived=0.04)


def stack(world: World, goal: Goal) -> np.ndarray:
    """Grasp, carry over the base cube, lower onto it, let go, rise."""
    assert goal.destination is not None
    base = goal.destination
    top_z = world.position(base)[2] + world.pool[base].half_height + world.pool[goal.target].half_height
    resting = np.array([*world.position(base)[:2], top_z + 0.002])
    return _deliver(world, goal.target, resting, clearance=0.095, arrived=0.016)


def _deliver(world: World, name: str, resting: np.ndarray, *, clearance: float, arrived: float) -> np.ndarray:
    offset = resting - world.position(name)
    there = float(np.hypot(*offset[:2])) < arrived and abs(offset[2]) < 0.02
    if there and world.speed(name) < 0.1 and (not world.held(name) or world.gripper_opening > 0.9):
        return retreat(world)
    if world.held(name):
        return carry(world, name, resting, clearance)
    return grasp(world, name, _grip_point(world, name), grasp_yaw(world, name))


def push(world: World, goal: Goal) -> np.ndarray:
    """Put closed fingers on the far side of the cube and slide it along y into the zone."""
    assert goal.destination is not None
    cube, zone = world.position(goal.target), world.position(goal.destination)
    side = math.copysign(1.0, zone[1] - cube[1])
    half, tcp = world.pool[goal.target].size, world.tcp
    low = half + 0.004
    start = np.array([cube[0], cube[1] - side * (half + FINGER_HALF_M + 0.02), low])
    in_row = abs(tcp[0] - cube[0]) < 0.012
    behind = (cube[1] - tcp[1]) * side  # how far the fingers are on the far side of the cube
    if tcp[2] < low + 0.008 and in_row and behind > half * 0.6:
        reach = min(0.022, max(0.008, abs(zone[1] - cube[1])))
        return move(world, np.array([cube[0], world.commanded[1] + side * reach, low]), CLOSED)
    aside = float(np.hypot(*(start - tcp)[:2]))
    if aside < 0.012:
        return move(world, start, CLOSED)
    travel = low + half + 0.06
    if tcp[2] < travel - 0.02 and aside > 0.03:
        return move(world, np.array([*world.commanded[:2], travel]), CLOSED)
    return move(world, np.array([start[0], start[1], travel]), CLOSED)


def knock(world: World, goal: Goal) -> np.ndarray:
    """Come down beside the bottle with closed fingers and sweep its neck along y."""
    bottle = world.position(goal.target)
    tcp = world.tcp
    strike_z, travel = 0.072, 0.14
    in_row = abs(tcp[0] - bottle[0]) < 0.012
    if tcp[2] < strike_z + 0.018 and in_row and abs(bottle[1] - tcp[1]) < 0.075:
        side = math.copysign(1.0, bottle[1] - tcp[1])  # away from where the fingers are
        return move(world, np.array([bottle[0], tcp[1] + side * 0.04, strike_z]), CLOSED)
    side = 1.0 if bottle[1] < 0 else -1.0  # towards the middle of the table
    start = np.array([bottle[0], bottle[1] - side * 0.055, strike_z])
    aside = float(np.hypot(*(start - tcp)[:2]))
    if aside < 0.012:
        return move(world, start, CLOSED)
    if tcp[2] < travel - 0.025 and aside > 0.03:
        return move(world, np.array([*world.commanded[:2], travel]), CLOSED)
    return move(world, np.array([start[0], start[1], travel]), CLOSED)


def slide_drawer(world: World, goal: Goal) -> np.ndarray:
    """Grasp the knob and draw it towards the robot, or push it back in."""
    knob = knob_position(goal.target, world)
    wanted = DRAWER_TRAVEL_M if goal.verb == "open" else 0.0
    remaining = wanted - world.slide(goal.target)
    if world.held(goal.target):
        step = np.clip(remaining, -0.022, 0.022) + math.copysign(0.006, remaining)
        return move(world, world.tcp + [-step, 0.0, 0.0] + [0.0, 0.0, knob[2] - world.tcp[2]], CLOSED)
    return grasp(world, goal.target, knob, 0.0)


def press(world: World, goal: Goal) -> np.ndarray:
    """Closed fingers over the cap, then straight down."""
    button = world.position(goal.target)
    top = button + [0.0, 0.0, CAP_HEIGHT_M]
    tcp = world.tcp
    aside = float(np.hypot(*(top - tcp)[:2]))
    if aside < 0.01 or (aside < 0.016 and tcp[2] < top[2] + 0.04):
        return move(world, top - [0.0, 0.0, 0.02], CLOSED, speed=SLOW_M)
    travel = top[2] + 0.05
    if tcp[2] < travel - 0.02:
        return move(world, np.array([*world.commanded[:2], travel]), CLOSED)
    return move(world, np.array([top[0], top[1], travel]), CLOSED)


def turn(world: World, goal: Goal) -> np.ndarray:
    """Grasp the bar and turn the tool about the dial's axis."""
    bar = handle_position(goal.target, world)
    if clasped(goal.target, world):
        return move(world, bar, CLOSED, yaw=SENSE[goal.verb] * FULL_TURN_RAD, speed=SLOW_M)
    return grasp(world, goal.target, bar, wrap(world.yaw(goal.target), math.pi))


def slide_knob(world: World, goal: Goal) -> np.ndarray:
    """Grasp the knob and move it along its rail."""
    knob, side = handle_position(goal.target, world), SIDE[goal.verb]
    if clasped(goal.target, world):
        remaining = max(0.0, SLIDER_RANGE_M - side * world.slide(goal.target))
        step = side * (min(remaining, 0.022) + 0.006)
        return move(world, world.tcp + [0.0, step, knob[2] - world.tcp[2]], CLOSED)
    return grasp(world, goal.target, knob, 0.0)


def insert(world: World, goal: Goal) -> np.ndarray:
    """Grasp the peg near its upper end, carry its foot over the hole, lower it in, let go, rise."""
    assert goal.destination is not None
    name, where = goal.target, world.position(goal.destination)
    half = world.pool[name].half_height
    lean = world.position(name) - world.foot(name)  # a five-joint arm tilts what it holds
    resting = where + [*lean[:2], half + 0.002]
    offset = resting - world.position(name)
    aside = float(np.hypot(*offset[:2]))
    if in_hole(goal, world) and offset[2] > -0.010 and (not world.held(name) or world.gripper_opening > 0.9):
        return retreat(world)
    if world.held(name):
        inside = aside < 0.012 and world.position(name)[2] < half + 0.022
        return carry(world, name, resting, half + 0.055, 0.012 if inside else PEG_PLAY_M)
    return grasp(world, name, world.position(name) + [0.0, 0.0, 0.017], 0.0)


def beside(world: World, goal: Goal) -> np.ndarray:
    """Grasp, carry over, lower onto the table next to the reference, let go, rise."""
    assert goal.destination is not None
    spot = spot_beside(world.position(goal.destination), goal.verb)
    resting = np.array([spot[0], spot[1], world.pool[goal.target].half_height + 0.002])
    return _deliver(world, goal.target, resting, clearance=0.085, arrived=0.02)


def _grip_point(world: World, name: str) -> np.ndarray:
    """Where the fingertips' centre shall be to hold a thing."""
    return world.position(name) + [0.0, 0.0, 0.002]
