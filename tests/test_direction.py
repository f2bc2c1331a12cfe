"""Who may import whom, and what may never be called: read from the syntax trees, nothing is run."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "vla": ROOT / "vla",
    "vla_envs": ROOT / "envs/vla_envs",
    "vla_policies": ROOT / "policies/vla_policies",
}
FOLDERS = [*PACKAGES.values(), ROOT / "configs", ROOT / "scripts", ROOT / "tests"]

#: Layers from the bottom up: a module of ``vla`` imports its own layer and those below.
LAYERS = (
    {"errors"},
    {"files", "provenance", "text"},
    {"types", "spaces", "embodiment", "interfaces", "pictures", "registry"},
    {
        "data",
        "models",
        "control",
        "robots",
        "kernels",
        "planning",
        "export",
        "serve",
        "transforms",
        "contract",
        "testing",
        "teleop",
    },
    {"train", "eval", "report", "session", "conversation", "console"},
    {"cli"},
)


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Dotted names of every module a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level_imports(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def test_every_package_has_sources():
    assert all(sources(folder) for folder in PACKAGES.values())


@pytest.mark.parametrize("path", sources(PACKAGES["vla"]), ids=lambda p: str(p.relative_to(ROOT)))
def test_vla_knows_no_world_and_no_checkpoint(path: Path):
    assert not top_level_imports(path) & {"vla_envs", "vla_policies"}


def test_envs_and_policies_do_not_know_each_other():
    for path in sources(PACKAGES["vla_envs"]):
        assert "vla_policies" not in top_level_imports(path), path
    for path in sources(PACKAGES["vla_policies"]):
        assert "vla_envs" not in top_level_imports(path), path


def test_modules_import_only_their_own_layer_and_those_below():
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    wrong = []
    for path in sources(PACKAGES["vla"]):
        here = path.relative_to(PACKAGES["vla"]).with_suffix("").parts[0]
        if here == "__init__":
            continue
        assert here in level, f"say in LAYERS where {here!r} belongs"
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "vla" and len(parts) > 1 and level.get(parts[1], -1) > level[here]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_nothing_unpickles():
    banned = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    made_to_be_refused = ROOT / "tests/serve/test_lerobot.py"
    for path in set(sources(*FOLDERS)) - {made_to_be_refused}:
        assert not top_level_imports(path) & banned, path


def test_torch_load_and_numpy_load_cannot_unpickle():
    for path in sources(*FOLDERS):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr == "load"
            ):
                continue
            owner = ast.unparse(call.func.value)
            keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
            if owner == "torch":
                assert keywords.get("weights_only") == "True", f"{path}:{call.lineno}"
            if owner in ("np", "numpy"):
                assert keywords.get("allow_pickle", "False") == "False", f"{path}:{call.lineno}"


def test_no_global_random_state():
    banned = {"np.random.seed", "numpy.random.seed", "random.seed", "np.random.rand", "np.random.randint"}
    for path in sources(*PACKAGES.values()):
        called = {
            ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)
        }
        assert not called & banned, path
