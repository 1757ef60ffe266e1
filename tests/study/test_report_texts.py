"""`report_texts`: off in every shipped study whose questions should not spread, and without a say in any run."""

from pathlib import Path

import pytest
import yaml
from rtt.study.expand import Runs
from rtt.study.load import load_study

CONFIG = Path(__file__).resolve().parents[2] / "config"
GUARDED = [path for path in sorted(CONFIG.rglob("*.yaml")) if "source: wmdp" in path.read_text()]


@pytest.mark.parametrize("path", GUARDED, ids=lambda path: path.stem)
def test_no_shipped_study_shows_the_questions_of_wmdp(path):
    assert yaml.safe_load(path.read_text())["report_texts"] is False
    assert load_study(path).canonical()["report_texts"] is False


def test_there_are_such_studies_and_others_show_theirs():
    assert CONFIG / "paper.yaml" in GUARDED and len(GUARDED) == 6
    shown = load_study(CONFIG / "config.yaml")
    assert shown.report_texts and "report_texts" not in shown.canonical()  # as in a runs.json without the key


def test_it_renames_no_run():
    study = load_study(CONFIG / "smoke.yaml")
    silent = study.model_copy(update={"report_texts": False})
    one, other = Runs(study), Runs(silent)
    assert [spec.run_id for spec in one.specs()] == [spec.run_id for spec in other.specs()]
    plans = [{**runs.plan(), "study": None} for runs in (one, other)]
    assert plans[0] == plans[1] and other.plan()["study"]["report_texts"] is False
