"""Names of the suite's arms, tasks and colours, importable without MuJoCo."""

ARMS = ("panda", "ur5e", "xarm7", "so101")
TASKS = ("pick", "place", "push", "stack", "knock", "drawer", "press", "relation")
COLORS = {
    "red": (0.85, 0.10, 0.10),
    "green": (0.10, 0.62, 0.18),
    "blue": (0.12, 0.25, 0.85),
    "yellow": (0.95, 0.80, 0.10),
}
