"""Print the layers of the package: its rooms, the arrows between them, and any cycle.

A room is a folder of `scripts/rtt` or a single module beside the folders; an arrow leads from a room to one that it
imports, at the top of a module or inside a function. `python scripts/layers.py [FOLDER]` prints the rooms floor by
floor: a room stands one floor above the highest room that it imports.
"""

import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from rtt.code_version import imported

PACKAGE = Path(__file__).parent / "rtt"


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Return {dotted name below the package: file}; a folder's `__init__.py` has the folder's name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


@cache
def imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Return {module: the package's modules that it imports}, wherever in the module the import stands."""
    known = modules(package)
    return {module: (imported(package, module) & known.keys()) - {module} for module in known}


def rooms(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Return {room: the rooms that it imports}."""
    found: dict[str, set[str]] = {}
    for module, targets in imports(package).items():
        room = module.split(".")[0]
        found.setdefault(room, set()).update(target.split(".")[0] for target in targets)
    return {room: targets - {room} for room, targets in found.items()}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return one cycle of a graph, the first node repeated at its end; [] where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """Return {room: floor} of a graph without cycles: 0 for a room that imports none."""
    heights: dict[str, int] = {}
    for room in TopologicalSorter(graph).static_order():
        heights[room] = 1 + max((heights[target] for target in graph.get(room, ())), default=-1)
    return heights


def main(folder: str | None = None) -> None:
    """Print the layers of a package, this one by default."""
    package = Path(folder).resolve() if folder else PACKAGE
    graph = rooms(package)
    arrows = sum(map(len, graph.values()))
    print(f"{len(graph)} rooms, {arrows} arrows, {len(modules(package))} modules")
    if found := cycle(graph):
        print("cycle:", " -> ".join(found))
        return
    print("no cycle")
    heights = floors(graph)
    for floor in sorted(set(heights.values())):
        print(f"floor {floor}: {', '.join(sorted(room for room in graph if heights[room] == floor))}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
