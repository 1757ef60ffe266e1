"""Find the unlearning methods and the attacks: one class per file of `rtt/methods/` and `rtt/attacks/`.

A plug-in is found by its file, so nothing names it: the study's settings, the planner, the figures and the reference
pages ask here. The files are imported by name, and import torch only inside functions: the Snakefile comes this way.
"""

import importlib
from functools import cache
from pathlib import Path

from rtt.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
BASE = "base"  # the module that holds what a folder's plug-ins share


@cache
def found(folder: str) -> dict[str, type]:
    """Return {name: class} of the plug-ins in `folder`, "methods" or "attacks", in their order.

    Raises UserError for a file without a plug-in, with several, or with a name that another file has.
    """
    base = importlib.import_module(f"rtt.{folder}.{BASE}").Plugin
    classes: dict[str, type] = {}
    for path in sorted((PACKAGE / folder).glob("*.py")):
        if path.stem in (BASE, "__init__"):
            continue
        module = importlib.import_module(f"rtt.{folder}.{path.stem}")
        own = [
            one for one in vars(module).values()
            if isinstance(one, type) and issubclass(one, base) and one.__module__ == module.__name__
        ]  # fmt: skip
        if len(own) != 1:
            names = ", ".join(one.__name__ for one in own) or "none"
            raise UserError(f"{path}: found {names}; expected one subclass of {base.__name__}, with its name")
        if own[0].name in classes:
            other = classes[own[0].name].__module__
            raise UserError(f"{path}: {own[0].name!r} is the name of {other}, too; each needs its own")
        classes[own[0].name] = own[0]
    return dict(sorted(classes.items(), key=lambda item: (item[1].order, item[0])))


def methods() -> dict[str, type]:
    """Return {name: class} of the unlearning methods."""
    return found("methods")


def attacks() -> dict[str, type]:
    """Return {name: class} of the attacks."""
    return found("attacks")


def module_of(name: str) -> str:
    """Return the module, below `rtt`, that holds the method or attack `name`; "" for an external model's name."""
    plugin = {**methods(), **attacks()}.get(name)
    return plugin.__module__.removeprefix("rtt.") if plugin else ""
