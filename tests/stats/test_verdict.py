"""The verdict on arrays of answers: its limits against plain resampling, its rules, and what it says."""

from dataclasses import replace

import numpy as np
import pytest
from rtt.stats.recovery import PSEUDO
from rtt.stats.verdict import FEWEST, Answer, verdict
from scipy.stats import norm

N = 160
FIRST = np.arange(N) % 2 == 0
FLOOR = np.full(N, 0.25)


def planted(*accuracies, n=N, seed=0):
    """One look per accuracy, (L, n): so many questions of each half are right, the same ones and some more."""
    order = np.random.default_rng(seed).permutation(n // 2)
    half = np.array([order < round(a * n / 2) for a in accuracies], float)
    return np.repeat(half, 2, axis=1)


def original(accuracy=0.95):
    return planted(accuracy, seed=9)[0]


def ask(unlearned, control=None, floors=FLOOR, halves=FIRST, **more) -> Answer:
    control = {name: planted(0.25, seed=5) for name in unlearned} if control is None else control
    o = more.pop("original", original())
    return verdict(unlearned, o, floors, halves, control=control or None, **more)


def drawn(rng, rows, size=40_000):
    """(rows, size): resampled means within halves, of m - 1 of m questions, with pseudo-questions; plain and slow."""
    shares = []
    for half in (FIRST, ~FIRST):
        m = half.sum()
        counts = rng.multinomial(m - 1, np.full(m, 1 / m), size=size) * (m / (m - 1))
        shares.append([counts @ row[half] / N for row in rows])
    share = rng.beta(PSEUDO, N, size=size)
    pseudo = rng.beta(PSEUDO / 2, PSEUDO / 2, size=(len(rows), size))  # each alone; here they are not joint
    return (1 - share) * np.sum(shares, axis=0) + share * pseudo


def test_the_lower_limit_is_that_of_plain_resampling():
    rng = np.random.default_rng(1)
    back, never, o = planted(0.5, seed=3)[0], planted(0.3, seed=4)[0], original()
    r, before = drawn(rng, [back, o])
    [c] = drawn(rng, [never])
    floored = np.quantile((r - 0.25) / (before - 0.25), 0.05)
    controlled = np.quantile((r - c) / (before - c), 0.05)
    assert controlled < floored - 0.05  # so that which of the two it is makes a difference
    found = ask({"RTT": back[None]}, {"RTT": never[None]})
    assert found.lower == pytest.approx(controlled, abs=0.012)
    # The control's questions are others, even where its answers are right at the places of the model's right ones.
    assert ask({"RTT": back[None]}, {"RTT": planted(0.3, seed=3)}).lower == pytest.approx(controlled, abs=0.012)
    assert ask({"RTT": back[None]}, {"RTT": planted(0.1, seed=4)}).lower == pytest.approx(floored, abs=0.012)
    alone = ask({"RTT": back[None]}, {})  # without a control there is the floor alone
    assert alone.lower == pytest.approx(floored, abs=0.012) and np.isnan(alone.control)


def test_the_limits_are_near_those_of_the_delta_method():
    """r - R o is normal, with the variance of paired differences: an approximation that resamples nothing."""
    back, o = planted(0.6, seed=3)[0], original()
    rate = (0.6 - 0.25) / (o.mean() - 0.25)
    se = np.std(back - rate * o, ddof=1) / np.sqrt(N) / (o.mean() - 0.25)
    looks = {name: back[None] for name in ("a", "b", "c", "d")}
    found = ask(looks, {name: planted(0.0) for name in looks})
    chosen = 1.165 * se  # one of four looks is chosen: sqrt(1 + 9 / (8 pi)), tests/stats/test_look_choice.py
    assert found.lower == pytest.approx(rate - norm.ppf(0.95) * chosen, abs=0.015)
    assert found.upper == pytest.approx(rate + norm.ppf(1 - 0.05 / 4) * se, abs=0.015)  # each attack has one look
    assert (found.low, found.high) == pytest.approx((rate - 1.96 * se, rate + 1.96 * se), abs=0.015)  # as recovery.csv


def test_a_choice_among_looks_moves_the_limits_further_from_the_estimate():
    """A second look that is always worse changes no answer, and widens each distance by sqrt(1 + 1 / pi)."""
    back, never = planted(0.6, 0.1, seed=3), planted(0.3, 0.1, seed=4)
    one, two = (ask({"RTT": back[:looks]}, {"RTT": never[:looks]}) for looks in (1, 2))
    assert two.accuracy == one.accuracy and two.recovery == one.recovery
    wider = np.sqrt(1 + 1 / np.pi)
    assert two.upper - two.recovery == pytest.approx(wider * (one.upper - one.recovery))
    above = (one.accuracy - one.control) / (one.original - one.control)  # the control is the stricter of the two
    assert two.lower - above == pytest.approx(wider * (one.lower - above))
    # One look of the model, but two of the control.
    assert ask({"RTT": back[:1]}, {"RTT": never}).lower == pytest.approx(two.lower)


def test_upper_limits_are_simultaneous_and_their_maximum_is_y():
    looks = {"strong": planted(0.3, seed=2), "weak": planted(0.2, seed=3)}
    two = ask(looks)
    assert [one.attack for one in two.attacks] == ["strong", "weak"]
    assert two.upper == max(one.upper for one in two.attacks) == two.attacks[0].upper > two.attacks[1].upper
    assert [one.recovery for one in two.attacks] == pytest.approx([0.05 / 0.7, -0.05 / 0.7])
    one = ask({"strong": looks["strong"]})
    assert one.upper < two.upper  # each of two limits is at .975
    assert all(0 <= found.upper <= 1 for found in ask({"a": planted(0.0), "b": planted(1.0)}).attacks)


def test_the_strongest_attack_is_chosen_on_the_other_half_for_every_model():
    """On the first half one attack is right throughout, on the second another; each is reported where it is wrong."""
    a, b = FIRST[None].astype(float), (~FIRST)[None].astype(float)
    found = ask({"a": a, "b": b})
    assert found.accuracy == 0.0 and found.chosen == (("b", 0), ("a", 0))
    of = ask({"a": planted(0.1, 0.6)}, {"a": planted(0.2, 0.4, 0.3)}, original={"a": planted(0.5, 0.9)})
    assert (of.accuracy, of.control, of.original) == pytest.approx((0.6, 0.4, 0.9), abs=0.01)
    assert of.chosen == (("a", 1), ("a", 1)) and of.attacks[0].looks == (1, 1)


def test_floors_of_several_probes_stay_with_the_look_that_is_reported():
    """The second look has a floor of .5: .55 there is less than .5 over .25."""
    floors = np.repeat([[0.25], [0.5]], N, axis=1)
    found = ask({"a": planted(0.5, 0.55)}, {}, floors={"a": floors})
    assert found.floor == 0.25 and found.chosen == (("a", 0), ("a", 0))


NOTHING = {"RTT": planted(0.25, seed=1), "quantise": planted(0.2, seed=2)}


@pytest.mark.parametrize(
    ("unlearned", "more", "answer", "reason"),
    [
        ({"RTT": planted(0.8)}, {}, "hidden", "After the strongest attack (RTT) .80 of the answers are right"),
        ({"RTT": planted(0.8)}, {"control": {}}, "hidden", "There is no control. What comes back was compared"),
        ({"RTT": planted(0.8)}, {"control_learned": False}, "hidden", "compared with the control and with the floor."),
        ({"RTT": planted(0.8)}, {"control": {"RTT": planted(0.8, seed=5)}}, "cannot_tell", "The control answers .80"),
        ({"RTT": planted(0.4)}, {"control": {"RTT": planted(0.42, seed=5)}}, "none_shown", ".42 on the control"),
        ({"RTT": planted(0.06)}, {}, "cannot_tell", "it answers below the floor, which is not forgetting."),
        ({"RTT": planted(0.8)}, {"known": False}, "cannot_tell", "The original does not know these facts."),
        ({"RTT": planted(0.3)}, {"original": planted(0.3)[0]}, "cannot_tell", "The original does not know"),
        (NOTHING, {}, "none_shown", "(RTT) .25 of the answers are right, against .25 by guessing and .25 on the"),
        (NOTHING, {"control": {}}, "cannot_tell", "There is no control."),
        (NOTHING, {"control_learned": False}, "cannot_tell", "The attack on the control did not learn T."),
        (NOTHING, {"attack_learned": False}, "cannot_tell", "No attack learned T"),
        (NOTHING, {"original": original(0.45)}, "cannot_tell", "The interval of its recovery reaches more than .25"),
    ],
)  # fmt: skip
def test_answers_and_their_reasons(unlearned, more, answer, reason):
    found = ask(unlearned, **more)
    assert found.answer == answer and reason in " ".join(found.reasons)
    assert all(one[0].isupper() and one.endswith(".") for one in found.reasons)
    share = {"hidden": found.lower, "none_shown": found.upper}.get(answer)
    assert np.isnan(found.share) if share is None else found.share == share
    assert found.text.startswith({"hidden": "hidden: at least ", "none_shown": "no attack of this suite brought",
                                  "cannot_tell": "cannot tell, because "}[answer])  # fmt: skip


def test_fewer_questions_than_needed_say_nothing_about_what_is_absent():
    few = FEWEST - 2
    halves, floors = np.arange(few) % 2 == 0, np.full(few, 0.25)
    o = planted(0.95, n=few)[0]

    def of(accuracy):
        looks, control = {"RTT": planted(accuracy, n=few)}, {"RTT": planted(0.25, n=few, seed=5)}
        return verdict(looks, o, floors, halves, control=control)

    assert of(0.25).reasons == (f"There are {few} questions, and at least {FEWEST} are needed.",)
    assert of(0.25).answer == "cannot_tell" and of(0.9).answer == "hidden"


def test_a_control_with_fewer_questions_than_needed_says_nothing_about_what_is_absent():
    """What lies above the floor is not more than two questions of a control give: that shows nothing."""
    two = {"control_halves": np.array([True, False]), "control_floors": np.full(2, 0.25)}
    found = ask({"RTT": planted(0.36)}, {"RTT": np.zeros((1, 2))}, **two)
    assert found.reasons == (f"The control has 2 questions, and at least {FEWEST} are needed.",)
    assert found.answer == "cannot_tell" and ask({"RTT": planted(0.36)}, {}).lower > 0


def test_a_model_that_was_not_unlearned_is_said_so_first():
    assert ask(NOTHING).first == "" and ask(NOTHING, is_unlearned=True).first == ""
    found = ask(NOTHING, is_unlearned=False)
    assert found.first == "The model was not unlearned by every probe." and found.answer == "none_shown"


def test_shares_are_rounded_to_the_side_that_claims_less():
    found = ask({"RTT": planted(0.8)})
    assert found.text == f"hidden: at least {int(100 * found.lower)} % comes back"
    for share, text in ((0.0096, "0.9"), (0.00567, "0.5"), (0.000999, "0.09"), (0.019, "1")):
        assert replace(found, share=share).text == f"hidden: at least {text} % comes back"
    found = ask(NOTHING)
    assert f"(upper limit {int(np.ceil(100 * found.upper))} %); that is no proof of removal" in found.text


def test_groups_are_drawn_together():
    """Pairs that are right together count as half as many questions, so the limit lies lower."""
    back = np.repeat(planted(0.5, n=N // 2, seed=3), 2, axis=1)
    halves, control = np.arange(N) // 2 % 2 == 0, {"a": planted(0.0)}
    alone, paired = (
        verdict({"a": back}, original(), FLOOR, halves, groups, control=control)
        for groups in (None, [str(i // 2) for i in range(N)])
    )
    ratio = (paired.recovery - paired.lower) / (alone.recovery - alone.lower)
    assert 1.25 < ratio < 1.6  # the root of 2, less what the original's questions and the pseudo-questions add


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unlearned": {}}, "no attack"),
        ({"unlearned": {"RTT": np.zeros(N)}}, r"unlearned 'RTT': shape \(160,\), expected \(looks, 160\)"),
        ({"unlearned": {"RTT": np.zeros((2, 8))}}, r"shape \(2, 8\), expected \(looks, 160\)"),
        ({"halves": np.ones(N, bool)}, "halves: one half has no question"),
        ({"original": np.zeros(8)}, r"original: shape \(8,\), expected \(160,\)"),
        ({"control": {"quantise": np.zeros((2, N))}}, "the control lacks RTT; leave that attack out of all models"),
    ],
)
def test_shapes_that_do_not_fit(change, message):
    given = {"unlearned": {"RTT": np.zeros((2, N))}, "original": original(), "control": None, "halves": FIRST} | change
    with pytest.raises(ValueError, match=message):
        verdict(given["unlearned"], given["original"], FLOOR, given["halves"], control=given["control"])
