"""What the plan says an attack without training reads, against what a real one shows to its model."""

from contextlib import contextmanager

import pytest
import tiny
import torch
from rtt.attacks.base import Asker, Checkpoint
from rtt.planner.costs import Facts, texts_of
from rtt.planner.gpus import DEVICES
from rtt.planner.plan import MFU, Plan
from rtt.scoring.score import Scorer
from rtt.study import plugins

PROBES = ("letter", "letter_permuted", "likelihood")
MORE = tiny.GENERATOR | {"facts_per_split": 32, "retain_train": 32, "first_names": 16, "last_names": 16}
BACKWARD = 3  # a token that is read forward and backward counts three times (rtt.attacks.base.Cost)
CASES = {
    "quantise": {"bits": [8, 4], "group_sizes": [None]},
    "noise": {"sigmas": [0.1, 0.2, 0.3]},
    "lens": {"layers": [0]},
    "linear_probe": {"layers": [0, 1], "inverse_penalties": [0.1, 1.0]},
    "project": {"layers": ["all"], "directions": ["mean", 1]},
    "prune": {"p": [0.05], "q": [0.02]},
    "sampling": {"samples": [1, 3], "temperatures": [1.0], "tokens": 5},
}


@contextmanager
def counted(model):
    """Count the tokens that the model reads: [forward alone, with gradients]."""
    read = [0, 0]

    def count(module, args, kwargs):
        ids = kwargs.get("input_ids", args[0] if args else None)
        mask = kwargs.get("attention_mask")
        new = ids.shape[1] * ids.shape[0] if mask is None or mask.shape != ids.shape else int(mask.sum())
        read[int(torch.is_grad_enabled())] += new

    hook = model.register_forward_pre_hook(count, with_kwargs=True)
    yield read
    hook.remove()


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """Two splits of facts, and facts that had to stay."""
    folder = tmp_path_factory.mktemp("facts")
    retain = tiny.facts(folder / "r", "cities", options=MORE)
    return tiny.facts(folder / "a", options=MORE), [fact for fact in retain if fact.split == "train"]


@pytest.mark.parametrize("name", CASES)
def test_the_plan_counts_what_is_read(name, facts, tmp_path):
    asked, retain = facts
    plugin, tokenizer = plugins.attacks()[name], tiny.tokenizer()
    settings = plugin.Settings(**CASES[name])
    model = tiny.model(0)
    start = {key: value.clone() for key, value in model.state_dict().items()}
    splits = list(dict.fromkeys(fact.split for fact in asked))
    memo = {}

    def tokens(text: str) -> float:
        return float(len(tokenizer(text)["input_ids"]))

    texts = texts_of(asked, tokens)
    with counted(model) as read:
        for fold, v_split in enumerate(splits if plugin.uses_t else [None]):
            of_v = [fact for fact in asked if v_split in (None, fact.split)]
            scorer = Scorer(tokenizer, of_v, PROBES)

            def look(setting, asker, scorer=scorer, of_v=of_v):
                asker = asker if isinstance(asker, Asker) else Asker(asker)
                if asker.sample:
                    asker.sample([f"{fact.question}\nAnswer:" for fact in of_v])
                elif asker.score:
                    asker.score(scorer.texts)
                else:
                    scorer.scores(asker.model)

            t_facts = [fact for fact in asked if fact.split != v_split] if plugin.uses_t else []
            checkpoint = Checkpoint(
                model, tokenizer, 0, fold if plugin.uses_t else None, lambda: model.load_state_dict(start),
                lambda key, train: train(None), retain=retain, memo=memo,
            )  # fmt: skip
            plugin(settings).fit(checkpoint, t_facts, look)
    stay = [Facts({"train": len(retain)}, texts_of(retain, tokens), exact=True)] if plugin.uses_retain else []
    costs = [plugin.cost(settings, sum(fact.split != v_split for fact in asked), texts, *stay) for v_split in splits]
    planned = (costs[0].looks * costs[0].longer * texts.scored(PROBES) + costs[0].more) * len(asked)
    planned += costs[0].once + (sum(one.t_read for one in costs) if plugin.uses_t else 0)
    study = tiny.study(data={"generator": MORE | {"choice_facts": 0}}, methods={}, attacks={name: CASES[name]},
                       scores={"probes": list(PROBES)})  # fmt: skip
    plan = Plan(study, DEVICES["h100"], MFU, tmp_path)
    spec = next(one for one in plan.runs.attacks.values() if one.arm != "control")
    assert plan.checkpoint(spec).score_tokens == pytest.approx(planned)
    assert read[0] + BACKWARD * read[1] == pytest.approx(planned, rel=0.1)
