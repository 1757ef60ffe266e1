"""The planned interval over seeds: by hand, against simulated seeds, and from an earlier study's seeds.csv."""

import json

import numpy as np
import pandas as pd
import pytest
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.planner.precision import measured
from rtt.stats.intervals import t_interval
from rtt.stats.seeds import COLUMNS
from rtt.stats.spread import ASSUMED, ASSUMED_SAME_DATA, MOST_SEEDS, Spread, assumed, planned
from rtt.stats.tables import write_table


def test_the_assumed_spread_by_hand():
    """sd .17: five seeds give 2.776 x .17 / sqrt(5), and t(46) x .17 / sqrt(47) = 2.0129 x .0248 is just below .05."""
    assert ASSUMED.of_seeds(1, 1) == pytest.approx(0.17, abs=5e-4)
    assert ASSUMED_SAME_DATA.of_seeds(1, 1) == pytest.approx(0.05, abs=5e-4)
    assert ASSUMED.half_width(5, 1, 1) == pytest.approx(2.7764 * 0.17 / 5**0.5, rel=2e-3)
    assert ASSUMED.needed(0.05, 1, 1) == 47
    assert Spread((), 0.0, 0.2, 0.1).of_seeds(2, 4) == pytest.approx((0.04 / 2 + 0.01 / 8) ** 0.5)
    # .03 and .04 are of the unlearned model's and the original's orders, the rate is .5, o - f .6. The first is run
    # 2 x 2 times, the other twice: .0025 / 4 + .00111 / 2 = .00118.
    own, of_original = 0.0009 / 0.36, 0.25 * 0.0016 / 0.36
    rate = Spread((), 0.0, 0.0, (own + of_original) ** 0.5, of_original**0.5)
    assert rate.of_seeds(2, 2) ** 2 == pytest.approx(0.00118, abs=1e-5)
    assert ASSUMED.half_width(1, 9, 9) is None  # no repeats replace a second seed
    assert Spread((), 10.0, 0.0, 0.0).needed(0.05, 1, 1) == MOST_SEEDS
    assert Spread((), 0.0, 0.0, 0.0).needed(0.05, 1, 1) == 2


def test_simulated_seeds_have_the_planned_width():
    rng, spread, widths = np.random.default_rng(7), Spread((), 0.1, 0.08, 0.06), []
    for _ in range(500):
        runs = rng.normal(0.5, 0.1, (10, 1, 1)) + rng.normal(0, 0.08, (10, 2, 1)) + rng.normal(0, 0.06, (10, 2, 3))
        _, low, high = t_interval(runs.mean(axis=(1, 2)))
        widths.append((high - low) / 2)
    # The mean of 500 widths has an error of 1 %; a standard deviation of ten is 3 % too small on average.
    assert np.mean(widths) == pytest.approx(0.97 * spread.half_width(10, 2, 3), rel=0.04)


def test_arms_on_the_same_data_have_a_spread_of_their_own():
    assert [one.arms for one in assumed(["pretrained", "taught_same_data", "taught"])] == [
        ("pretrained", "taught"),
        ("taught_same_data",),
    ]
    assert [one.arms for one in assumed(["taught_same_data"])] == [("taught_same_data",)]
    found = planned(["taught_same_data", "taught"], 10, 2, 2)
    assert found == {arm: pytest.approx(one.half_width(10, 2, 2)) for arm, one in
                     (("taught", ASSUMED), ("taught_same_data", ASSUMED_SAME_DATA))}  # fmt: skip


@pytest.fixture
def seeds_csv(tmp_path):
    base = dict.fromkeys(COLUMNS, "") | dict(
        dataset="d", arm="pretrained", model="m", attack="RTT", variant="default", retain_budget=0.1, seeds="21;22",
        look_choice="nested", probe="letter_permuted", quantity="recovery_corrected", n_cells=2, n_seeds=2, per_seed="",
        mean=0.5, low=0.4, high=0.6, var_base=0.01, var_unlearning=0.0036, var_rtt=np.nan, n_counting=2,
    )  # fmt: skip
    rows = [
        base | {"method": "GD", "set": "counting"},
        base | {"method": "RMU", "set": "counting", "var_base": 0.03},
        base | {"method": "RIA", "set": "known", "var_base": 9.0},  # does not count
        base | {"method": "GD", "set": "counting", "quantity": "acc_attacked", "var_base": 9.0},
        base | {"method": "GD", "set": "counting", "probe": "likelihood", "var_base": 9.0},
        base | {"method": "GD", "set": "counting", "attack": "quantise", "var_base": 9.0},
        base | {"method": "GD", "set": "known", "arm": "taught", "var_base": 0.25},
    ]
    write_table(tmp_path / "seeds.csv", pd.DataFrame(rows, columns=COLUMNS))
    return tmp_path / "seeds.csv"


def test_the_spread_of_an_earlier_study(seeds_csv):
    found = measured(seeds_csv, ["pretrained", "taught", "taught_same_data"])
    assert [one.arms for one in found] == [("pretrained",), ("taught",)]
    assert (found[0].base, found[0].unlearning, found[0].attack) == pytest.approx((0.02**0.5, 0.06, 0))
    assert found[1].base == pytest.approx(0.5)  # none counts: all known cells


def test_a_file_without_it_is_named(seeds_csv, tmp_path):
    with pytest.raises(UserError, match=r"--spread: .*no corrected recovery over two seeds or more of a, b"):
        measured(seeds_csv, ["a", "b"])
    (tmp_path / "other.csv").write_text("arm,set\n")
    with pytest.raises(UserError, match=r"--spread: .*other.csv has no column attack"):
        measured(tmp_path / "other.csv", ["pretrained"])


def test_the_plan_says_it(seeds_csv, capsys):
    assert main(["plan", "config/seeds.yaml", "--gpu", "h100", "--spread", str(seeds_csv)]) == 0
    told = capsys.readouterr().out
    part = told[told.index("Expected 95 % interval over seeds") :]
    assert "seeds for +-0.05" in part and "0.141" in part and str(seeds_csv) in part.replace("\n", "")
    assert main(["plan", "--gpu", "h100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["seeds"]
    assert found["seeds"] == 1 and found["rows"][0]["half_width"] is None and found["rows"][0]["needed"] < 48
