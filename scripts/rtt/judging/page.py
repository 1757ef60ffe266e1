"""A verdict's page, `verdict.html`, beside its JSON and the study's whole report; all are written, or none."""

import json
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from typing import Any

from jinja2 import ChoiceLoader, PackageLoader

from rtt.figures.style import PROBES, interval
from rtt.figures.tables import load
from rtt.figures.view import make_view
from rtt.files import atomic_path
from rtt.judging.answer import answer
from rtt.judging.request import Prepared, Request
from rtt.report.images import steps
from rtt.report.page import environment

PAGE, JSON, REPORT = "verdict.html", "verdict.json", "report.html"


def write(prepared: Prepared) -> list[str]:
    """Write page, JSON and report; return what to say about them, the cautions first."""
    found = answer(prepared)
    text, report = render(found, prepared), (prepared.results / REPORT).read_bytes()
    files = {
        PAGE: text.encode(), REPORT: report,
        JSON: (json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(),
    }  # fmt: skip
    with ExitStack() as stack:
        for name, content in files.items():
            stack.enter_context(atomic_path(prepared.out / name)).write_bytes(content)
    return ["", *found["cautions"], found["sentence"], f"page: {prepared.out / PAGE}", f"JSON: {prepared.out / JSON}"]


def render(found: dict[str, Any], prepared: Prepared) -> str:
    """Return the page."""
    tables = prepared.results / "tables"
    view = make_view(*load(tables))
    made = environment()
    made.loader = ChoiceLoader([PackageLoader("rtt", "judging/templates"), made.loader])
    made.filters |= {"probe": lambda name: PROBES.get(name, name), "ends": ends}
    return made.get_template("verdict.html.j2").render(
        found=found, steps=steps(1, view, tables.as_posix()), commands=commands(prepared),
        results=prepared.results.as_posix(),
    )  # fmt: skip


def commands(prepared: Prepared) -> list[str]:
    """Return the commands that give the verdict again, run its study on a cluster, and pack it."""
    asked, words = prepared.kept["asked"], ["python", "-m", "rtt", "verdict"]
    for key in (one.name for one in fields(Request)):
        if value := asked[key]:
            words += [f"--{key.replace('_', '-')}", *(value if isinstance(value, list) else [value])]
    run = ["python", "-m", "rtt", "run"]
    study = ["--configfile", prepared.study_file.as_posix()]
    return [
        shlex.join([*words, "--out", prepared.out.as_posix()]),
        shlex.join([*run, *study, "--", "--workflow-profile", "profiles/slurm"]),
        shlex.join([*run, "bundle", *study]),
    ]


def ends(values: Sequence[float | None]) -> str:
    """Write a value with its interval, `.83 [.77, .88]`; an unknown one as a dash."""
    return interval(*(float("nan") if one is None else one for one in values))
