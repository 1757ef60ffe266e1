"""A finished study's files hold evidence of themselves and of each other: whatever is changed is named."""

import json
import shutil

import pytest
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.files import canonical_json, write_text
from rtt.scoring.evidence import check_chain
from rtt.scoring.read import read_eval, read_folder


@pytest.fixture(scope="module")
def results(finished, tmp_path_factory):
    """Return a copy of the finished smoke study, which each test leaves as it was."""
    folder = tmp_path_factory.mktemp("evidence") / "smoke"
    shutil.copytree(finished.results(), folder)
    return folder


@pytest.fixture
def changed(results):
    """Return a function that changes a JSON file of the study; afterwards all are as before."""
    before = {}

    def change(pattern, *keys, to):
        (path,) = results.glob(pattern)
        before[path] = path.read_text()
        document = inner = json.loads(before[path])
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to(inner[keys[-1]]) if callable(to) else to
        write_text(path, canonical_json(document) + "\n")
        return path

    yield change
    for path, text in before.items():
        path.write_text(text)


def flipped(scores):
    """Return scores whose highest is another one."""
    best = scores.index(max(scores))
    return [-1.0 if index == (best + 1) % len(scores) else -2.0 for index in range(len(scores))]


TEACH, UNLEARN = "evals/teach-*.json", "evals/unlearn-pretrained-*.json"
ATTACK, CHOICE = "evals/attack-RTT-taught-*/GD-b10.json", "point_choices/choose-taught-*.json"
INSIDE = [
    (
        TEACH,
        ("metrics", "accuracies", 0, "accuracy", "V", "letter"),
        0.987654,
        "metrics.accuracies[0].accuracy.V.letter",
    ),
    (TEACH, ("metrics", "accuracies", 0, "text", "nats"), 1.0, "metrics.accuracies[0].text"),
    (UNLEARN, ("looks", 1, "step"), 3, "metrics.accuracies[1].step"),
    (UNLEARN, ("spec", "settings", "learning_rate"), 0.5, "hashes.spec"),
    (UNLEARN, ("hashes", "spec"), "0" * 64, "hashes.spec"),
    (UNLEARN, ("run_id",), lambda run: run.replace("pretrained", "other"), "run_id"),
    (UNLEARN, ("labels", "arm"), "taught", "labels.arm"),
    (UNLEARN, ("labels", "seed"), 7, "labels.seed"),
    (UNLEARN, ("labels", "method"), "RMU", "labels.method"),
    (TEACH, ("labels", "model"), "other", "labels.model"),
    (ATTACK, ("labels", "retain_budget"), 0.2, "labels.retain_budget"),
    (ATTACK, ("labels", "dataset"), "cities", "labels.dataset"),
    (ATTACK, ("labels", "attack"), "quantise", "labels.attack"),
    (ATTACK, ("metrics", "accuracies"), [], "the number of metrics.accuracies"),
    (ATTACK, ("metrics", "accuracies", 0), 5, "not what a step writes"),
]


@pytest.mark.parametrize("pattern, keys, value, said", INSIDE, ids=[".".join(map(str, one[1])) for one in INSIDE])
def test_a_file_that_contradicts_itself_is_named(changed, pattern, keys, value, said):
    path = changed(pattern, *keys, to=value)
    if keys == ("labels", "attack"):  # the reader compares it with the looks
        said = "labels.attack is 'quantise'"
    with pytest.raises(UserError) as error:
        read_eval(path)
    assert str(error.value).startswith(f"{path}: ") and said in str(error.value)


def test_flipped_scores_are_found_by_the_accuracies(changed):
    path = changed(TEACH, "looks", 0, "questions", 0, "probes", "letter", "scores", to=flipped)
    with pytest.raises(UserError, match=r"metrics\.accuracies\[0\]\.accuracy\.\w+\.letter is .*delete .*teach-"):
        read_eval(path)


def test_a_copy_under_another_name_is_found(results):
    (path,) = results.glob(TEACH)
    other = shutil.copy(path, path.with_name(path.name.replace("taught", "other")))
    with pytest.raises(UserError, match="run_id is"):
        read_eval(other)
    other.unlink()


@pytest.mark.parametrize(
    "pattern, keys, said",
    [
        (UNLEARN, ("hashes", "model"), "hashes.model is"),
        ("evals/attack-quantise-taught-*/original.json", ("hashes", "model"), "hashes.model is"),
        (ATTACK, ("hashes", "dataset"), "hashes.dataset is"),
        ("data/birth_years_a-*/audit.json", ("facts_sha256",), "hashes.dataset is"),
    ],
)
def test_files_that_contradict_each_other_are_named(results, changed, pattern, keys, said):
    path = changed(pattern, *keys, to="0" * 64)
    with pytest.raises(UserError, match=said) as error:
        check_chain(read_folder(results / "evals"), results if path.name == "audit.json" else None)
    assert str(path) in str(error.value)


LAST_DIGIT = ("looks", 0, "questions", 0, "probes", "letter", "scores", 0)


@pytest.mark.parametrize(
    "pattern, keys, to, said",
    [
        (ATTACK, LAST_DIGIT, lambda one: one - 1e-6, "its sha256 is not the one in"),
        (CHOICE, ("selected", "0.1", "step"), 4, "selected['0.1'] is"),
        (CHOICE, ("points", 0, "forget", "letter"), 0.123456, "points[0].forget.letter is 0.123456"),
        (CHOICE, ("retain_before", "letter_permuted"), 0.123456, "retain_before.letter_permuted is 0.123456"),
    ],
)
def test_tables_find_what_one_file_alone_does_not_show(results, changed, tmp_path, capsys, pattern, keys, to, said):
    path = changed(pattern, *keys, to=to)
    assert main(["tables", "--results", str(results), "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}: {said}") and "delete" in error and not [*tmp_path.iterdir()], error


def test_tables_of_untouched_files_are_made(results, tmp_path):
    assert main(["tables", "--results", str(results), "--out", str(tmp_path)]) == 0
