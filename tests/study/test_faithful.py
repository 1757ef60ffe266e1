"""The faithful switches of config/faithful.yaml: each changes loss, batch or data at all, and nothing else."""

import json
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("torch")
import tiny
import torch
from evals_builder import make_evals
from places import ROOT
from rtt.__main__ import main
from rtt.data.build import build_facts
from rtt.data.text import encode, mcq, sentence
from rtt.files import canonical_json
from rtt.methods.gd import GD
from rtt.models.load import load_tokenizer
from rtt.models.miniature import miniature, miniature_tokenizer
from rtt.stats.tables import read_table
from rtt.steps.original import scorer_of
from rtt.study.expand import Runs
from rtt.study.load import load_study
from rtt.training.collate import collate
from rtt.training.losses import plain_loss, text_loss
from rtt.training.order import unlearning_pairs
from rtt.training.train import cast, make_optimizer, prepare_torch, train

FILE = ROOT / "config/faithful.yaml"
STUDY = load_study(FILE)
RUNS = Runs(STUDY)
SWITCHES = ("padding", "bare_letter", "half_precision", "unshuffled_retain", "select_on_v", "leaky_facts")
SHAPE = STUDY.model.model_copy(update={"hidden_size": 16, "intermediate_size": 24, "layers": 2, "heads": 2})


@pytest.fixture(scope="module")
def tokenizer():
    return miniature_tokenizer(STUDY.model.tokenizer)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """{dataset: folder of the study's generated files}."""
    options = STUDY.data.generator.model_dump()
    folder = tmp_path_factory.mktemp("raw")
    return {name: tiny.write_raw(folder / name, name, 0, options) for name in ("birth_years_a", "cities")}


def facts_of(raw, variant, dataset="birth_years_a"):
    """The facts that a variant trains on, by the real reader and policy."""
    policy = STUDY.variant(variant).data.policy.model_dump()
    return build_facts(raw[dataset], dataset, None, policy, 0)[0]


def retain_of(raw):
    return [fact for fact in facts_of(raw, "default", "cities") if fact.split == "train"]


def model(tokenizer, scale=4.0):
    """A tiny model with the study's tokenizer, its outputs far from uniform."""
    torch.manual_seed(0)
    made = miniature(SHAPE, len(tokenizer))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    return made


def settings(variant, **changes):
    """GD's settings in a variant, shortened."""
    return STUDY.variant(variant).methods.GD.model_copy(update={"points": [2], "batch_size": 8, **changes})


def pairs(variant, raw, tokenizer, **changes):
    """The pairs that GD trains on in a variant."""
    s = settings(variant, **changes)
    rng = np.random.default_rng([0, 20])
    return unlearning_pairs(facts_of(raw, "default"), retain_of(raw), GD, s, tokenizer, rng)


# --- the study


def differences(one, other, path=()):
    """Dotted paths at which two studies differ."""
    if isinstance(one, dict) and isinstance(other, dict) and set(one) == set(other):
        return [found for key in one for found in differences(one[key], other[key], (*path, key))]
    return [] if one == other else [".".join(path)]


def test_the_study_runs_each_switch_alone_over_three_seeds():
    assert len(STUDY.seeds) >= 3 and STUDY.faithful == []
    assert {name: patch["faithful"] for name, patch in STUDY.variants.items()} == {name: [name] for name in SWITCHES}


@pytest.mark.parametrize(
    "switch, changed",
    [
        ("padding", ["methods.GD.count_padding", "attacks.RTT.count_padding"]),
        ("bare_letter", ["scores.bare_letter"]),
        ("half_precision", ["methods.GD.precision", "attacks.RTT.precision"]),
        ("unshuffled_retain", ["methods.GD.shuffle_retain"]),
        ("select_on_v", []),
        (
            "leaky_facts",
            [
                "data.policy.conflicting_answer", "data.policy.duplicate_choice", "data.policy.duplicate_question",
                "data.policy.split_leak",
            ],
        ),
    ],
)  # fmt: skip
def test_a_switch_sets_its_own_keys_alone(switch, changed):
    default, variant = (STUDY.variant(name).model_dump(mode="json") for name in ("default", switch))
    assert sorted(differences(default, variant)) == sorted([*changed, "faithful"])


def kinds_of_runs(name):
    """{kind: ids} of a variant's runs in the plan."""
    found = {}
    for stem in RUNS.variants[name]["evals"]:
        kind = stem.split("-")[0] + ("-control" if stem.endswith("/control") else "")
        found.setdefault(kind, set()).add(stem)
    return found


@pytest.mark.parametrize(
    "switch, own",
    [
        ("padding", {"unlearn", "attack", "attack-control"}),
        ("bare_letter", {"pretrain", "original", "unlearn", "attack", "attack-control"}),
        ("half_precision", {"unlearn", "attack", "attack-control"}),
        ("unshuffled_retain", {"unlearn", "attack"}),
        ("select_on_v", set()),
        ("leaky_facts", {"pretrain", "original", "unlearn", "attack", "attack-control"}),
    ],
)
def test_a_switch_runs_anew_what_it_reaches_and_shares_the_rest(switch, own):
    default, variant = kinds_of_runs("default"), kinds_of_runs(switch)
    assert {kind: len(ids) for kind, ids in default.items()} == {kind: len(ids) for kind, ids in variant.items()}
    assert {kind for kind in default if default[kind] != variant[kind]} == own
    assert all(not default[kind] & variant[kind] for kind in own)


def test_without_a_switch_nothing_changes(tmp_path):
    path = tmp_path / "plain.yaml"
    text = FILE.read_text(encoding="utf-8")
    path.write_text(text[: text.index("variants:")] + "variants: {plain: {faithful: []}}\n", encoding="utf-8")
    variants = Runs(load_study(path)).variants
    assert variants["plain"] == variants["default"] == RUNS.variants["default"]


# --- padding: the loss


def test_padding_changes_labels_and_loss(tokenizer, raw):
    texts = sorted({text for fact in facts_of(raw, "default") for text in fact.sentences}, key=len)
    short, long = (encode(tokenizer, sentence(text)) for text in (texts[0], texts[-1]))
    losses, counted = {}, {}
    for name in ("default", "padding"):
        batch = collate([short, long], tokenizer.pad_token_id, settings(name).count_padding)
        counted[name] = int((batch["labels"] == tokenizer.pad_token_id).sum())
        losses[name] = float(text_loss(model(tokenizer), batch).detach())
    gap = abs(len(long["input_ids"]) - len(short["input_ids"]))
    assert gap > 5 and counted == {"default": 0, "padding": gap}
    assert abs(losses["padding"] - losses["default"]) > 0.01


def test_padding_changes_nothing_where_there_is_none(tokenizer, raw):
    """Texts of one length: the same loss, to the rounding of fp32."""
    fact = facts_of(raw, "default")[0]
    examples = [encode(tokenizer, mcq(fact, order=order)) for order in ([0, 1, 2, 3], [3, 1, 0, 2])]
    assert len({len(example["input_ids"]) for example in examples}) == 1
    losses = [
        float(
            text_loss(
                model(tokenizer), collate(examples, tokenizer.pad_token_id, settings(name).count_padding)
            ).detach()
        )
        for name in ("default", "padding")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_padding_changes_unlearning_itself(tokenizer, raw):
    """Two steps of GD by the real Trainer on the study's texts: another loss, and other weights after it."""
    weights, losses = {}, {}
    for name in ("default", "again", "padding"):
        s = settings("default" if name == "again" else name)
        prepare_torch(0)
        made = model(tokenizer)
        losses[name] = train(made, tokenizer, pairs("default", raw, tokenizer), GD(made, s, 0).step, s, 0)
        weights[name] = made.model.layers[0].mlp.down_proj.weight.detach()
    assert losses["default"] == losses["again"] and torch.equal(weights["default"], weights["again"])
    for part in ("forget", "retain"):
        assert abs(losses["padding"][0][part] - losses["default"][0][part]) > 1e-3  # the rounding of fp32 is 1e-6
    assert not torch.equal(weights["padding"], weights["default"])


# --- bare_letter: the score


def test_bare_letter_scores_other_tokens(tokenizer, raw):
    facts, made = facts_of(raw, "default")[:3], model(tokenizer)
    pieces, scores = {}, {}
    for name in ("default", "bare_letter"):
        spec = next(s for s in Runs(STUDY).sources.values() if s.scores == STUDY.variant(name).scores)
        scorer = scorer_of(spec, tokenizer, facts, [])
        questions = scorer.questions(made, lambda fact: "V")
        scores[name] = {kind: [q["probes"][kind]["scores"] for q in questions] for kind in ("letter", "likelihood")}
        ids = [tokens[0] for prompt, tokens in scorer.targets[:4]]
        pieces[name] = tokenizer.convert_ids_to_tokens(ids)
        assert len({tokenizer.decode(scorer.prompts[prompt])[-7:] for prompt, _ in scorer.targets[:4]}) == 1
    assert pieces == {"default": [f"\u0120{x}" for x in "ABCD"], "bare_letter": list("ABCD")}
    assert scores["default"]["likelihood"] == scores["bare_letter"]["likelihood"]
    gaps = np.abs(np.subtract(scores["default"]["letter"], scores["bare_letter"]["letter"]))
    assert gaps.min() > 1e-4  # every one of the letters


# --- half_precision: the weights


@pytest.mark.parametrize("phase, dtype", [("unlearning", torch.bfloat16), ("rtt", torch.float16)], ids=["bf16", "fp16"])
def test_half_precision_holds_weights_and_optimizer_in_half(tokenizer, phase, dtype):
    for name, expected in (("default", torch.float32), ("half_precision", dtype)):
        study = STUDY.variant(name)
        s = study.methods.GD if phase == "unlearning" else study.attacks.RTT.at(1e-3)
        made = model(tokenizer)
        cast(made, s.precision)
        optimizer = make_optimizer(made, s)
        batch = collate([encode(tokenizer, sentence("Ada Abbas was born in 1950."))], tokenizer.pad_token_id)
        plain_loss(made, batch)["loss"].backward()
        optimizer.step()
        assert {p.dtype for p in made.parameters()} == {expected}
        held = [v for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v) and v.dim() > 0]
        assert held and {v.dtype for v in held} == {expected}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_small_step_moves_few_weights_in_half(tokenizer, raw, precision):
    """One Lion step of 1e-6. Which weights can move: those whose nearest number in half is another after the step, by
    numpy (fp16) or by the spacing of bf16, 8 bits of mantissa (a float32's exponent, less 8)."""
    assert precision in (
        STUDY.variant("half_precision").methods.GD.precision,
        STUDY.variant("half_precision").attacks.RTT.precision,
    )
    rate = 1e-6
    s = STUDY.attacks.RTT.at(rate).model_copy(
        update={"optimizer": "lion", "batch_size": 4, "warmup_steps": 0, "decay": 0.0}
    )
    examples = [encode(tokenizer, mcq(fact)) for fact in facts_of(raw, "default")[:4]]
    share = {}
    for name in ("fp32", precision):
        made = model(tokenizer, scale=1.0)
        cast(made, name)
        before = made.model.layers[0].mlp.up_proj.weight.detach().clone()
        train(made, tokenizer, examples, plain_loss, s.model_copy(update={"precision": name}), 0)
        share[name] = float((made.model.layers[0].mlp.up_proj.weight.detach() != before).float().mean())
        values = np.abs(before.float().numpy())
    if precision == "fp16":
        spacing = np.spacing(values.astype(np.float16)).astype(float)
    else:
        spacing = 2.0 ** (np.frexp(values)[1] - 8.0)
    assert share["fp32"] > 0.97
    # A weight moves for certain if the step is longer than half a spacing; at a power of 2 the spacing below is half.
    assert share[precision] == pytest.approx(float((spacing < 2 * rate).mean()), abs=0.02)
    assert share[precision] < 0.2


# --- unshuffled_retain: the batch


def retain_names(items, tokenizer):
    """The person of each retain text, as it is trained on."""
    from rtt.data.generate import FIRST_NAMES, LAST_NAMES

    found = []
    for item in items:
        words = tokenizer.decode(item["retain"]["input_ids"]).replace("?", " ").replace(".", " ").split()
        found.append(" ".join(word for word in words if word in {*FIRST_NAMES, *LAST_NAMES}))
    return found


def test_unshuffled_retain_takes_the_files_order(tokenizer, raw):
    retain = [" ".join(fact.question.rstrip("?").split()[2:4]) for fact in retain_of(raw)]
    many = {"points": [2 * len(retain) // 16], "batch_size": 16}  # two passes
    default, again, unshuffled = (
        pairs(name, raw, tokenizer, **many) for name in ("default", "default", "unshuffled_retain")
    )
    assert retain_names(default, tokenizer) == retain_names(again, tokenizer)
    order = retain_names(unshuffled, tokenizer)
    assert order == [retain[i % len(retain)] for i in range(len(order))]
    assert order != retain_names(default, tokenizer)
    assert Counter(order) == Counter(retain_names(default, tokenizer))  # the same texts' facts, as often
    batches = [set(names[:16]) for names in (order, retain_names(default, tokenizer))]
    assert batches[0] != batches[1]  # the first batch holds others


def test_the_retain_set_is_larger_than_a_batch():
    """Otherwise each batch would hold all of it, in any order, and unshuffled_retain could change little."""
    assert STUDY.data.generator.retain_train > STUDY.methods.GD.batch_size


# --- leaky_facts: the data


def test_leaky_facts_keeps_what_the_default_drops(raw):
    planted, generator = STUDY.data.generator, STUDY.data.generator
    whole = generator.splits * generator.facts_per_split
    leaks, twice = planted.planted_leaks, planted.planted_duplicates
    assert leaks > 0 and twice > 0
    default, leaky = facts_of(raw, "default"), facts_of(raw, "leaky_facts")
    assert (len(default), len(leaky)) == (whole - leaks - twice, whole + leaks + twice)
    assert {fact.id for fact in default} < {fact.id for fact in leaky}
    places = {}
    for fact in leaky:
        places.setdefault(fact.question, []).append((fact.split, fact.choices[fact.answer]))
    crossing = [found for found in places.values() if len({split for split, _ in found}) > 1]
    assert len(crossing) == leaks and all(len({answer for _, answer in found}) == 1 for found in crossing)
    conflicting = [found for found in places.values() if len({answer for _, answer in found}) > 1]
    assert len(conflicting) == twice
    assert len({fact.question for fact in default}) == len(default)


def test_leaky_facts_changes_nothing_where_nothing_leaks(tmp_path):
    clean = STUDY.data.generator.model_dump() | {"planted_leaks": 0, "planted_duplicates": 0}
    folder = tiny.write_raw(tmp_path / "raw", "birth_years_a", 0, clean)
    default, leaky = (
        build_facts(folder, "birth_years_a", None, STUDY.variant(name).data.policy.model_dump(), 0)[0]
        for name in ("default", "leaky_facts")
    )
    assert default == leaky


# --- select_on_v: the report


def test_select_on_v_reports_the_papers_selection_of_the_same_runs(tmp_path, capsys):
    plan = RUNS.plan()["variants"]
    assert {name: variant["reported"] for name, variant in plan.items()} == {
        name: "paper" if name == "select_on_v" else "nested" for name in ("default", *SWITCHES)
    }
    assert plan["select_on_v"] | {"reported": "nested"} == plan["default"]
    # In the table: its effect is that of the choice of looks alone. Here the two learning rates know different splits.
    make_evals(tmp_path, arms=("pretrained",), methods=("GD",), splits=2, per_split=16, seeds=(0, 1), epochs=1)
    for path in (tmp_path / "evals").rglob("*.json"):
        document = json.loads(path.read_text())
        if (document["kind"], document["labels"]["target"]) != ("attacked", "unlearned"):
            continue
        for result in document["looks"]:
            knows = (result["setting"]["lr"] == 1e-3) == (result["v_split"] == "split_0")
            for question in [q for q in result["questions"] if q["role"] == "V"]:
                question["probes"]["letter"]["scores"] = [float((i == question["answer"]) is knows) for i in range(4)]
        path.write_text(json.dumps(document))
    stems = {
        kind: sorted(
            path.relative_to(tmp_path / kind).with_suffix("").as_posix() for path in (tmp_path / kind).rglob("*.json")
        )
        for kind in ("evals", "point_choices")
    }
    shown = {name: stems | {"reported": plan[name]["reported"]} for name in ("default", "select_on_v")}
    study = {"point_choice": {"probes": ["letter"]}}
    (tmp_path / "runs.json").write_text(json.dumps({"study": study, "variants": shown}))
    folders = [f"--evals={tmp_path / 'evals'}", f"--point-choices={tmp_path / 'point_choices'}"]
    assert main(["tables", *folders, f"--runs={tmp_path / 'runs.json'}", f"--out={tmp_path / 'tables'}"]) == 0
    table = read_table(tmp_path / "tables/variants.csv")
    effect = table[(table.quantity == "acc_attacked") & (table.probe == "letter")].set_index("look_choice")["mean"]
    # On V each split has a learning rate that answers all of it; one rate for both splits answers half.
    assert effect.to_dict() == {"paper - nested": 0.5}


def test_the_steps_themselves_score_another_token(tmp_path, raw):
    """`rtt pretrain`, two steps of it: the model has the study's tokenizer, and the switch changes letters alone."""
    from rtt.data.facts import write_facts

    scores = {}
    for name in ("default", "bare_letter"):
        study = STUDY.variant(name)
        training = study.pretraining.model_copy(update={"steps": 2, "warmup_steps": 0, "batch_size": 52})
        study = study.model_copy(update={"model": SHAPE, "pretraining": training, "seeds": [0], "variants": {}})
        spec = next(spec for spec in Runs(study).sources.values() if spec.kind == "pretrain")
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{spec.run_id}.json").write_text(canonical_json(spec.model_dump(mode="json")))
        write_facts(folder / "facts.jsonl", facts_of(raw, "default")[:4])
        write_facts(folder / "retain.jsonl", facts_of(raw, "default", "cities"))
        files = {"spec": f"{spec.run_id}.json", "facts": "facts.jsonl", "retain": "retain.jsonl"}
        files |= {"held-out": "retain.jsonl", "model": "model", "eval": "eval.json", "manifest": "manifest.json"}
        assert main(["pretrain", *(f"--{flag}={folder / file}" for flag, file in files.items())]) == 0
        assert load_tokenizer(folder / "model").tokenize("Answer: A") == ["Answer", ":", "\u0120A"]
        questions = json.loads((folder / "eval.json").read_text())["looks"][0]["questions"]
        scores[name] = {kind: [q["probes"][kind]["scores"] for q in questions] for kind in ("letter", "likelihood")}
    assert scores["default"]["likelihood"] == scores["bare_letter"]["likelihood"]
    gaps = np.subtract(scores["default"]["letter"], scores["bare_letter"]["letter"])
    assert np.abs(gaps).mean() > 0.01
