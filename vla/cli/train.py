"""``vla train RECIPE``: a recipe is a Python file with ``config()``; every value of it is a flag."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from vla.cli.recipe_errors import recipe_errors
from vla.errors import ConfigError

USAGE = """usage: vla train RECIPE.py [--out DIR] [--resume] [--dry-run] [--SETTING VALUE ...]

Train a policy from a recipe, e.g.  vla train configs/quick.py --optim.lr 5e-4
'vla train RECIPE.py --help' lists every setting of that recipe with its value."""


def run(argv: Sequence[str]) -> int:
    if not argv or argv[0].startswith("-"):
        print(USAGE)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    recipe = Path(argv[0])
    config, out, resume, dry_run = read_flags(recipe, argv[1:])
    out = out or Path("runs") / recipe.stem
    if dry_run:
        print(json.dumps(config.to_json(), indent=2))
        _look_at_data(config)
        return 0
    from vla.contract import PolicyContract
    from vla.train.loop import train

    policy = train(config, out, resume=resume)
    if not PolicyContract.load(policy).provenance["training"]["finished"]:
        return 130  # as other verbs after Ctrl-C: what follows must not take it for done
    made_in = config.data.generate.suite if config.data.generate is not None else "tabletop"
    suite = "" if made_in == "tabletop" else f" --suite {made_in}"
    print(f"policy: {policy}\njudge it:  vla eval --policy {policy}{suite} --out {out / 'eval'}")
    return 0


def _look_at_data(config: Any) -> None:
    """Open what there is, as training would; what the recipe would generate first is not there yet."""
    from vla.text import counted
    from vla.train.setup import close_data, data_notes, open_data

    recipe = config.data.generate
    made = config.data.sources[: 1 + len(recipe.seasons)] if recipe is not None else ()
    missing = [source for source in made if not Path(source.path).exists()]
    if missing:
        paths = ", ".join(source.path for source in missing)
        print(f"not there yet, training would make it first: {paths}", file=sys.stderr)
    there = tuple(source for source in config.data.sources if source not in missing)
    if not there:
        return
    config = replace(config, data=replace(config.data, sources=there))
    sources = open_data(config.data)
    try:
        for source, opened in zip(there, sources, strict=True):
            print(f"{source.path}: {counted(len(opened), 'episode')}", file=sys.stderr)
        for note in data_notes(config, sources):
            print(f"note: {note}", file=sys.stderr)
    finally:
        close_data(sources)


def read_flags(recipe: Path, argv: Sequence[str]) -> tuple[Any, Path | None, bool, bool]:
    """Configuration with the flags applied, run directory, whether to resume, whether only to print."""
    default = load_recipe(recipe)

    def flags(
        config: Annotated[Any, tyro.conf.arg(name="")],
        out: Path | None = None,
        resume: bool = False,
        dry_run: bool = False,
    ) -> tuple[Any, Path | None, bool, bool]:
        """Train a policy from a recipe.

        Args:
            config: settings of the recipe.
            out: run directory; runs/<recipe> if not given.
            resume: go on from the newest checkpoint in the run directory.
            dry_run: print the resolved settings as JSON, open the data and say what training would leave out
                or change in them, and stop.
        """
        return config, out, resume, dry_run

    setting = tyro.conf.arg(name="", default=default)
    flags.__annotations__["config"] = Annotated[type(default), setting]
    return tyro.cli(
        flags,
        prog=f"vla train {recipe}",
        args=list(argv),
        # a setting that may be absent (None) keeps the kind it has in the recipe
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
    )


def load_recipe(path: Path) -> Any:
    """What ``config()`` of a recipe file returns."""
    if not path.is_file():
        there = sorted(str(p) for p in Path("configs").glob("*.py"))
        known = f"Recipes here: {', '.join(there)}." if there else "There is no configs/ folder here."
        raise ConfigError(f"No recipe at {path}. {known}")
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a recipe: expected a Python file ending in .py.")
    module = importlib.util.module_from_spec(spec)
    with recipe_errors(path):
        spec.loader.exec_module(module)
    if not callable(getattr(module, "config", None)):
        raise ConfigError(f"{path} is not a recipe: it has no function config().")
    with recipe_errors(path):
        return module.config()
