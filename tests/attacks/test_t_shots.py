"""T in the context: what stands before a question, what is refused, and models that can use it, or cannot."""

import planted
import pytest
import tiny
from knowing import PROBES, accuracy, brought_back
from rtt.attacks.base import Checkpoint
from rtt.attacks.t_shots import TShots
from rtt.data.text import mcq
from rtt.errors import UserError
from rtt.scoring.score import continuations
from scipy.stats import binom

FEW = tiny.GENERATOR | {"facts_per_split": 8, "first_names": 8, "last_names": 8}


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """16 facts in two splits."""
    return tiny.facts(tmp_path_factory.mktemp("facts"), options=FEW)


def contexts(t_facts, seed=0, fold=0, **settings):
    """Return {setting as text: the prompts of its asker}."""
    found, model = {}, tiny.model()
    checkpoint = Checkpoint(model, tiny.tokenizer(), seed, fold, None, None)
    plugin = TShots(TShots.Settings(**settings))
    plugin.fit(checkpoint, t_facts, lambda setting, asker: found.update({str(setting): asker.prompts}))
    assert list(found) == [str(one) for one in TShots.choices(plugin.settings)]
    return found


def test_a_context_holds_so_many_solved_questions_of_t_and_fewer_are_its_beginning(facts):
    found = contexts(facts[:8], shots=[4, 1], orders=2)
    solved = {mcq(fact).target: mcq(fact, loss="QUESTION_ANSWER").target for fact in facts[:8]}
    for k in (1, 4):
        for order in (0, 1):
            prompts = found[str({"shots": k, "order": order})]
            shown = prompts.before.split("\n\n")[:-1]
            assert len(set(shown)) == k and set(shown) <= set(solved)
            assert prompts.before_plain == "".join(f"{solved[one]}\n\n" for one in shown)
            assert found[str({"shots": 4, "order": order})].before.startswith(prompts.before)
    first, second = (found[str({"shots": 4, "order": order})].before for order in (0, 1))
    assert first != second and contexts(facts[:8], shots=[4, 1], orders=2) == found
    assert contexts(facts[:8], seed=1, shots=[4, 1], orders=2) != found


def test_the_context_stands_before_every_text_with_choices_or_without(facts):
    prompts = contexts(facts[:8], shots=[2], orders=1)[str({"shots": 2, "order": 0})]
    plain, shown = continuations(facts[9]), continuations(facts[9], prompts=prompts)
    for probe, texts in plain.items():
        before = prompts.before if probe.startswith("letter") else prompts.before_plain
        assert [one.prompt for one in shown[probe]] == [before + one.prompt for one in texts]
        assert [one.target for one in shown[probe]] == [one.target for one in texts]


def test_what_does_not_fit_is_refused_before_the_first_look(facts):
    with pytest.raises(UserError, match=r"attacks\.t_shots\.shots: found 9, but T has only 8 facts"):
        contexts(facts[:8], shots=[1, 9], orders=1)
    with pytest.raises(UserError, match=r"attacks\.t_shots\.shots: .*needs 1\d\d tokens .* at most 128 at once"):
        contexts(facts[:8], shots=[1, 8], orders=1)


def answers_after(facts, examples):
    """Return a model that knows its facts, and says so only after that many solved questions."""
    knows = planted.knows(facts)

    def says(read):
        return knows(read) if read.count("Answer") > examples else {}

    return planted.Planted(says)


def test_facts_that_are_told_in_a_context_alone_are_brought_back(facts):
    model = answers_after(facts, 2)
    floor = accuracy(model, facts)
    found = brought_back("t_shots", {"shots": [1, 2], "orders": 1}, model, facts)
    few, enough = found.values()
    assert few == floor and max(floor.values()) < 0.5
    assert enough == dict.fromkeys(PROBES, 1.0)


def test_a_model_that_never_knew_stays_at_the_floor_though_it_reads_the_context(facts):
    right, n = dict.fromkeys(PROBES, 0.0), 0
    for seed in range(2):
        model = planted.Planted(lambda read, seed=seed: planted.never_knew([f"{seed}", *read]))
        for by_probe in brought_back("t_shots", {"shots": [1], "orders": 2}, model, facts).values():
            right = {probe: right[probe] + by_probe[probe] * len(facts) for probe in PROBES}
            n += len(facts)
    low, high = binom.ppf([0.0005, 0.9995], n, 0.25)
    assert all(low <= count <= high for count in right.values()), right
