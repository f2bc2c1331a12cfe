"""Names of the suite's arms, tasks and colours, importable without MuJoCo."""

ARMS = ("panda", "ur5e", "xarm7", "so101", "gen3", "iiwa14")
HELD_OUT_ARM = "iiwa14"  # no shipped checkpoint has seen a demonstration of it
TASKS = (
    *("pick", "place", "push", "stack", "knock", "drawer", "press", "relation"),
    *("turn", "slide", "insert", "beside", "unstack"),
)
COLORS = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.62, 0.18),
    "blue": (0.12, 0.25, 0.85),
    "yellow": (0.95, 0.80, 0.10),
}
#: Colours that only seasons have.
SEASON_COLORS = {
    "orange": (0.96, 0.45, 0.04),
    "purple": (0.45, 0.12, 0.65),
    "pink": (0.96, 0.45, 0.70),
    "cyan": (0.08, 0.74, 0.80),
    "brown": (0.40, 0.22, 0.10),
    "black": (0.07, 0.07, 0.08),
}
ALL_COLORS = {**COLORS, **SEASON_COLORS}
