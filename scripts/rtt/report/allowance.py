"""A retain budget in points of accuracy: 10 % of .81 is less than 10 % of 1.00."""

from typing import Any

from rtt.figures.phrases import listed
from rtt.figures.style import number, percent
from rtt.figures.view import View
from rtt.report.inputs import part
from rtt.report.rows import probe_name


def allowance(view: View, study: dict[str, Any]) -> str:
    """Say how far the view's budget lets retain accuracy fall on each panel's facts, by each retain probe of the point
    choice; of several seeds, on average.
    """
    named = part(study, "point_choice").get("retain_probe")
    asked = set(view.everything["probe"])
    probes = [probe for probe in ([named] if isinstance(named, str) else named or []) if probe in asked]
    texts = [f"by {probe_name(probe)} fall by {_falls(view, probe)}" for probe in probes or [view.probe]]
    return f"A budget of {percent(view.budget)} lets retain accuracy {'; '.join(texts)}."


def _falls(view: View, probe: str) -> str:
    """Say by how much, and from where, on each panel's facts."""
    rows, texts = view.alternative(probe=probe), []
    for panel in view.panels:
        mine = (rows["dataset"] == panel.dataset) & (rows["model"] == panel.model) & (rows["arm"] == panel.arm)
        before = float(rows.loc[mine, "retain_before"].mean())
        texts.append(f"{number(view.budget * before)} from {number(before)} ({panel.facts})")
    return listed(texts)
