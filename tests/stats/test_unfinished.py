"""`rtt tables --partial` and `rtt summary` of an unfinished study: whole cells, each as in the finished study."""

import csv
import json
import random
import shutil
from collections import Counter

import pytest
from evals_builder import DATASETS, OTHER, SMALL, make_evals, tables, write_runs
from rtt.__main__ import main
from rtt.stats.tables import RECOVERY_COLUMNS
from rtt.study.names import TABLES

KEYS = RECOVERY_COLUMNS[:10]
CONTROL = [name for name in RECOVERY_COLUMNS if "control" in name]
ENDS = (".csv", ".partial.csv")
ARMS, METHODS, ATTACKS, BUDGETS = ("pretrained", "taught"), ("GD", "RMU"), ("RTT", "quantise"), (0.1, 0.3)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two arms, methods, attacks and budgets; two trajectories per method; one budget that admits no point."""
    folder = tmp_path_factory.mktemp("finished") / "study"
    make_evals(
        folder,
        **SMALL | dict(arms=ARMS, methods=METHODS, attacks=ATTACKS, budgets=BUDGETS, worse=1, probes=("likelihood",)),
        none={("taught", "GD", 0.1)},
    )
    stems = {kind: sorted(path.stem for path in (folder / kind).iterdir()) for kind in ("evals", "point_choices")}
    options = write_runs(folder, {"default": {**stems, "reported": "nested"}}, attacks=ATTACKS)
    assert tables(folder, *options) == 0
    return folder


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def whole_cells(folder) -> Counter:
    """Return the cells (arm, method, attack, budget) for which every file is there, by the files' names alone."""
    there = {path.stem for path in [*folder.glob("evals/*"), *folder.glob("point_choices/*")]}
    found = Counter()
    for arm in ARMS:
        for method in METHODS:
            run = f"unlearn-{arm}-{method.lower()}-s0"
            before = [name for name in ALL if arm in name.split("-") and name.startswith("model-")]
            before += [name for name in ALL if name == run or name.endswith(f"-{run}")]
            before += [name for name in CHOICES if f"-{arm}-" in name and method.lower() in name.lower()]
            for attack in ATTACKS:
                original = [n for n in ALL if n.lower().startswith(STEM[attack]) and f"-{arm}-s0.original" in n]
                for budget in BUDGETS:
                    own = [n for n in ATTACKED[arm, method, attack, budget]]
                    if set(before + original + own) <= there:
                        found[arm, method, attack, str(budget)] += 1
            controls = [f"{STEM[attack]}-control-{OTHER[DATASETS[arm]]}-s0.control" in there for attack in ATTACKS]
            for budget in map(str, BUDGETS):  # the strongest attack needs both, and the control of both or of none
                if len(set(controls)) == 1 and all(found[arm, method, attack, budget] for attack in ATTACKS):
                    found[arm, method, "strongest", budget] += 1
    return +found


@pytest.fixture(scope="module", autouse=True)
def names(study):
    """Take down which file holds what, from the files' own labels."""
    global ALL, CHOICES, STEM, ATTACKED
    documents = {path.stem: json.loads(path.read_text()) for path in sorted((study / "evals").iterdir())}
    ALL = list(documents)
    CHOICES = [path.stem for path in (study / "point_choices").iterdir()]
    ATTACKED = {(a, m, k, b): [] for a in ARMS for m in METHODS for k in ATTACKS for b in BUDGETS}
    STEM = {}
    for name, document in documents.items():
        label = document["labels"]
        if label["target"] == "unlearned" and label["attack"]:
            key = label["arm"], label["method"], label["attack"], label["retain_budget"]
            ATTACKED[key] += [name] if document["looks"] else []
        if label["target"] == "original" and label["attack"]:
            STEM[label["attack"]] = name.lower().split("-")[0]


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(n, marks=pytest.mark.full) for n in range(3, 24))])
def test_each_whole_cell_is_as_in_the_finished_study_and_no_other(study, tmp_path, seed, capsys):
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    chance = random.Random(seed)
    files = sorted([*folder.glob("evals/*"), *folder.glob("point_choices/*")])
    lost = chance.sample(files, chance.choice([1, 1, 2, 4, 8]))
    for path in lost:
        path.unlink()
    finished = {path.name: path.read_bytes() for path in (folder / "tables").iterdir()}
    assert main(["tables", "--results", str(folder), "--partial"]) == 0
    said = capsys.readouterr()
    assert f"UNFINISHED, {len(lost)} files are missing" in said.err
    assert sorted(row["file"] for row in rows(folder / "tables/missing.partial.csv")) == sorted(map(str, lost))
    assert all((folder / "tables" / name).read_bytes() == content for name, content in finished.items())

    whole = {tuple(row[key] for key in KEYS): row for row in rows(folder / "tables/recovery.csv")}
    partial = rows(folder / "tables/recovery.partial.csv")
    cells = Counter((row["arm"], row["method"], row["attack"], row["retain_budget"]) for row in partial)
    assert set(cells) == set(whole_cells(folder))
    assert all(n == (1 if key[2] == "strongest" else 2) for key, n in cells.items())  # look choices
    for row in partial:
        expected = whole[tuple(row[key] for key in KEYS)]
        if not row["acc_control_attacked"]:  # the control is among what is missing
            expected = expected | dict.fromkeys(CONTROL, "")
        assert row == expected
    accuracy, part = (set((folder / f"tables/accuracy{end}").read_text().splitlines()) for end in ENDS)
    assert part <= accuracy

    assert main(["summary", "--results", str(folder)]) == 0
    said = capsys.readouterr()
    assert "UNFINISHED, " in said.err and said.out.startswith("UNFINISHED: ")
    assert main(["tables", "--results", str(folder), "--out", str(tmp_path / "strict")]) == 1
    assert not (tmp_path / "strict").exists()


def test_before_the_first_evaluation_there_are_empty_tables(study, tmp_path, capsys):
    folder = tmp_path / "study"
    shutil.copytree(study, folder, ignore=shutil.ignore_patterns("evals", "point_choices", "tables"))
    assert main(["summary", "--results", str(folder)]) == 0
    assert "no model has been scored yet" in capsys.readouterr().out
    assert main(["tables", "--results", str(folder), "--partial"]) == 0
    assert len(rows(folder / "tables/recovery.partial.csv")) == 0


def test_a_finished_study_says_so(study, capsys):
    assert main(["tables", "--results", str(study), "--partial", "--out", str(study.parent / "out")]) == 0
    assert "nothing is missing" in capsys.readouterr().err
    for name in TABLES:
        ours = study.parent / "out" / f"{name}.partial.csv"
        assert ours.read_bytes() == (study / "tables" / f"{name}.csv").read_bytes()


def test_partial_needs_to_know_the_study(study, capsys):
    assert tables(study, "--partial") == 1
    assert "--partial: --runs is missing" in capsys.readouterr().err
    assert main(["tables", "--evals", str(study)]) == 1
    assert "--point-choices: missing; give it, or --results FOLDER" in capsys.readouterr().err
