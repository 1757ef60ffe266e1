"""Hold the keys of studies and specs to tests/data/spec_keys.json, so that no change renames other people's runs.

The file lists the keys of every model that a spec or a study is made of. A key that is not listed must carry its
introduction value (`rtt.study.strict.Introduced`), unless its whole model is new, as the settings of a new method are.
`python scripts/spec_keys.py` adds such keys to the file, and refuses every other difference.
"""

import json
import sys
import typing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from rtt.study.schema import Chosen, Study  # noqa: E402
from rtt.study.specs import SPECS  # noqa: E402
from rtt.study.strict import Strict, introduced  # noqa: E402

FILE = ROOT / "tests/data/spec_keys.json"
Keys = dict[str, dict]  # model -> {"keys": those from before ids were frozen, "introduced": {key: introduction value}}


def models(*roots: type[Strict]) -> dict[str, type[Strict]]:
    """Return {name: model} of all models that these are made of, themselves included."""
    found: dict[str, type[Strict]] = {}
    waiting = list(roots)
    while waiting:
        kind = waiting.pop()
        if not (isinstance(kind, type) and issubclass(kind, Strict)):
            waiting += typing.get_args(kind)
        elif found.setdefault(kind.__name__, kind) is not kind:
            raise ValueError(f"{kind} and {found[kind.__name__]} have the same name; rename one")
        else:
            new = [*kind.__bases__, *(field.annotation for field in kind.model_fields.values())]
            waiting += [one for one in new if one not in found.values()]
    return found


def keys_of(*roots: type[Strict]) -> Keys:
    """Return the keys of all models that these are made of; an inherited key stands at the model that defines it."""
    found = {}
    for name, model in sorted(models(*roots).items()):
        if issubclass(model, Chosen) or not model.model_fields:  # Chosen: its keys are the plug-ins that are here
            continue
        own = [key for key in model.model_fields if key in model.__annotations__]
        later = {key: value for key, value in introduced(model).items() if key in own}
        found[name] = {"keys": sorted(set(own) - set(later)), "introduced": later}
    return found


def current() -> Keys:
    """Return the keys of specs and studies as the code has them now."""
    return keys_of(Study, *SPECS.values())


def checked(known: Keys, now: Keys) -> Keys:
    """Return `known` with what is new in `now`. Raises ValueError for a change that renames runs or loses files."""
    wrong = []
    for name in sorted(known.keys() - now.keys()):
        wrong.append(f"{name} is gone; spec files that hold it could not be read any more")
    for name in sorted(known.keys() & now.keys()):
        was, found = known[name], now[name]
        for key in found["keys"]:
            if key in was["introduced"]:
                wrong.append(
                    f"{name}.{key}: its introduction value is gone; it is {was['introduced'][key]!r}, for ever"
                )
            elif key not in was["keys"]:
                wrong.append(f"{name}.{key} is new: give it Introduced(what happened before it existed)")
        for key, value in found["introduced"].items():
            if key in was["keys"]:
                wrong.append(f"{name}.{key}: was there before ids were frozen, so it has no introduction value")
            elif was["introduced"].get(key, value) != value:
                wrong.append(f"{name}.{key}: the introduction value {was['introduced'][key]!r} became {value!r}")
        for key in sorted({*was["keys"], *was["introduced"]} - {*found["keys"], *found["introduced"]}):
            wrong.append(f"{name}.{key} is gone; spec files that hold it could not be read any more")
    if wrong:
        raise ValueError("\n".join(["these changes of settings would rename runs (CONTRIBUTING.md):", *wrong]))
    return known | now


def text() -> str:
    """Return what spec_keys.json should hold. Raises ValueError as `checked`."""
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return json.dumps(checked(known, current()), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(FILE.relative_to(ROOT))
