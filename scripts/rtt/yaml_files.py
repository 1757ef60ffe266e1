"""Read YAML that people write: studies, model files, site files. What could hang, run out of memory or be misread is
refused with its line.
"""

import stat
from pathlib import Path
from typing import Any

import yaml

from rtt.errors import CONTROL, UserError

MOST_BYTES = 1 << 20  # a study of 2000 grid values has 30 kB
MOST_DEPTH = 40
MOST_NODES = 20_000  # with each anchor counted as often as it is named
MOST_DIGITS = 300  # what a float can hold, written out


class _Loader(yaml.SafeLoader):
    """YAML without dates, which no file of ours holds: 2024-01-01 is a text.

    Refuses a key that stands twice in one mapping, where PyYAML would silently take the last, keys that are no texts,
    anchors that contain themselves or grow without end, and texts that steer a terminal.
    """

    def compose_document(self):
        node = super().compose_document()
        self.sizes: dict[int, int | None] = {}
        self._size(node)
        return node

    def _size(self, node) -> int:
        """Return how many nodes stand below this one when every anchor is written out."""
        if not isinstance(node, yaml.CollectionNode):
            return 1
        if id(node) in self.sizes:
            if self.sizes[id(node)] is None:
                raise _wrong("this anchor contains itself", node.start_mark)
            return self.sizes[id(node)]
        self.sizes[id(node)] = None
        pairs = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        size = 1 + sum(map(self._size, pairs))
        if size > MOST_NODES:
            raise _wrong(f"more than {MOST_NODES:,} values, with anchors written out", node.start_mark)
        self.sizes[id(node)] = size
        return size

    def compose_mapping_node(self, anchor):
        node, seen = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                found = f"the key {key.value!r:.60} is no text" if isinstance(key.value, str) else "a key is no text"
                raise _wrong(f"{found}; write a name, or put it in quotes", key.start_mark)
            if (key.tag, key.value) in seen:
                raise _wrong(f"the key {key.value!r:.60} stands twice", key.start_mark)
            seen.add((key.tag, key.value))
        return node

    def compose_scalar_node(self, anchor):
        node = super().compose_scalar_node(anchor)
        if bad := CONTROL.search(node.value):
            raise _wrong(f"a text holds the character {bad[0]!a}, which cannot be printed; remove it", node.start_mark)
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and node.style is None:
            if len(node.value) > MOST_DIGITS:
                raise _wrong(f"a number of {len(node.value)} digits is too large", node.start_mark)
            if ":" in node.value:
                said = f"YAML reads {node.value} as a number to the base 60"
                raise _wrong(f"{said}; write a number, or put it in quotes", node.start_mark)
        return node

    def construct_object(self, node, deep=False):
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            found = node.value if isinstance(node, yaml.ScalarNode) else "this"
            raise _wrong(f"{found!r:.60} cannot be read: {error}", node.start_mark) from None


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Refused(yaml.MarkedYAMLError):
    """YAML that is none of ours."""


def _wrong(problem: str, mark) -> _Refused:
    return _Refused(problem=problem, problem_mark=mark)


def read_yaml(path: str | Path, what: str, keys: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping, and return it.

    `what` names the kind of file and `keys` its first keys; both serve messages alone. Raises UserError when the file
    is missing, is not YAML or not a mapping, or holds what `_Loader` refuses.
    """
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
            raise UserError(f"{path}: found {kind}, expected a {what}")
        if found.st_size > MOST_BYTES:
            raise UserError(f"{path}: {found.st_size:,} bytes, more than the {MOST_BYTES:,} that a {what} may have")
        text = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such {what}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"{str(path)!a}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    raw = parse_yaml(_utf8(text, path), path)
    if not isinstance(raw, dict):
        kind = "an empty file" if raw is None else f"a {type(raw).__name__}"
        raise UserError(f"{path}: expected keys and values ({keys}), found {kind}")
    return raw


def _utf8(text: bytes, path: str | Path) -> str:
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: wrong encoding: UTF-16; save the file as UTF-8")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from None


def parse_yaml(text: str, source: str | Path) -> Any:
    """Return the value of a YAML text; `source` names it in messages. Raises UserError as `read_yaml`."""
    try:
        depth = 0
        for number, event in enumerate(yaml.parse(text, Loader=_Loader)):  # by steps, where the rest recurs
            if number > 2 * MOST_NODES:
                raise _wrong(f"more than {MOST_NODES:,} values", event.start_mark)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_DEPTH:
                raise _wrong(f"more than {MOST_DEPTH} levels deep", event.start_mark)
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}" if mark else f"{source}"
        said = "" if isinstance(error, _Refused) else f"not a YAML file: {error.context or ''} "
        raise UserError(f"{place}: {said}{error.problem}".replace("  ", " ")) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{source}:{line}: not a YAML file: found {chr(error.character)!a}; remove it") from None
