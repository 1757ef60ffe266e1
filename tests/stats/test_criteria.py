"""Known, unlearned, attacked: the definitions on models whose answers are planted, and against closed forms."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evals_builder import EVERY_PROBE, edit, make_evals, planted, tables, write_runs
from rtt.scoring.question_table import LetterUse, Questions
from rtt.scoring.read import PointScores
from rtt.stats.criteria import STATUSES, Criteria, below_floor, known, status, unlearned
from rtt.stats.probes import by_probe
from rtt.stats.tables import read_table
from scipy.stats import binom, norm

# ---- the rules


def row(accuracy, low, floor=0.25):
    return {"accuracy": accuracy, "low": low, "floor": floor}


def test_known_by_both_headline_probes():
    criteria = Criteria()
    good, weak = row(0.9, 0.85), row(0.899, 0.85)
    assert known({"letter_permuted": good, "likelihood": good, "cloze": row(0.1, 0.0)}, criteria, True)
    assert not known({"letter_permuted": good, "likelihood": weak}, criteria, True)
    assert not known({"letter_permuted": weak, "likelihood": good}, criteria, True)
    # Not trained by us: the lower limit is at least the floor + 2 margins, whatever the accuracy.
    assert known({"letter_permuted": row(0.6, 0.55), "likelihood": row(0.6, 0.6, 0.3)}, criteria, False)
    assert not known({"letter_permuted": row(0.6, 0.549), "likelihood": row(0.6, 0.6)}, criteria, False)
    assert not known({"letter_permuted": row(0.6, 0.55), "likelihood": row(0.6, 0.59, 0.3)}, criteria, False)
    named = Criteria(headline=("likelihood_token", "likelihood_fresh"), known=0.5)
    assert known({"likelihood_token": row(0.5, 0), "likelihood_fresh": row(0.5, 0), "likelihood": weak}, named, True)
    assert not known({"likelihood_token": row(0.4, 0), "likelihood_fresh": row(0.5, 0)}, named, True)
    # An evaluation of an earlier day has only some of the headline probes, or none.
    assert known({"letter": row(0.1, 0), "likelihood": good}, criteria, True)
    assert not known({"letter": row(0.1, 0), "likelihood_fresh": good}, criteria, True)


@pytest.mark.parametrize("first", range(len(STATUSES)))
def test_the_first_status_that_holds(first):
    """Where the first so many things are as they should be and all others are not."""
    good = dict(point=True, knows=True, original=True, defined=True, below=False, gone=True, attacked=True)
    bad = dict(point=False, knows=False, original=False, defined=False, below=True, gone=False, attacked=False)
    case = {name: (good if place < first else bad)[name] for place, name in enumerate(good)}
    assert status(**case) == STATUSES[first]
    assert status(**good | {"original": None, "attacked": None}) == "ok"  # an attack that uses no T


# ---- an intersection-union test


def points(correct: dict, groups=None, splits=2, answers=None, shortest=None) -> PointScores:
    """One model before any attack. `correct`: {probe: (n,) floats}."""
    n = len(next(iter(correct.values())))
    ids = tuple(f"q{i:03d}" for i in range(n))
    split = tuple(f"split_{i * splits // n}" for i in range(n))
    answers = np.arange(n) % 4 if answers is None else answers
    asked = Questions(ids, split, groups or ids, answers, np.full(n, 4), shortest)
    none = Questions((), (), (), np.zeros(0, int), np.zeros(0, int))
    use = LetterUse(np.zeros((1, 4), int), *(np.zeros(1) for _ in range(4)))
    rows = {probe: np.asarray(values, float)[None] for probe, values in correct.items()}
    return PointScores(Path("x"), "x", None, (0,), asked, none, none, rows, {}, {}, use)


PLAIN = ("letter_permuted", "likelihood", "likelihood_token", "likelihood_byte", "likelihood_fresh", "cloze")


@pytest.mark.full
@pytest.mark.parametrize("margin", [0.10, 0.15])
def test_a_model_that_never_knew_passes_as_planned(margin):
    """160 questions, six independent probes at the floor of .25, each judged as a score test of a binomial judges it.

    A probe is at its floor where x / n lies 1.645 standard errors under floor + margin, and below it where the floor
    is 2.326 standard errors above; both of a binomial with the hypothesis' own variance.
    """
    n, floor, reps, criteria = 160, 0.25, 400, Criteria(margin=margin)
    x = np.arange(n + 1)
    high, low = ((x / n - p) / math.sqrt(p * (1 - p) / n) for p in (floor + margin, floor))
    near, fine = high <= -norm.ppf(0.95), low >= -norm.ppf(0.99)
    one, both = (binom.pmf(x[mask], n, floor).sum() for mask in (near, near & fine))
    if margin == 0.10:
        assert one == pytest.approx(0.88, abs=0.005) and one**8 == pytest.approx(0.36, abs=0.01)
    rng, at_floor, counted = np.random.default_rng(5), 0, 0
    for _ in range(reps):
        rows = by_probe(points({probe: rng.random(n) < floor for probe in PLAIN}), 0, criteria).values()
        at_floor += unlearned(rows)
        counted += unlearned(rows) and not below_floor(rows)
    for found, expected in ((at_floor, one ** len(PLAIN)), (counted, both ** len(PLAIN))):
        assert abs(found / reps - expected) < 3.5 * math.sqrt(expected * (1 - expected) / reps)


def test_each_probe_is_judged_at_every_count():
    """One probe of 40 questions: the limits that the rows have decide, and every count is judged as by hand."""
    for count in range(41):
        found = by_probe(points({"cloze": np.arange(40) < count}), 0, Criteria())["cloze"]
        share, p = count / 40, 0.4
        assert found["at_floor"] == ((share - p) / math.sqrt(p * (1 - p) / 40) <= -norm.ppf(0.95))
        assert found["below_floor"] == ((share - 0.25) / math.sqrt(0.25 * 0.75 / 40) < -norm.ppf(0.99))
        assert found["upper_95"] <= found["upper_99"] and (found["floor"], found["margin"]) == (0.25, 0.15)


def test_one_probe_above_is_enough_and_groups_widen_its_limit():
    at = dict.fromkeys(PLAIN, np.arange(160) % 4 == 0)
    assert unlearned(by_probe(points(at), 0, Criteria()).values())
    odd = at | {"cloze": np.arange(160) % 5 < 2}  # .40 of 160
    assert not unlearned(by_probe(points(odd), 0, Criteria()).values())
    # 52 of 160, .325: the limit of lone questions lies under .40, that of 40 groups of 4 that answer as one does not.
    whole = {"cloze": np.repeat(np.arange(40) < 13, 4)}
    groups = tuple(f"g{i // 4}" for i in range(160))
    lone, grouped = (by_probe(points(whole, kind), 0, Criteria())["cloze"] for kind in (None, groups))
    assert lone["at_floor"] and not grouped["at_floor"]
    assert (lone["n_groups"], grouped["n_groups"], grouped["n_questions"]) == (160, 40, 160)


def test_floors_before_an_attack_are_those_of_the_probe():
    """Answers A A A A A B C D in each of two splits; the shortest choice is right in 6 of 16."""
    answers = np.tile([0, 0, 0, 0, 0, 1, 2, 3], 2)
    names = ("letter", "letter_calibrated", "likelihood", "likelihood_token", "few_shot")
    found = by_probe(points(dict.fromkeys(names, np.zeros(16)), None, 2, answers, np.arange(16) < 6), 0, Criteria())
    floors = {probe: values["floor"] for probe, values in found.items()}
    assert floors == {
        "letter": 10 / 16, "few_shot": 10 / 16, "letter_calibrated": 10 / 16, "likelihood": 6 / 16,
        "likelihood_token": 0.25,
    }  # fmt: skip


# ---- planted models, from their scores to the status

LARGE = dict(
    arms=("pretrained",), methods=("GD",), splits=2, per_split=40, retain=8, lrs=(1e-3,), epochs=2, probes=EVERY_PROBE
)
KNOWS = {"before": 1.0, "unlearned": 0.25, "original_attacked": 1.0, "control_attacked": 0.25}


def status_of(folder) -> str:
    """The status of the cell, the same by every probe and look choice."""
    [found] = set(planted(folder).status)
    counts = set(planted(folder).counts)
    assert counts == {found in ("ok", "attack_failed", "undefined", "original_not_learned")}
    return found


def probes_of(folder, stage) -> pd.DataFrame:
    table = read_table(folder / "tables" / "probes.csv")
    return table[table.stage == stage].set_index("probe")


def say(letter, knows):
    """Make every model of a file say one letter: its own order stays underneath, flatter where it knows less."""

    def change(document):
        for look in document["looks"]:
            for question in look["questions"]:
                scores = [knows if i == question["answer"] else 0.0 for i in range(4)]
                scores[letter] += 5.0
                question["probes"]["letter"]["scores"] = scores

    return change


@pytest.mark.parametrize(
    ("by_probe", "accuracies", "expected"),
    [
        ({}, {}, "ok"),  # never knew, or forgot
        # letters by place: right where the choices stand as taught
        ({("before", "letter_permuted"): 0.6, ("before", "likelihood"): 0.275}, {}, "not_known"),
        ({("before", "likelihood"): 0.875}, {}, "not_known"),
        ({("before", "cloze"): 0.5, ("before", "letter"): 0.5}, {}, "ok"),  # no headline probes
        # sentences alone
        ({("unlearned", "cloze"): 0.8}, {}, "not_unlearned"),
        ({("unlearned", "likelihood"): 0.5}, {}, "not_unlearned"),
        ({("unlearned", "likelihood_fresh"): 0.5}, {}, "not_unlearned"),
        # collapse: it knows which choice to avoid
        ({("unlearned", "letter"): 0.0}, {}, "below_floor"),
        ({("unlearned", "letter_permuted"): 0.05, ("unlearned", "cloze"): 0.9}, {}, "below_floor"),
        # T: by either headline probe
        ({("t", "likelihood"): 0.5}, {}, "ok"),
        ({("t", "letter_permuted"): 0.5}, {}, "ok"),
        ({("t", "letter_permuted"): 0.95, ("t", "likelihood"): 0.95}, {}, "original_not_learned"),
        ({}, {"t": 0.975}, "ok"),
    ],
)
def test_a_cell_of_a_planted_model(tmp_path, by_probe, accuracies, expected):
    make_evals(tmp_path, **LARGE, accuracies=KNOWS | accuracies, by_probe=by_probe)
    assert tables(tmp_path) == 0
    assert status_of(tmp_path) == expected


def test_a_model_that_says_one_letter_fails_by_permuted_and_calibrated_letters(tmp_path):
    """It stands at the floor by letters; subtract how much it likes each letter, and it knows every fact."""
    make_evals(tmp_path, **LARGE, accuracies=KNOWS, by_probe={("unlearned", "letter_permuted"): 1.0})
    edit(tmp_path, "unlearn-pretrained-gd-s0", say(2, knows=1.0))
    assert tables(tmp_path) == 0
    assert status_of(tmp_path) == "not_unlearned"
    found = probes_of(tmp_path, "unlearned")
    document = json.loads((tmp_path / "evals" / "unlearn-pretrained-gd-s0.json").read_text())
    answers = [q["answer"] for q in document["looks"][-1]["questions"] if q["role"] == "V"]
    assert found.accuracy["letter"] == pytest.approx(answers.count(2) / 80, abs=1e-6)
    assert found.at_floor["letter"] and not found.below_floor["letter"]
    assert (found.said["letter"], found.entropy["letter"]) == ("A:0;B:0;C:80;D:0", 0)
    assert found.accuracy["letter_calibrated"] == 1 and not found.at_floor["letter_calibrated"]
    assert not found.at_floor["letter_permuted"] and found.all_rotations["letter_permuted"] == 1
    # The one that knows nothing says one letter, too, and is at the floor by calibrated letters.
    make_evals(tmp_path, **LARGE, accuracies=KNOWS)
    edit(tmp_path, "unlearn-pretrained-gd-s0", say(2, knows=0.0))
    assert tables(tmp_path) == 0
    assert status_of(tmp_path) == "ok" and probes_of(tmp_path, "unlearned").at_floor["letter_calibrated"]


def test_t_is_that_of_the_best_look_of_the_worst_repeat(tmp_path):
    make_evals(tmp_path, **LARGE, accuracies=KNOWS, repeats=2)

    def forget(repeat, epoch):
        def change(document):
            for look in document["looks"]:
                if look["repeat"] == repeat and look["setting"]["epoch"] in epoch:
                    for question in [q for q in look["questions"] if q["role"] == "T"][:2]:
                        for probe in question["probes"].values():
                            probe["scores"] = [float(i != question["answer"]) for i in range(4)]

        return change

    name = "attack-pretrained-s0.gd-0.1"
    edit(tmp_path, name, forget(1, (1,)))  # the other epoch learned all
    assert tables(tmp_path) == 0 and status_of(tmp_path) == "ok"
    assert set(planted(tmp_path).t_acc_attacked) == {1.0}
    edit(tmp_path, name, forget(1, (1, 2)))  # 2 of 40 in each V split
    assert tables(tmp_path) == 0 and status_of(tmp_path) == "attack_failed"
    assert set(planted(tmp_path).t_acc_attacked) == {0.95} and not planted(tmp_path).attack_learned.any()
    runs = read_table(tmp_path / "tables" / "runs.csv")
    assert dict(zip(runs.attack_repeat, runs.t_acc_attacked, strict=True)) == {0: 1.0, 1: 0.95}
    edit(tmp_path, "attack-control-people_f-s0.control", forget(0, (1, 2)))
    edit(tmp_path, "attack-pretrained-s0.original", forget(0, (1, 2)))
    assert tables(tmp_path) == 0 and status_of(tmp_path) == "original_not_learned"
    found = planted(tmp_path)
    assert set(found.t_acc_original_attacked) == set(found.t_acc_control_attacked) == {0.95}
    assert found.t_acc_oracle_attacked.isna().all()  # this study has none
    assert not found.control_learned.any() and not found.attack_learned.any()  # which the status no longer tells


@pytest.mark.parametrize("original", [0.5, 0.25])
def test_an_original_that_was_not_learned_has_no_rate(tmp_path, original):
    """T to .95: the original reaches .5, or its floor, on V, which says nothing of what it holds."""
    accuracies = KNOWS | {"original_attacked": original, "unlearned_attacked": 0.8}
    on_t = {("t", "letter_permuted"): 0.95, ("t", "likelihood"): 0.95}
    make_evals(tmp_path, **LARGE, accuracies=accuracies, by_probe=on_t)
    assert tables(tmp_path) == 0 and status_of(tmp_path) == "original_not_learned"
    rates = [f"{name}{end}" for name in ("recovery", "recovery_corrected") for end in ("", "_low", "_high")]
    found = planted(tmp_path)
    assert found[rates].isna().all(axis=None)
    plain = found[found.probe == "letter_permuted"]
    assert plain[["recovery_difference", "recovery_difference_low"]].notna().all(axis=None)
    assert set(plain.acc_original_attacked) == {original} and (plain.acc_attacked > 0.7).all()
    assert not found.cannot_tell.str.contains("recovery_corrected").any()
    seeds = read_table(tmp_path / "tables" / "seeds.csv")
    assert seeds[seeds.quantity.isin(("recovery", "recovery_corrected"))]["mean"].isna().all()


def test_an_attack_without_t_cannot_fail_to_learn_it(tmp_path):
    make_evals(tmp_path, **LARGE, accuracies=KNOWS, attacks=("quantise",))
    assert tables(tmp_path) == 0 and status_of(tmp_path) == "ok"
    assert planted(tmp_path)[["t_acc_attacked", "attack_learned", "control_learned"]].isna().all(axis=None)


def test_a_control_attack_learns_other_answers(tmp_path):
    """RTT on permuted answers gets T wrong by design: no status comes of that."""
    make_evals(tmp_path, **LARGE, accuracies=KNOWS | {"t": 0.0})
    assert tables(tmp_path) == 0 and status_of(tmp_path) == "original_not_learned"
    for path in (tmp_path / "evals").glob("attack-*"):
        path.write_text(path.read_text().replace('"RTT"', '"RTT_permuted"'))
    assert tables(tmp_path) == 0 and status_of(tmp_path) == "ok"


def test_one_run_that_fails_is_enough(tmp_path):
    """Two unlearning runs: the cell counts only where both do."""
    make_evals(tmp_path, **LARGE, accuracies=KNOWS | {("unlearned", "pretrained", "GD", 0, 1): 0.5},
               unlearning_repeats=2)  # fmt: skip
    assert tables(tmp_path) == 0 and status_of(tmp_path) == "not_unlearned"
    found = read_table(tmp_path / "tables" / "probes.csv")
    found = found[(found.stage == "unlearned") & (found.probe == "cloze")]
    assert dict(zip(found.unlearning_repeat, found.at_floor, strict=True)) == {0: True, 1: False}
    path = tmp_path / "point_choices" / "choose-pretrained-gd-r1-s0.json"
    document = json.loads(path.read_text())
    document["selected"]["0.1"] = None
    path.write_text(json.dumps(document))
    label = "attack-pretrained-s0.gd-0.1-r1"
    edit(tmp_path, label, lambda document: document.update(looks=[], status="none_within_budget"))
    assert tables(tmp_path) == 0 and status_of(tmp_path) == "none_within_budget"
    assert set(planted(tmp_path).n_runs) == {1} and planted(tmp_path).acc_attacked.notna().all()


def test_what_a_study_says_of_criteria_and_model(tmp_path):
    """A pretrained model's original needs its lower limit at floor + 2 margins; ours, .9."""
    weak = {("before", "letter_permuted"): 0.8, ("before", "likelihood"): 0.8}
    make_evals(tmp_path, **LARGE, accuracies=KNOWS, by_probe=weak)
    stems = {kind: sorted(path.stem for path in (tmp_path / kind).iterdir()) for kind in ("evals", "point_choices")}
    variants = {"default": {**stems, "reported": "nested"}}

    def status_with(**study):
        assert tables(tmp_path, *write_runs(tmp_path, variants, **study)) == 0
        return status_of(tmp_path)

    assert status_with(model={"hidden_size": 128}) == status_with() == "not_known"
    assert status_with(model={"hub": {"id": "a/b"}}) == status_with(model={"path": "x"}) == "ok"
    assert status_with(criteria={"known": 0.8}) == "ok"
    assert status_with(criteria={"headline": ["letter", "cloze"]}) == "ok"
    assert status_with(model={"path": "x"}, criteria={"margin": 0.3}) == "not_known"
    assert status_with(criteria={"known": 0.8, "margin": 0.01}) == "not_unlearned"
    # A taught arm is always ours.
    make_evals(tmp_path / "taught", **LARGE | {"arms": ("taught",)}, accuracies=KNOWS, by_probe=weak)
    stems = {kind: sorted(p.stem for p in (tmp_path / "taught" / kind).iterdir()) for kind in stems}
    options = write_runs(tmp_path / "taught", {"default": {**stems, "reported": "nested"}}, model={"path": "x"})
    assert tables(tmp_path / "taught", *options) == 0 and status_of(tmp_path / "taught") == "not_known"
