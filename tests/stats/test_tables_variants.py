"""The tables of a study with variants: shared runs, and effects paired by seed with the default."""

import json

import numpy as np
import pytest
from evals_builder import SMALL, make_evals, planted, tables, write_runs
from rtt.stats.tables import read_table
from rtt.stats.variants import StudyRuns


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """Two seeds of the default and of a variant whose attack brings back less; original and control are shared."""
    folder = tmp_path_factory.mktemp("varied")
    more = {("unlearned_attacked", "pretrained", "GD", 0): 0.75, ("unlearned_attacked", "pretrained", "GD", 1): 0.5}
    make_evals(folder, **SMALL | {"seeds": (0, 1)}, accuracies={**more, "original_attacked": 1.0})
    stems = {kind: sorted(path.stem for path in (folder / kind).iterdir()) for kind in ("evals", "point_choices")}
    other = dict(stems, evals=[])
    for stem in stems["evals"]:
        if ".gd-" not in stem:
            other["evals"].append(stem)
            continue
        document = json.loads((folder / "evals" / f"{stem}.json").read_text())
        for look in document["looks"]:
            for question in [q for q in look["questions"] if q["role"] == "V"][: 2 if "s0" in stem else 1]:
                for probe in question["probes"].values():
                    probe["scores"] = [float(i != question["answer"]) for i in range(4)]
        other["evals"].append(f"{stem}-variant")
        (folder / "evals" / f"{stem}-variant.json").write_text(json.dumps(document))
    variants = {
        "weak": {**other, "reported": "nested"},
        "on_v": {**stems, "reported": "paper"},
        "default": {**stems, "reported": "nested"},
    }
    assert tables(folder, *write_runs(folder, variants)) == 0
    return folder


def test_variants_share_runs_and_have_their_own_rows(varied):
    rows = planted(varied, look_choice="paper", probe="letter")
    assert list(dict.fromkeys(rows.variant)) == ["default", "weak", "on_v"]
    assert rows[rows.variant == "default"].acc_attacked.tolist() == [0.75, 0.5]
    assert rows[rows.variant == "weak"].acc_original_attacked.tolist() == [1.0, 1.0]
    assert set(read_table(varied / "tables" / "accuracy.csv").variant) == set(rows.variant)
    contrast = read_table(varied / "tables" / "contrasts.csv")
    assert contrast.empty  # one arm, one method: variants are not mixed into contrasts


def test_variant_effects_are_paired_with_the_default(varied):
    table = read_table(varied / "tables" / "variants.csv")
    assert " ".join(table.columns) == (
        "variant dataset arm model method attack retain_budget look_choice probe quantity n_seeds "
        "per_seed mean low high"
    )
    assert set(table.quantity) == {"acc_unlearned", "acc_attacked", "recovery", "recovery_corrected"}
    recovered = planted(varied, probe="letter").set_index(["variant", "look_choice", "seed"])
    for variant, ours, theirs, label in (
        ("weak", "nested", "nested", "nested"),
        ("weak", "paper", "paper", "paper"),
        ("on_v", "paper", "nested", "paper - nested"),
    ):
        rows = table[(table.variant == variant) & (table.look_choice == label) & (table.probe == "letter")]
        assert len(rows) == 4
        for row in rows.itertuples():
            differences = [
                recovered.loc[(variant, ours, seed), row.quantity]
                - recovered.loc[("default", theirs, seed), row.quantity]
                for seed in (0, 1)
            ]
            assert [float(x) for x in row.per_seed.split(";")] == pytest.approx(differences, abs=2e-6)
            mean = np.mean(differences)
            half = 12.706205 * abs(differences[0] - differences[1]) / 2  # t(.975; 1), s / sqrt(2) = |d| / 2
            assert (row.n_seeds, row.mean) == (2, pytest.approx(mean, abs=2e-6))
            assert (row.low, row.high) == pytest.approx((mean - half, mean + half), abs=2e-5)
    weak = table[(table.variant == "weak") & (table.quantity == "acc_attacked") & (table.look_choice == "paper")]
    assert weak["mean"].max() < 0
    assert set(table.look_choice[table.variant == "on_v"]) == {"paper - nested"}


def test_one_seed_has_an_effect_without_interval(varied, tmp_path):
    for name in ("evals", "point_choices"):
        (tmp_path / name).symlink_to(varied / name)
    variants = json.loads((varied / "runs.json").read_text())["variants"]
    for one in variants.values():
        for kind in ("evals", "point_choices"):
            one[kind] = [stem for stem in one[kind] if "-s0" in stem]
    assert tables(tmp_path, *write_runs(tmp_path, variants)) == 0
    table = read_table(tmp_path / "tables" / "variants.csv")
    assert set(table.n_seeds) == {1} and table[["low", "high"]].isna().all(axis=None) and table["mean"].notna().all()


def test_the_study_names_its_main_probe_and_it_comes_first(varied, tmp_path):
    for name in ("evals", "point_choices"):
        (tmp_path / name).symlink_to(varied / name)
    default = json.loads((varied / "runs.json").read_text())["variants"]["default"]
    assert tables(tmp_path, *write_runs(tmp_path, {"default": default}, ["likelihood", "letter"])) == 0
    found = list(dict.fromkeys(planted(tmp_path).probe))
    assert found == ["likelihood", "letter", "letter_calibrated", "likelihood_fresh", "strongest"]
    criteria = {"headline": ["likelihood_fresh", "letter"]}
    assert tables(tmp_path, *write_runs(tmp_path, {"default": default}, ["likelihood"], criteria=criteria)) == 0
    found = list(dict.fromkeys(planted(tmp_path).probe))
    assert found == ["likelihood_fresh", "letter", "letter_calibrated", "likelihood", "strongest"]


def test_attacks_come_in_the_order_of_their_classes_not_of_the_files_keys(tmp_path):
    """runs.json is canonical JSON, whose keys are sorted; an attack that was left out is null there."""
    attacks = {"Zeta": {}, "quantise": {}, "RTT": {}, "left_out": None}
    study = {"point_choice": {"probes": ["letter"]}, "attacks": attacks}
    variants = {"default": {"evals": [], "point_choices": [], "reported": "nested"}}
    (tmp_path / "runs.json").write_text(json.dumps({"study": study, "variants": variants}))
    assert StudyRuns.read(tmp_path / "runs.json").attacks == ("RTT", "quantise", "Zeta")
