"""The strongest attack against plain loops: its choice, its repeats, its V splits, what it learned, and its rows."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evals_builder import SMALL, make_evals, planted, tables, write_runs
from rtt.errors import UserError
from rtt.scoring.halves import halves
from rtt.scoring.read import AttackScores, Questions
from rtt.stats import reported, strongest
from rtt.stats.assemble import ArmScores
from rtt.stats.criteria import Criteria
from rtt.stats.learning import learning
from rtt.stats.strongest import Suite, above, choose, with_strongest
from rtt.stats.tables import read_table
from rtt.study import plugins

N, SPLITS = 24, ("split_0", "split_1", "split_2")
KEY = ("GD", 0.1, 0)


def questions(name="a"):
    answers = np.random.default_rng(3).integers(0, 4, N)
    ids = tuple(f"{name}/{i:03d}" for i in range(N))
    return Questions(ids, tuple(SPLITS[i // 8] for i in range(N)), ids, answers, np.full(N, 4))


def scores(
    attack, seed, looks=3, repeats=1, v_splits=SPLITS, uses_t=True, t=None, probes=("letter", "cloze"), name="a"
):
    """An attack whose answers are drawn at random; `t`: the accuracy on T, in every look, where it matters."""
    rng, asked = np.random.default_rng(seed), questions(name)
    correct = {}
    for probe in probes:
        drawn = (rng.random((repeats, looks, len(v_splits), N)) < 0.5).astype(float)
        if t is not None:
            for s, split in enumerate(v_splits):
                away = [i for i in range(N) if asked.splits[i] != split]
                drawn[:, :, s, away] = 0.0
                drawn[:, :, s, away[: round(t * len(away))]] = 1.0
        correct[probe] = drawn
    settings = tuple({"epoch": look} for look in range(looks))
    return AttackScores(Path(f"{attack}.json"), attack, None, "ok", attack, settings, v_splits, uses_t, asked, correct)


def arm(original, unlearned, controls=(), oracles=()):
    """An arm with one unlearned model."""

    def by_attack(some):
        return {one.attack: one for one in some}

    found = ArmScores(("people", "pretrained", "miniature", 0), original_attacked=by_attack(original))
    found.attacks = {(name, *KEY): one for name, one in by_attack(unlearned).items()}
    found.chosen = {KEY: ("run", 10)}
    found.controls, found.oracles = by_attack(controls), by_attack(oracles)
    return found


def by_hand(members, probe, repeat, v_splits=SPLITS):
    """[(attack, look, answers, guesses)] of every question, by loops; `members` are in the order of the study."""
    asked = members[0].questions
    here = [i for i in range(N) if asked.splits[i] in v_splits]
    first = halves(np.array([SPLITS.index(split) for split in asked.splits]), list(asked.groups))
    found = {}
    for half in (True, False):
        decide = [i for i in here if first[i] != half]
        best, best_value = None, None
        for one in members:
            names = [name for name in ("letter", "cloze") if name in one.correct and probe in (name, "strongest")]
            own, own_value = None, None
            for name, look in itertools.product(names, range(len(one.settings))):
                table = one.correct[name][min(repeat, len(one.correct[name]) - 1), look]
                right = {i: table[one.v_splits.index(asked.splits[i]), i] for i in here}
                floor = guess(asked, name, here)
                lead = round(sum(right[i] - floor[i] for i in decide), 9)
                if own is None or lead > own_value:
                    own, own_value = (one.attack, look, right, floor), lead
            a, f = (sum(values[i] for i in decide) / len(decide) for values in own[2:])
            value = round((a - f) / (1 - f), 9)
            if best is None or value > best_value:
                best, best_value = own, value
        for i in here:
            if first[i] == half:
                found[i] = (best[0], best[1], best[2][i], best[3][i])
    return [found[i] for i in here]


def guess(asked, probe, here):
    """T's majority letter on V where it beats drawing a choice; by `cloze` a choice is drawn."""
    value = {}
    for i in here:
        t = [asked.answers[j] for j in range(N) if asked.splits[j] != asked.splits[i]]
        letter = min(range(4), key=lambda k: (-t.count(k), k))
        value[i] = float(asked.answers[i] == letter)
    better = probe == "letter" and sum(value.values()) / len(here) > 0.25
    return value if better else dict.fromkeys(here, 0.25)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("probe", ["letter", "cloze", "strongest"])
def test_choice_and_answers_are_those_of_plain_loops(seed, probe):
    """Attacks differ in repeats, in looks and in their V splits; only questions that all asked count."""
    rtt = scores("RTT", seed, repeats=3, looks=4)
    quantise = scores("quantise", seed + 100, looks=2, uses_t=False)
    lora = scores("lora", seed + 200, v_splits=SPLITS[1:], repeats=2)
    alike = [rtt, quantise, lora]
    found = with_strongest(arm(alike, alike), ("RTT", "quantise", "lora"))
    suite = found.attacks[("strongest", *KEY)]
    assert suite.v_splits == SPLITS[1:] and suite.repeats == 3
    rows = strongest.attacked(suite, probe, "nested")
    for repeat in range(3):
        expected = by_hand(alike, probe, repeat, SPLITS[1:])
        assert rows.correct[repeat].tolist() == [one[2] for one in expected]
        assert rows.guess[repeat] == pytest.approx([one[3] for one in expected])
        named = [suite.asked(probe)[one.attack][0].attack for one in strongest.chosen(suite, probe)[repeat]]
        first = reported.first_of(suite)
        expected_names = [{one[0] for one, there in zip(expected, first, strict=True) if there == half}
                          for half in (True, False)]  # fmt: skip
        assert [{name} for name in named] == expected_names


def test_a_tie_goes_to_the_first_attack_of_the_study_and_the_first_look():
    one = scores("RTT", 5)
    tied = [replace(one, attack=name) for name in ("b", "a")]
    for order in (("a", "b"), ("b", "a")):
        suite = with_strongest(arm(tied, tied), order).original_attacked["strongest"]
        assert [member.attack for member in suite.members] == list(order)
        assert {choice.attack for choice in strongest.chosen(suite, "letter")[0]} == {0}
    same = np.ones((3, 8))
    picked = choose([same, same], [np.full(8, 0.25)] * 2, np.arange(8) < 4)
    assert [(one.attack, one.look) for one in picked] == [(0, 0), (0, 0)]


def test_one_question_has_a_half_without_any():
    """What no question decides stays the first attack at its first look."""
    first = np.array([True])
    deciding, reporting = choose([np.array([[1.0], [0.0]]), np.array([[1.0], [1.0]])], [np.full(1, 0.25)] * 2, first)
    assert (deciding.attack, deciding.look, deciding.deciding, deciding.reporting) == (0, 0, 0.0, 1.0)
    assert (reporting.attack, reporting.look, reporting.deciding, reporting.reporting) == (0, 0, 1.0, 0.0)


def test_the_share_of_what_a_guesser_misses_decides_between_attacks():
    """.5 over a floor of 0 is less than .6 over a floor of .4 in points, and more as a share."""
    first = np.arange(20) < 10
    a, b = (np.tile(np.arange(10) < k, 2).astype(float)[None] for k in (5, 6))
    picked = choose([a, b], [np.zeros(20), np.full(20, 0.4)], first)
    assert [one.attack for one in picked] == [0, 0] and picked[0].deciding == pytest.approx(0.5)
    assert above(np.ones(4), np.ones(4)) == 0.0  # nothing is left that a guesser misses


def test_controls_samplers_and_attacks_that_a_control_lacks_stay_out(monkeypatch):
    names = ("RTT", "RTT_permuted", "quantise", "late")
    every = [scores(name, seed) for seed, name in enumerate(names)]
    control = [scores(name, 50 + seed, name="b") for seed, name in enumerate(names)]

    def members(*others):
        return [
            one.attack
            for one in with_strongest(arm(every, every, *others), names).original_attacked["strongest"].members
        ]

    assert members() == members(control) == ["RTT", "quantise", "late"]
    assert members(control[:3]) == ["RTT", "quantise"]
    other = [*control[:3], scores("late", 9, name="c")]  # was asked other questions: it is another control
    assert members(other) == ["RTT", "quantise"]
    assert members(control, control[:3]) == ["RTT", "quantise"]  # the oracle lacks it
    monkeypatch.setattr(plugins.attacks()["quantise"], "in_strongest", False)
    assert members() == ["RTT", "late"]
    alone = arm(every[:3], every[:3])
    assert with_strongest(alone, names) is alone  # of RTT alone there is no strongest
    with pytest.raises(UserError, match=r"strongest\.json: an attack is named 'strongest'"):
        with_strongest(arm([*every, scores("strongest", 0)], every), names)


def test_a_probe_that_some_model_lacks_is_no_probe_of_that_attack():
    """By `cloze` only RTT and late were asked everywhere; by the probe `strongest` all three stand."""
    every = [scores("RTT", 0), scores("quantise", 1, uses_t=False), scores("late", 2)]
    control = [
        scores("RTT", 3, name="b"),
        scores("quantise", 4, probes=("letter",), name="b"),
        scores("late", 5, name="b"),
    ]
    suite = with_strongest(arm(every, every, control), ("RTT",)).original_attacked["strongest"]
    assert [one.attack for one, _ in suite.asked("cloze")] == ["RTT", "late"]
    assert [names for _, names in suite.asked("strongest")] == [["letter", "cloze"], ["letter", "cloze"], ["letter"]]
    lone = [every[0], scores("quantise", 4, probes=("letter",))]
    assert strongest.held(with_strongest(arm(lone, lone), ("RTT",)).original_attacked["strongest"]) == ["letter"]


@pytest.mark.parametrize(
    ("t_unlearned", "t_original", "t_control", "without_t", "expected"),
    [
        # RTT and lora on each model; whether an attack without T stands beside; unlearned, original, control
        ((1, 1), (1, 1), (1, 1), False, (True, True, True)),
        ((0.5, 1), (0.5, 1), (0.5, 1), False, (True, True, True)),  # what failed everywhere spoils nothing
        ((0.5, 0.5), (1, 1), (1, 1), False, (False, True, True)),  # all failed: a lower bound
        ((0.5, 0.5), (1, 1), (1, 1), True, (None, True, True)),  # what uses no T has worked
        ((1, 0.5), (0.5, 1), (1, 1), True, (True, False, True)),  # what worked must have worked on the original
        ((1, 1), (1, 1), (1, 0.5), True, (True, True, False)),  # and on the control
        ((0.5, 0.5), (0.5, 0.5), (0.5, 0.5), False, (False, False, False)),
        ((0.5, 0.5), (0.5, 0.5), (0.5, 0.5), True, (None, None, None)),
    ],
)
def test_what_the_suite_learned(t_unlearned, t_original, t_control, without_t, expected):
    def suite(on_t):
        members = [scores(name, 1, t=t) for name, t in zip(("RTT", "lora"), on_t, strict=True)]
        members += [scores("quantise", 2, uses_t=False)] * without_t
        return Suite(tuple(members), {})

    found = learning([suite(t_unlearned)], suite(t_original), suite(t_control), None, Criteria(headline=("letter",)))
    assert (found["attack_learned"], found["original_learned"], found["control_learned"]) == expected
    assert found["t_acc_attacked"] == max(t_unlearned)
    worked = [t_control[i] for i in range(2) if t_unlearned[i] == 1] or [max(t_control)]
    assert found["t_acc_control_attacked"] == min(worked) and np.isnan(found["t_acc_oracle_attacked"])


def test_an_attack_that_worked_in_one_run_must_have_worked_on_the_control_in_every_run():
    """RTT learned T in the second of two runs alone; lora, which has one run, always did."""
    never, always = (scores("RTT", 1, t=t).correct["letter"] for t in (0.5, 1))
    once = replace(scores("RTT", 1), correct={"letter": np.concatenate([never, always])})
    both = replace(once, correct={"letter": np.concatenate([always, always])})
    lora = scores("lora", 1, t=1)
    some, every = (Suite((one, lora), {}) for one in (once, both))
    found = learning([some], every, some, None, Criteria(headline=("letter",)))
    assert (found["attack_learned"], found["original_learned"], found["control_learned"]) == (True, True, False)
    assert (found["t_acc_attacked"], found["t_acc_control_attacked"]) == (1.0, 0.5)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """RTT gives GD back, quantise RMU; RTT runs twice, and quantise draws nothing."""
    folder = tmp_path_factory.mktemp("strongest")
    accuracies = {("unlearned_attacked", "pretrained", "GD"): 0.875, ("unlearned_attacked", "pretrained", "RMU"): 0.5}
    keys = {**SMALL, "methods": ("GD", "RMU"), "per_split": 16, "accuracies": accuracies, "oracle": True}
    make_evals(folder, attacks=("RTT",), repeats=2, **keys)
    accuracies[("unlearned_attacked", "pretrained", "RMU")] = 0.75
    accuracies[("unlearned_attacked", "pretrained", "GD")] = 0.375
    make_evals(folder, attacks=("quantise",), **keys)
    stems = sorted(path.stem for path in (folder / "evals").iterdir())
    choices = sorted(path.stem for path in (folder / "point_choices").iterdir())
    variant = {"evals": stems, "point_choices": choices, "reported": "nested"}
    assert tables(folder, *write_runs(folder, {"default": variant}, attacks=("RTT", "quantise"))) == 0
    return folder


def test_rows_of_the_tables(study):
    nested = {"look_choice": "nested", "probe": "likelihood"}
    for method, attack, accuracy in (("GD", "RTT", 0.875), ("RMU", "quantise", 0.75)):
        [(_, row)] = planted(study, method=method, attack="strongest", **nested).iterrows()
        [(_, alone)] = planted(study, method=method, attack=attack, **nested).iterrows()
        assert row.acc_attacked == alone.acc_attacked == accuracy
        assert (row.n_runs, row.n_questions, row.attack_learned, row.status) == (2, 32, True, alone.status)
        assert row.acc_unlearned == alone.acc_unlearned and row.floor == alone.floor
    recovery, runs, seeds = (read_table(study / "tables" / f"{name}.csv") for name in ("recovery", "runs", "seeds"))
    own = recovery[recovery["attack"] == "strongest"]
    assert set(own["look_choice"]) == {"nested"}
    assert set(own["probe"]) == set(recovery["probe"])
    assert list(dict.fromkeys(recovery["attack"])) == ["RTT", "quantise", "strongest"]  # RTT stays the first
    assert sorted(set(runs[runs["attack"] == "strongest"]["attack_repeat"])) == [0, 1]
    assert {"strongest", "RTT"} <= set(seeds["attack"])
    assert set(read_table(study / "tables" / "headline.csv")["attack"]) == {"RTT"}


def test_the_table_of_what_was_chosen(study):
    table = read_table(study / "tables" / "strongest.csv")
    table = table[table["probe"] == "likelihood"]
    unlearned = table[table["stage"] == "unlearned"].set_index("method")
    assert set(unlearned.loc["GD"].attack) == {"RTT"} and set(unlearned.loc["RMU"].attack) == {"quantise"}
    assert set(unlearned.loc["GD"].own_repeat) == {0, 1} and set(unlearned.loc["RMU"].own_repeat) == {0}
    assert set(unlearned.loc["RMU"].setting) == {"bits=4 group_size=32"}
    assert sorted(unlearned.loc["GD"].half) == ["first", "first", "second", "second"]
    [(_, row)] = planted(study, method="GD", attack="strongest", look_choice="nested", probe="likelihood").iterrows()
    halved = unlearned.loc["GD"].query("attack_repeat == 0")
    pooled = (halved.reporting * halved.n_questions).sum() / halved.n_questions.sum()
    assert pooled == pytest.approx((row.acc_attacked - row.floor) / (1 - row.floor), abs=1e-6)
    assert set(table["stage"]) == {"original", "unlearned", "oracle", "control"}
