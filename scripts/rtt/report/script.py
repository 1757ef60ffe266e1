"""The page's one script (templates/page.js) and what it reads, so that the page's policy can let nothing else run."""

import base64
import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from markupsafe import Markup


@dataclass(frozen=True)
class Script:
    """The page's one script, and its hash, by which the page's policy lets it run and no other."""

    text: Markup
    hash: str


def script() -> Script:
    """Return the script (templates/page.js)."""
    text = resources.files("rtt.report").joinpath("templates/page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(Markup(text), f"sha256-{digest}")


def as_json(value: Any) -> Markup:
    """Return data as JSON for a script element: nothing in it can end the element, or be read as HTML."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
