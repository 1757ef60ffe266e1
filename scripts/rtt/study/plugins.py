"""Find the unlearning methods and the attacks: one class per file of `rtt/methods/` and `rtt/attacks/`.

A plug-in is found by its file, so nothing names it: the study's settings, the planner, the figures and the reference
pages ask here. The files are imported by name, and import torch only inside functions: the Snakefile comes this way.
"""

import importlib
import importlib.util
import inspect
import pkgutil
import traceback
from functools import cache
from itertools import pairwise
from pathlib import Path

from rtt.errors import UserError

FOLDERS = ("methods", "attacks")
BASE = "base"  # the module that holds what a folder's plug-ins share; it names their class `Plugin`

LAST = 100  # the order of a plug-in that gives none


@cache
def found(folder: str) -> dict[str, type]:
    """Return {name: class} of the plug-ins in `folder`, one of FOLDERS, in their order.

    Raises UserError for a file that cannot be imported, that has no plug-in or several, or one without all that a
    plug-in needs, and for a name that stands in two files.
    """
    package = importlib.import_module(f"rtt.{folder}")
    modules = sorted(one.name for one in pkgutil.iter_modules(package.__path__) if one.name != BASE)
    classes = [_plugin(f"rtt.{folder}", module) for module in modules]
    for one, other in pairwise(sorted(classes, key=lambda plugin: plugin.name)):
        if one.name == other.name:
            raise UserError(f"{_file(other)}: the name {one.name!r} stands in {_file(one)}, too; each needs its own")
    return {plugin.name: plugin for plugin in sorted(classes, key=lambda plugin: (plugin.order, plugin.name))}


def _plugin(package: str, name: str) -> type:
    """Import a module; return its plug-in."""
    base = importlib.import_module(f"{package}.{BASE}").Plugin
    try:
        module = importlib.import_module(f"{package}.{name}")
    except Exception as error:
        path = importlib.util.find_spec(f"{package}.{name}").origin
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        place = f"{path}:{lines[-1]}" if lines else path
        raise UserError(f"{place}: cannot be imported: {type(error).__name__}: {error}") from error
    own = [one for one in vars(module).values() if inspect.isclass(one) and issubclass(one, base)]
    own = [one for one in own if one.__module__ == module.__name__ and isinstance(vars(one).get("name"), str)]
    if len(own) != 1:
        names = ", ".join(one.__name__ for one in own) or "none"
        raise UserError(f"{module.__file__}: found {names}; expected one subclass of {base.__name__} with a `name`")
    absent = [key for key in inspect.get_annotations(base) if not hasattr(own[0], key)]
    if missing := sorted(own[0].__abstractmethods__) + absent:
        raise UserError(f"{module.__file__}: {own[0].__name__} does not define {', '.join(missing)}")
    return own[0]


def _file(plugin: type) -> Path:
    return Path(inspect.getfile(plugin))


def methods() -> dict[str, type]:
    """Return {name: class} of the unlearning methods."""
    return found("methods")


def attacks() -> dict[str, type]:
    """Return {name: class} of the attacks."""
    return found("attacks")


def place(folder: str, name: str) -> tuple[int, str]:
    """Return the sort key of a plug-in's name, the same whether or not its file is here: its order, then its name."""
    plugin = found(folder).get(name)
    return (plugin.order if plugin else LAST, name)


def module_of(folder: str, name: str) -> str:
    """Return the module, below `rtt`, that holds a plug-in; "" for a name that no file has, as an external model's."""
    plugin = found(folder).get(name)
    return plugin.__module__.removeprefix("rtt.") if plugin else ""


def of_plugin(classes: dict[str, type], name: str | None, raw, context: dict | None = None):
    """Return the settings of the plug-in `name` from what JSON or a study holds: its own class decides what is read.

    Raises ValueError for a name that no file has.
    """
    if not isinstance(raw, dict):
        return raw
    if name not in classes:
        raise ValueError(f"no plug-in {name!r}; there are {', '.join(classes) or 'none'}")
    return classes[name].Settings.model_validate(raw, context=context)
