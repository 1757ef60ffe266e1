"""Compact evaluations are read as the full ones that they were made from, and a damaged one is refused."""

import base64
import dataclasses
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from evals_builder import SMALL, make_evals
from rtt.errors import UserError
from rtt.files import canonical_json, sha256
from rtt.scoring import compact, probabilities
from rtt.scoring.evidence import checked
from rtt.scoring.read import AttackScores, read_eval

PROBES = ("letter", "letter_permuted", "likelihood", "likelihood_fresh")
ATTACK, POINTS = "attack-pretrained-s0.gd-0.1", "unlearn-pretrained-gd-s0"


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    """A folder of full evaluations: three repeats of an attack, ties, facts for the point choice, groups."""
    folder = tmp_path_factory.mktemp("full")
    make_evals(folder, **SMALL, probes=PROBES, attacks=("RTT", "quantise"), repeats=3, group_size=2, none=())
    rng = np.random.default_rng(5)
    for path in sorted((folder / "evals").glob("*.json")):
        document = json.loads(path.read_text())
        for look in document["looks"]:
            for question in look["questions"]:
                for found in question["probes"].values():  # all looks shall differ
                    found["scores"] = np.round(rng.uniform(-4, -1, 4), 3).tolist()
                scores = question["probes"]["letter_permuted"]["scores"]
                ties = sorted({question["answer"], *rng.integers(0, 4, rng.integers(0, 4)).tolist()})
                for choice in ties:
                    scores[choice] = -0.5
                if question["role"] == "retain":
                    question["text"] = {"nats": round(rng.uniform(20, 60), 6), "tokens": len(question["id"])}
                if document["kind"] != "attacked" and question["id"].endswith(("/001", "/002")):
                    question["role"] = "choice" if question["role"] == "V" else question["role"]
        path.write_text(json.dumps(document))
    return folder / "evals"


def write(path: Path, folder: Path, change=lambda document: None, looks=()) -> Path:
    """Write the compact form of an evaluation below a folder; `looks` get probabilities."""
    document, scores = json.loads(path.read_text()), read_eval(path)
    said = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    found, tables = compact.make(scores, document, said)
    if looks:
        found["probabilities"] = probabilities.of(document, looks, compact.sets(scores)["forget"][0])
    change(found)
    for name, table in tables.items():
        target = folder / "questions" / f"{name[:10]}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(canonical_json(table))
    target = folder / "evals" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(canonical_json(found))
    return target


def same(one, other, where=""):
    """Check that two objects are the same, arrays in every bit, but for their paths."""
    assert type(one) is type(other), where
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), where
    elif dataclasses.is_dataclass(one):
        for field in (field.name for field in dataclasses.fields(one) if field.name != "path"):
            same(getattr(one, field), getattr(other, field), f"{where}.{field}")
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key, value in one.items():
            same(value, other[key], f"{where}[{key!r}]")
    else:
        assert one == other, where


def test_a_compact_evaluation_is_read_as_the_full_one(full, tmp_path):
    kinds, tied = set(), set()
    for path in sorted(full.glob("*.json")):
        small = write(path, tmp_path)
        one, other = read_eval(path), read_eval(small)
        same(one, other, path.name)
        assert small.stat().st_size < path.stat().st_size / 4 and "scores" not in small.read_text()
        kinds.add(type(one).__name__)
        assert (getattr(one, "text", None) is None) == isinstance(one, AttackScores)
        for questions, correct in compact.sets(one).values():
            tied |= set(np.unique(correct["letter_permuted"])) if questions.ids else set()
    assert kinds == {"PointScores", "AttackScores"} and tied >= {0.5, 1 / 3, 1.0}  # so ties were among them
    assert len(list((tmp_path / "questions").iterdir())) == 5  # of two datasets all and all but some; retain; choice


def test_a_target_without_a_point_is_read_too(tmp_path):
    make_evals(tmp_path / "full", **SMALL, none=[("pretrained", "GD", 0.1)])
    path = tmp_path / "full/evals" / f"{ATTACK}.json"
    found = read_eval(write(path, tmp_path))
    same(read_eval(path), found)
    assert found.status == "none_within_budget" and not found.settings


def test_the_accuracies_beside_the_scores_are_those_of_the_bits(full, tmp_path):
    path = tmp_path / f"{ATTACK}.json"
    document = json.loads((full / path.name).read_text())
    look = document["looks"][4]
    right = [question["probes"]["letter"]["scores"] for question in look["questions"] if question["role"] == "V"]
    answers = [question["answer"] for question in look["questions"] if question["role"] == "V"]
    share = sum(row.index(max(row)) == answer for row, answer in zip(right, answers, strict=True)) / len(answers)
    head = {key: look[key] for key in ("setting", "v_split", "repeat")}
    for value, fits in ((round(share, 6), True), (round(share, 6) + 0.125, False)):
        document["metrics"] = {"accuracies": [{**head, "accuracy": {"V": {"letter": value}}}]}
        path.write_text(json.dumps(document))
        scores = read_eval(full / path.name)
        if fits:
            compact.make(scores, document, {})
        else:
            with pytest.raises(UserError, match=rf"letter of V at .* is {share:.3f}.* by the answers, the file says"):
                compact.make(scores, document, {})


LOOKS = [({"setting": {"epoch": 2, "lr": 0.001}, "v_split": "split_1", "repeat": 2}, PROBES)]


def test_probabilities_in_half_precision_have_the_answers_likeliest(full, tmp_path):
    for name, looks in ((ATTACK, LOOKS), (POINTS, [({"step": 20}, ["letter", "likelihood"])])):
        path = full / f"{name}.json"
        small = write(path, tmp_path, looks=looks)
        read_eval(small)
        [entry] = json.loads(small.read_text())["probabilities"]
        questions = compact.sets(read_eval(path))["forget"][0]
        found = probabilities.read(entry, questions)
        assert list(found) == [probe for probe in PROBES if probe in looks[0][1]]
        look = next(one for one in json.loads(path.read_text())["looks"] if looks[0][0].items() <= one.items())
        by_id = {one["id"]: one["probes"] for one in look["questions"]}
        asked = [one for one in questions.ids if "v_split" not in looks[0][0] or "/split_1/" in one]
        for probe, values in found.items():
            scores = np.array([by_id[one][probe]["scores"] for one in asked])
            expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            assert np.abs(values - expected).max() < 2**-12  # half an ulp below 1


def flip(document: dict) -> None:
    """Turn one answer."""
    answers = document["answers"]["forget"]
    data = bytearray(zlib.decompress(base64.b64decode(answers["bits"])))
    data[0] ^= 0x80
    answers["bits"] = base64.b64encode(zlib.compress(bytes(data))).decode()


def swap(document: dict) -> None:
    """Give the probabilities of one probe to another."""
    probes = document["probabilities"][0]["probes"]
    probes["letter"], probes["likelihood"] = probes["likelihood"], probes["letter"]


def bits(data: bytes):
    return lambda document: document["answers"]["forget"].update(bits=base64.b64encode(data).decode())


DAMAGE = {
    "flipped": (flip, "the accuracies of its answers are not those of the scores"),
    "swapped": (swap, "probabilities of letter at"),
    "not unity": (lambda d: d["probabilities"][0]["probes"].update(letter="A" * 86 + "=="), "ValueError"),
    "bomb": (bits(zlib.compress(bytes(1 << 26))), "bytes of bits, expected"),
    "cut": (bits(zlib.compress(b"abc")), "3 bytes of bits, expected"),
    "no zlib": (bits(b"abc"), "Error"),
    "no base64": (lambda d: d["answers"]["forget"].update(bits="-"), "Error"),
    "newer": (lambda d: d.update(compact=2), "compact is 2, this program reads 1"),
    "no accuracies": (lambda d: d.pop("accuracies"), "KeyError"),
    "huge": (lambda d: d["attack"].update(repeats=10**15), "answers, expected 1 to"),
    "negative": (lambda d: d["attack"].update(repeats=-3), "answers, expected 1 to"),
    "a text": (lambda d: d["attack"].update(repeats="3"), "Error"),
    "other looks": (lambda d: d["attack"]["settings"].append({"epoch": 9}), "bytes of bits, expected"),
    "ties outside": (lambda d: d["answers"]["forget"].update(at=[10**9], tied=[2]), "Error"),
    "ties of one": (lambda d: d["answers"]["forget"].update(tied=[1] * len(d["answers"]["forget"]["at"])), "that tie"),
    "probes": (lambda d: d["probes"].reverse(), "ValueError"),
    "sets": (lambda d: d["questions"].update(more="0" * 64), "ValueError"),
    "no questions": (lambda d: d["questions"].update(forget="0" * 64), "no such file"),
    "labels": (lambda d: d["labels"].pop("arm"), "labels: missing"),
    "status": (lambda d: d.update(status="none_within_budget"), "none_within_budget, but"),
    "other attack": (lambda d: d["labels"].update(attack=None), "labels.attack is null"),
    "v_splits": (lambda d: d["attack"].update(v_splits=["split_0", "x"]), "Error|accuracies"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_one_is_refused(full, tmp_path, name):
    change, said = DAMAGE[name]
    small = write(full / f"{ATTACK}.json", tmp_path, change, LOOKS)
    with pytest.raises(UserError, match=said) as caught:
        read_eval(small)
    assert str(tmp_path) in str(caught.value)


TEXT = {
    "edited": (lambda one: one["text"][0].update(nats=1.0), "the accuracies of its answers are not those"),
    "gone": (lambda one: one.pop("text"), "the accuracies of its answers are not those"),
    "short": (lambda one: one["text"].pop(), "ValueError"),
    "negative": (lambda one: one["text"][0].update(nats=-1.0), "ValueError"),
    "no tokens": (lambda one: one["text"][0].update(tokens=0), "ValueError"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT)
def test_damaged_held_out_text_is_refused(full, tmp_path, name):
    change, said = TEXT[name]
    small = write(full / f"{POINTS}.json", tmp_path, lambda document: change(document["points"]))
    with pytest.raises(UserError, match=said):
        read_eval(small)


QUESTIONS = {
    "order": lambda table: [values.reverse() for values in table.values() if values],
    "twice": lambda table: table["ids"].__setitem__(1, table["ids"][0]),
    "answer": lambda table: table["answers"].__setitem__(0, 4),
    "short": lambda table: table["groups"].pop(),
    "text": lambda table: table["splits"].__setitem__(0, 7),
}


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("agrees", [False, True])
def test_questions_that_no_dataset_has_are_refused(full, tmp_path, name, agrees):
    """Also where whoever changed them made the sha256 agree."""
    small = write(full / f"{ATTACK}.json", tmp_path)
    document = json.loads(small.read_text())
    path = tmp_path / "questions" / f"{document['questions']['forget'][:10]}.json"
    table = json.loads(path.read_text())
    QUESTIONS[name](table)
    if agrees:
        document["questions"]["forget"] = compact.digest(table)
        small.write_text(json.dumps(document))
        path = path.with_name(f"{document['questions']['forget'][:10]}.json")
    path.write_text(json.dumps(table))
    with pytest.raises(UserError, match=r"not the questions of a dataset|Error" if agrees else "its sha256 is not"):
        read_eval(small)


def test_a_step_that_needs_scores_takes_no_compact_one(full, tmp_path):
    with pytest.raises(UserError, match="holds answers and no scores; put the full one in its place"):
        checked(write(full / f"{POINTS}.json", tmp_path))


def test_counts_of_samples_have_no_probabilities(full, tmp_path):
    """`sampled` is right where some sample states the answer, however often others are stated."""
    path = full / f"{ATTACK}.json"
    document = json.loads(path.read_text())
    for look in document["looks"]:
        for question in look["questions"]:
            counts = [0, 0, 0, 0]
            counts[question["answer"]], counts[question["answer"] - 1] = 1, 7
            question["probes"] = {"sampled": {"scores": counts}}
    there = tmp_path / "evals" / path.name
    there.parent.mkdir()
    there.write_text(json.dumps(document))
    look = {key: document["looks"][0][key] for key in ("setting", "v_split", "repeat")}
    assert probabilities.of(document, [(look, ["sampled"])], read_eval(there).questions) == []
    found = write(there, tmp_path / "compact", looks=[(look, ["sampled"])])
    same(read_eval(found), read_eval(there))
    assert read_eval(found).correct["sampled"].all()
