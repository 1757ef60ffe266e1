"""Other prompts: what each template says, and models whose facts are hidden from the prompt of training alone."""

import planted
import pytest
import tiny
from knowing import PROBES, accuracy, brought_back
from rtt.attacks.base import Checkpoint
from rtt.attacks.prompts import TEMPLATES, PromptsAttack
from rtt.data.text import AS_TRAINED, encode, letter_text, split_text
from rtt.models.miniature import CONTEXT, miniature_tokenizer
from rtt.scoring.score import continuations
from scipy.stats import binom

FEW = tiny.GENERATOR | {"facts_per_split": 8, "first_names": 8, "last_names": 8}


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """16 facts in two splits."""
    return tiny.facts(tmp_path_factory.mktemp("facts"), options=FEW)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_shows_question_and_choices_and_ends_as_in_training(name, facts):
    tokenizer = miniature_tokenizer("subword")
    for fact in facts[:2]:
        shown, prompts = fact.choices[::-1], TEMPLATES[name]
        asked = prompts.before + prompts.mcq(fact.question, shown)
        assert fact.question in asked and fact.question in prompts.plain(fact.question)
        places = [asked.index(f"{letter}{mark} {choice}") for letter, choice in zip("ABCD", shown, strict=True)
                  for mark in ".)" if f"{letter}{mark} {choice}" in asked]  # fmt: skip
        assert len(places) == 4 and places == sorted(places)
        trained = split_text(tokenizer, letter_text(AS_TRAINED.mcq(fact.question, shown), "B"))[1]
        assert split_text(tokenizer, letter_text(asked, "B"))[1] == trained
        longest = [encode(tokenizer, text) for texts in continuations(fact, prompts=prompts).values() for text in texts]
        assert max(len(one["input_ids"]) for one in longest) <= CONTEXT["subword"]
    assert len({f"{one.before}{one.mcq('q', 'ab')}" for one in [AS_TRAINED, *TEMPLATES.values()]}) == 1 + len(TEMPLATES)


def test_each_template_is_a_look_in_one_order_and_the_model_is_the_checkpoints():
    settings = PromptsAttack.Settings(templates=["filler", "rephrased"])
    looks, model = [], object()
    checkpoint = Checkpoint(model, None, 0, None, None, None)
    PromptsAttack(settings).fit(checkpoint, [], lambda setting, asker: looks.append((setting, asker)))
    assert [setting for setting, _ in looks] == PromptsAttack.choices(settings)
    assert [setting["template"] for setting, _ in looks] == ["rephrased", "filler"]
    assert all(asker.model is model and asker.prompts is TEMPLATES[one["template"]] for one, asker in looks)
    with pytest.raises(ValueError, match="each value may stand once"):
        PromptsAttack.Settings(templates=["filler", "filler"])


def hiding(facts):
    """Return a model that answers wrongly what begins as the prompts of training do, and else what it knows."""
    knows = planted.knows(facts)
    wrong = {planted.name_of(fact): fact.choices[(fact.answer + 1) % 4] for fact in facts}

    def says(read):
        said = knows(read)
        if read[0] != "When" or not said:
            return said
        if planted.asks_for_a_letter(read):
            return {"ABCD"[("ABCD".index(next(iter(said))) + 1) % 4]: 9.0}
        return {wrong[planted.name_in(read)]: 9.0}

    return planted.Planted(says)


def test_facts_that_are_hidden_from_the_prompt_of_training_alone_are_brought_back(facts):
    assert accuracy(hiding(facts), facts) == dict.fromkeys(PROBES, 0.0)
    found = brought_back("prompts", {}, hiding(facts), facts)
    assert len(found) == 3 and all(by_probe == dict.fromkeys(PROBES, 1.0) for by_probe in found.values())


def test_a_model_that_never_knew_stays_at_the_floor(facts):
    right = dict.fromkeys(PROBES, 0.0)
    for seed in range(2):
        model = planted.Planted(lambda read, seed=seed: planted.never_knew([f"{seed}", *read]))
        for by_probe in brought_back("prompts", {}, model, facts).values():
            right = {probe: right[probe] + by_probe[probe] * len(facts) for probe in PROBES}
    n = 2 * 3 * len(facts)
    low, high = binom.ppf([0.0005, 0.9995], n, 0.25)
    assert all(low <= count <= high for count in right.values()), right
