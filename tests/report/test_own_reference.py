"""The project's own results, `results/reference/`: of today's tables, a fit to the default study, and small."""

import pytest
from places import ROOT
from rtt.figures import render
from rtt.report import reference
from rtt.study import plugins
from rtt.study.expand import Runs
from rtt.study.load import load_study
from rtt.study.names import STRONGEST_ATTACK

HOW = "draw the bundle again with today's code and bundle that: see docs/bundle.md#the-projects-own-results"
ATTACKS = ROOT / "results/reference/attacks"
STUDIES = {"config.yaml": True, "seeds.yaml": True, "smoke.yaml": False}
BUNDLES = sorted((ROOT / "results/reference").glob("*.zip"))


@pytest.fixture(scope="module")
def own():
    found = reference.read(folder=ROOT / "results/reference")
    assert found is not None, HOW
    return found


def test_it_is_one_small_bundle():
    assert len(BUNDLES) == 1 and BUNDLES[0].stat().st_size <= 10e6


def test_it_is_ten_fresh_seeds_and_the_default_study_is_one_more(own):
    assert own.own_view().seeds == list(range(21, 31))
    fits = {name: own.fits(Runs(load_study(ROOT / "config" / name), ROOT).plan()["study"]) for name in STUDIES}
    assert fits == STUDIES


def test_readme_shows_its_first_figure_as_it_is_drawn_today(own):
    [drawn] = render("steps", own.own_view(), [".svg"])
    shown = ROOT / "docs/images/figure-1.svg"
    assert drawn == shown.read_bytes(), f"{HOW}, then: python -m rtt figure steps --tables TABLES --out {shown}"
    assert "(docs/images/figure-1.svg)" in (ROOT / "README.md").read_text()


def test_every_attack_on_five_fresh_seeds_is_a_small_bundle_beside_it():
    """`results/reference/attacks/`, of config/attacks.yaml, and docs/measurements.md shows its figure."""
    [bundle] = ATTACKS.glob("*.zip")
    assert sum(path.stat().st_size for path in [bundle, *BUNDLES]) <= 10e6
    found = reference.read(folder=ATTACKS)
    assert found is not None, HOW
    assert found.own_view().seeds == list(range(31, 36))
    assert found.fits(Runs(load_study(ROOT / "config/attacks.yaml"), ROOT).plan()["study"])
    shown = {name for name, plugin in plugins.attacks().items() if not plugin.control} - {"t_shots"}
    assert set(found.tables["recovery"]["attack"]) == shown | {"RTT", STRONGEST_ATTACK}
    assert "(images/attacks.svg)" in (ROOT / "docs/measurements.md").read_text()
