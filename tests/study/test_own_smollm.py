"""The study of SmolLM2 on facts that it knows: which facts it takes, and what runs."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rtt
from data_builder import dataset, write
from places import ROOT
from rtt.data.build import build_facts
from rtt.data.facts import write_facts
from rtt.data.text import cloze
from rtt.study.expand import Runs
from rtt.study.load import load_study

STUDY = ROOT / "config/own-smollm.yaml"


def folder(path: Path, *splits: str, n: int = 40) -> None:
    """A dataset's folder with n people in each of these splits."""
    files = dataset(splits=len(splits), n=n)
    for i, split in enumerate(splits):  # one by one, since a name may hold another's
        files = {re.sub(rf"split_{i}\.jsonl$", f"{split}.jsonl", name): rows for name, rows in files.items()}
    write(path, files)


def test_each_task_has_both_controls_and_repeats_of_unlearning_and_attack(tmp_path):
    folder(tmp_path / "own/known-tofu", "split_0", "split_1")
    folder(tmp_path / "own/known-years", "split_0", "split_1", "learn", "held_out", n=50)
    runs = Runs(load_study(STUDY), tmp_path)
    assert {spec.source.facts.raw.dataset for spec in runs.unlearn.values()} == {"years", "tofu"}
    assert len(runs.unlearn) == 4  # two tasks, each unlearned twice
    asked = {(spec.attack, spec.arm, spec.facts.raw.dataset) for spec in runs.attacks.values()}
    assert asked == {
        (attack, *rest)
        for attack in ("RTT", "RTT_permuted")
        for rest in (("pretrained", "years"), ("pretrained", "tofu"), ("control", "random_birthdays"))
    }
    assert {spec.repeats for spec in runs.attacks.values()} == {2}
    assert {spec.facts.facts_per_split for spec in runs.attacks.values()} == {40}
    scored = {probe for spec in runs.attacks.values() for probe in spec.scores.probes}
    assert set(runs.study.criteria.headline) == {"cloze", "likelihood"} <= scored


def known_facts(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["known_facts.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "docs/examples/known_facts.py"))


def test_the_facts_that_a_model_knows_become_a_folder(tmp_path, monkeypatch, capsys):
    """A model that is right in six of eight draws about half of the people, and in five about the others: too few."""
    facts, _ = build_facts(write(tmp_path / "all", dataset(n=20)), "d", None, {}, 0)
    facts[0].sentences[:] = ["1900 it was."]  # nothing leads to the answer, so no cloze
    write_facts(tmp_path / "facts.jsonl", facts)
    rounds = []

    def score(model, asked, probes, batch_size, dtype):
        assert (model, probes) == ("a model", ["likelihood"])
        for one in asked:
            (fact,) = [fact for fact in facts if fact.question == one["question"]]
            assert one["choices"][one["answer"]] == fact.choices[fact.answer] and len(set(one["choices"])) == 4
            assert set(one["choices"]) & set(fact.choices) == {fact.choices[fact.answer]}
        rounds.append(asked)
        right = [len(rounds) > (2 if one["question"].split()[-2] in known else 3) for one in asked]
        return type("Scores", (), {"questions": pd.DataFrame({"correct": np.array(right, bool)})})

    people = sorted({fact.question.split()[-2] for fact in facts})
    known = set(people[::2])
    monkeypatch.setattr(rtt, "score", score, raising=False)
    known_facts(monkeypatch, "a model", tmp_path / "out", "a=9,b=6", tmp_path / "facts.jsonl")
    kept, audit = build_facts(tmp_path / "out", "d", None, {}, 0)
    assert [sum(fact.split == split for fact in kept) for split in ("a", "b")] == [9, 6]
    assert audit["defects"]["missing_text"] == audit["defects"]["split_leak"] == 0
    assert all(fact.question.split()[-2] in known and cloze(fact) for fact in kept)
    before = {fact.question: fact for fact in facts}
    for fact in kept:
        old = before[fact.question]
        assert (fact.choices, fact.answer, fact.sentences, fact.ria_sentences) == (
            old.choices, old.answer, old.sentences, old.ria_sentences,
        )  # fmt: skip
    assert f"of {len(facts) - 1} facts are known" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="facts are known, but the splits ask for 1000"):
        known_facts(monkeypatch, "a model", tmp_path / "more", "a=1000", tmp_path / "facts.jsonl")
    assert not (tmp_path / "more").exists()
