"""The study's criteria (`criteria` of a study file), as far as its tables have their probes."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from rtt.stats.criteria import Criteria


def criteria(study: dict[str, Any], probes: Collection[str]) -> Criteria:
    """Return the criteria of a study (as runs.json has it, {} without one), with headline probes among `probes`."""
    found = Criteria.read(Path("runs.json"), study.get("criteria"))
    return replace(found, headline=tuple(found.judges(probes)))
