"""What headline.csv says of a view's attack, retain budget, look choice and probe: a verdict per facts and method."""

from collections.abc import Sequence
from functools import lru_cache

import pandas as pd

from rtt.figures.view import Panel, View
from rtt.stats.headline import cells
from rtt.stats.probes import COLUMNS as PROBES_COLUMNS
from rtt.stats.runs import RUN_COLUMNS
from rtt.stats.seeds import seed_table
from rtt.study.names import DEFAULT


@lru_cache(maxsize=2)
def outcomes(view: View) -> pd.DataFrame:
    """Return headline.csv's rows of what a view shows. They are shared: change nothing in them."""
    probes_asked = dict.fromkeys(view.everything.loc[view.everything["variant"] == DEFAULT, "probe"])
    shown = pd.concat([view.alternative(probe=probe) for probe in probes_asked])
    seeds = view.over_seeds
    if seeds is None:
        seeds = seed_table(pd.DataFrame(columns=RUN_COLUMNS), shown)
    probes = pd.DataFrame(columns=PROBES_COLUMNS) if view.probes is None else view.probes
    return cells(shown, view.probe, probes, seeds)


def of_panels(table: pd.DataFrame, panels: Sequence[Panel]) -> pd.DataFrame:
    """Return the rows of these panels."""
    own = {(panel.dataset, panel.model, panel.arm) for panel in panels}
    keys = zip(table["dataset"], table["model"], table["arm"], strict=True)
    return table[[key in own for key in keys]]
