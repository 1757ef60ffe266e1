"""What a study costs: against the code that spends it (corpus, scorer, optimizers, candidates, statistics), Snakemake's
own dry run, and figures worked out by hand.
"""

import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tiny
import torch
from rtt.__main__ import main
from rtt.data.build import build_facts
from rtt.data.facts import Fact, read_facts
from rtt.errors import UserError
from rtt.models.miniature import miniature, miniature_tokenizer
from rtt.planner import costs, memory
from rtt.planner import text as plan_text
from rtt.planner.gpus import DEVICES, device_of
from rtt.planner.plan import MFU, Plan, make
from rtt.planner.precision import half_widths
from rtt.point_choice.kept_weights import KeptWeights
from rtt.scoring.score import Scorer
from rtt.stats.point_rule import best
from rtt.stats.recovery import recover
from rtt.study import plugins
from rtt.study import settings as study_settings
from rtt.study.load import load_study
from rtt.study.model_file import FOLDER, ModelFile, load_modelfile
from rtt.study.names import BY_DEFAULT
from rtt.study.settings import Model, Unlearning
from rtt.training import kahan
from rtt.training.kahan import KahanAdamW, KahanLion
from rtt.training.order import count_tokens, point_steps, pretraining_documents, training_passes, unlearning_pairs
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

ROOT = Path(__file__).parents[2]
UPSTREAM = Path(os.environ.get("RTT_UPSTREAM_DATA") or ROOT.parent / "shared" / "upstream-data")
PAPER = ROOT / "config/paper.yaml"
H100 = DEVICES["h100"]
LLAMA = 8_030_261_248


@pytest.fixture(autouse=True)
def _model_files(monkeypatch):
    monkeypatch.chdir(ROOT)  # studies name model files by config/models


def plan_of(study, folder, device=H100) -> Plan:
    """A plan that sees no results of this checkout."""
    return Plan(study, device, MFU, folder)


def first(specs: dict):
    return next(iter(specs.values()))


# --- parameters

SHAPES = {  # vocabulary, hidden, mlp, layers, heads, KV heads, tied, biases of q, k, v: the models' config.json
    "llama-3-8b": (128256, 4096, 14336, 32, 32, 8, False, False),
    "llama-3-70b": (128256, 8192, 28672, 80, 64, 8, False, False),
    "zephyr-7b-beta": (32000, 4096, 14336, 32, 32, 8, False, False),
    "qwen2.5-3b-instruct": (151936, 2048, 11008, 36, 16, 2, True, True),
    "smollm2-135m-instruct": (49152, 576, 1536, 30, 9, 3, True, False),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")) or sorted(SHAPES))
def test_a_model_file_s_parameters_are_those_of_its_shape(name):
    vocabulary, h, mlp, layers, heads, kv, tied, biases = SHAPES[name]
    queries, keys = h * h, h * (h // heads) * kv
    layer = 2 * queries + 2 * keys + 3 * h * mlp + 2 * h + (h + 2 * (h // heads) * kv if biases else 0)
    assert costs.parameters(load_modelfile(name)) == vocabulary * h * (1 if tied else 2) + layers * layer + h
    assert memory.shape_of(load_modelfile(name)).keys == h // heads * kv


@pytest.mark.parametrize("kind", ["word", "subword"])
def test_the_miniature_s_parameters_are_those_of_the_real_model(kind):
    shape = Model(hidden_size=24, intermediate_size=40, layers=3, heads=2, tokenizer=kind)
    real = miniature(shape, len(miniature_tokenizer(kind)))
    assert costs.parameters(shape) == sum(parameter.numel() for parameter in real.parameters())


# --- jobs


@pytest.mark.parametrize("name", ["paper", "faithful"])
def test_jobs_are_those_of_snakemake_s_dry_run(name, tmp_path):
    for folder in ("config", "data"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "-n", "-c1", "--scheduler", "greedy"),
            *("-s", ROOT / "Snakefile", "-d", tmp_path, "--configfile", ROOT / f"config/{name}.yaml"),
        ],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = re.search(r"^job +count\n[- ]+\n(.*?)^total", done.stdout + done.stderr, re.MULTILINE | re.DOTALL)[1]
    jobs = {line.split()[0]: int(line.split()[1]) for line in told.splitlines()}
    plan = make(load_study(ROOT / f"config/{name}.yaml"), H100, root=tmp_path)
    assert {stage: bill["jobs"] for stage, bill in plan["stages"].items()} == {
        k: n for k, n in jobs.items() if k != "all"
    }
    assert plan["total"]["jobs"] == sum(jobs.values())


# --- tokens: the code that trains and scores


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny study whose data are there, its facts by dataset, and its plan."""
    root, study = tmp_path_factory.mktemp("world"), tiny.study(arms=["pretrained", "taught"])
    plan = Plan(study, H100, MFU, root)
    facts = {spec.dataset: tiny.facts(root, spec.dataset, spec.seed) for spec in plan.runs.data.values()}
    return study, facts, plan


def test_generated_facts_are_counted_before_they_are_there(world):
    _, facts, plan = world
    for spec in plan.runs.data.values():
        made = facts[spec.dataset]
        assert [f"split {name}: {n}" for name, n in plan.sizes.of(spec).splits.items()] == [
            f"split {name}: {sum(fact.split == name for fact in made)}" for name in dict.fromkeys(f.split for f in made)
        ]
        assert plan.sizes.of(spec).texts == costs.texts_of(made, costs.words)


def test_facts_that_the_audit_drops_are_not_counted(tmp_path):
    planted = tiny.GENERATOR | {"planted_leaks": 2, "planted_duplicates": 2, "first_names": 8}
    spec = first(plan_of(tiny.study(data={"generator": planted}), tmp_path).runs.data)
    found = plan_of(tiny.study(data={"generator": planted}), tmp_path).sizes.of(spec)
    raw = tiny.write_raw(tmp_path / "raw", spec.dataset, spec.seed, spec.raw.people.model_dump())
    made, _ = build_facts(raw, spec.dataset, None, spec.policy.model_dump(), spec.seed)
    rows = sum(len(path.read_text().splitlines()) for path in raw.glob("split_*.jsonl"))
    assert len(found) == len(made) < rows and found.texts == costs.texts_of(made, costs.words)


def test_a_plan_reads_the_facts_that_are_there_before_it_generates_them(world, tmp_path):
    study, facts, plan = world
    spec = first(plan.runs.data)
    path = tmp_path / "results" / study.study / "data" / spec.run_id / "facts.jsonl"
    path.parent.mkdir(parents=True)
    written = facts[spec.dataset][:5]
    path.write_text("".join(json.dumps(vars(fact)) + "\n" for fact in written))
    assert read_facts(path) == written
    assert len(plan_of(study, tmp_path).sizes.of(spec)) == 5


@pytest.mark.parametrize("loss", get_args(study_settings.LossName))
@pytest.mark.parametrize(
    ("samples", "batch", "near"),
    # Whole batches of all facts leave nothing to chance; otherwise facts are drawn, here or to fill the last batch.
    [(None, 4, 1e-9), (None, 5, 0.1), (3, 3, 0.1)],
)
def test_passes_have_the_tokens_of_the_real_ones(world, loss, samples, batch, near):
    facts = world[1]["birth_years_a"]
    texts, rng = costs.texts_of(facts, costs.words), np.random.default_rng(0)
    items = training_passes(facts, loss, 2, batch, tiny.tokenizer(), rng, samples)
    steps, tokens = texts.passes(len(facts), loss, 2, batch, samples)
    assert steps == len(items) / batch
    assert tokens == pytest.approx(count_tokens(items), rel=near)


@pytest.mark.parametrize(
    ("method", "share", "loss"),
    [("GD", 0.0, "LETTER"), ("RIA", 0.0, "LETTER"), ("FIF", 1.0, "QUESTION_ANSWER"), ("RMU", 0.5, "LETTER_ANSWER")],
)
def test_a_trajectory_has_the_tokens_of_the_real_one(tmp_path, method, share, loss):
    settings = {"learning_rate": 1e-3, "batch_size": 5, "epochs": 20, "mcq_share": share, "mcq_loss": loss}
    study = tiny.study(methods={method: settings})
    plan = plan_of(study, tmp_path)
    spec, kinds = first(plan.runs.unlearn), ("birth_years_a", "cities")
    facts, cities = (tiny.facts(tmp_path, kind) for kind in kinds)
    learn = [fact for fact in cities if fact.split == "train"]
    objective = plugins.methods()[method](tiny.model(), spec.settings, 0)
    items = unlearning_pairs(facts, learn, objective, spec.settings, tiny.tokenizer(), np.random.default_rng(0))
    bill = plan.trajectory(spec)
    assert bill.train_tokens == pytest.approx(count_tokens(items), rel=0.02)  # texts are drawn: a mean
    assert plan.points(spec) == 20 == len(point_steps(spec.settings, len(facts)))


def test_pretraining_has_the_tokens_of_the_real_documents(world):
    _, facts, plan = world
    settings = first(plan.runs.sources).training.model_copy(update={"steps": 200})
    parts = [facts["birth_years_a"], facts["cities"]]
    items = pretraining_documents([*parts[0], *parts[1]], settings, tiny.tokenizer(), np.random.default_rng(0))
    sizes = [costs.Facts({"x": len(part)}, costs.texts_of(part, costs.words), True) for part in parts]
    steps, tokens = costs.pretraining_tokens(sizes, settings)
    assert steps * settings.batch_size == len(items)
    assert tokens == pytest.approx(count_tokens(items), rel=0.01)


@pytest.mark.parametrize("probes", [["letter"], ["likelihood"], ["letter_permuted"], list(BY_DEFAULT)])
def test_scored_tokens_are_those_that_the_scorer_feeds(world, probes):
    facts = world[1]["birth_years_a"]
    scorer = Scorer(tiny.tokenizer(), facts, probes)
    fed = sum(map(len, scorer.prompts)) + sum(len(tail) - 1 for _, tail in scorer.targets)
    texts = costs.texts_of(facts, costs.words)
    assert len(facts) * texts.scored(probes) == pytest.approx(fed, rel=1e-9)
    assert fed == pytest.approx(_fed_to_the_model(scorer), rel=1e-9)


def _fed_to_the_model(scorer) -> int:
    """Tokens, without padding, that really go through a model; equal tails count as often as they are asked for."""
    model, seen = tiny.model(), []
    padded = scorer._padded
    scorer._padded = lambda model, rows: (seen.extend(rows), padded(model, rows))[1]
    scorer.scores(model)
    shared = sum(len(t) - 1 for _, t in scorer.targets) - sum(
        len(tail) for _, tail in {(p, t[:-1]) for p, t in scorer.targets if len(t) > 1}
    )
    return sum(map(len, seen)) + shared


@pytest.mark.parametrize("options", [{"points": [3, 9]}, {"epochs": 3}, {"epochs": 2, "samples": 7}, {"epochs": 1}])
@pytest.mark.parametrize("texts", [0, 10, 1000])
def test_points_are_those_of_the_corpus(options, texts, tmp_path):
    settings = Unlearning(learning_rate=1e-3, batch_size=4, mcq_share=0.0, **options)
    spec = first(plan_of(tiny.study(), tmp_path).runs.unlearn)
    made = [costs.TextsSpec(seed=0, group="wikitext", count=texts, digest="0" * 64)] if texts else []
    spec = spec.model_copy(update={"settings": settings, "texts": made})
    assert costs.points(spec, 21) == point_steps(settings, texts or 21, not texts)


def test_plain_texts_have_their_own_lengths_and_no_more_than_max_characters(tmp_path):
    assert set(costs.PLAIN) == set(get_args(study_settings.Texts))
    whole = costs.TextsSpec(seed=0, group="fineweb_edu", count=8, digest="0" * 64)
    cut = whole.model_copy(update={"max_characters": 2000})
    assert (costs.plain(whole), costs.plain(cut)) == (1030, pytest.approx(2000 / 4.5))
    spec = first(plan_of(tiny.study(), tmp_path).runs.unlearn)
    settings = spec.settings.model_copy(update={"mcq_share": 0.0})
    facts = costs.Facts({"x": 4}, costs.TYPICAL["years"], True)
    spec = spec.model_copy(update={"settings": settings, "texts": [cut]})
    steps, forget, kept = costs.unlearning_tokens(spec, facts, whole)
    assert (steps, forget, kept) == (2, pytest.approx(2 * 4 * 2000 / 4.5), pytest.approx(2 * 4 * 1030))


MMLU = ("mmlu_STEM", "mmlu_business", "mmlu_chemistry", "mmlu_culture", "mmlu_geography")
FOLDERS = {  # the authors' files: (TYPICAL's name, splits, how near `pieces` comes to SmolLM2's tokenizer)
    "dates-years-trimmed": [("years", [f"split_{i}" for i in range(5)], 0.05)],
    "mmlu_cats_random_trimmed": [("mmlu", MMLU, 0.05), ("mmlu_long", costs.MMLU_LONG, 0.05)],
    "random_bd": [("random_birthdays", [f"split_{i}" for i in range(10)], 0.25)],  # rare names: more tokens
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_typical_lengths_are_those_of_the_authors_files(folder):
    if not UPSTREAM.is_dir():
        why = f"NOT TESTED ON REAL DATA: {UPSTREAM} is absent; set RTT_UPSTREAM_DATA to the authors' data folder"
        warnings.warn(why, stacklevel=1)
        pytest.skip(why)

    def rows(name):
        return [json.loads(line) for line in (UPSTREAM / folder / f"{name}.jsonl").read_text().splitlines()]

    def mean(texts):
        return np.mean([costs.pieces(text) for text in texts])

    for name, splits, near in FOLDERS[folder]:
        mcqs = [row for split in splits for row in rows(split)]
        prompts = [
            f"{q['question']}\n" + "".join(f"{x}. {c}\n" for x, c in zip("ABCD", q["choices"], strict=True)) + "Answer:"
            for q in mcqs
        ]
        found = {
            "prompt": mean(prompts),
            "mcq": mean(f"{p} A. {q['choices'][q['answer']]}" for p, q in zip(prompts, mcqs, strict=True)),
            "question": mean(f"{q['question']}\nAnswer:" for q in mcqs),
            "answered": mean(f"{q['question']}\nAnswer: {q['choices'][q['answer']]}" for q in mcqs),
            "choice": mean(f" {choice}" for q in mcqs for choice in q["choices"]),
            "choices": np.mean([len(q["choices"]) for q in mcqs]),
            "chance": np.mean([1 / len(q["choices"]) for q in mcqs]),
        }
        for kind, prefix in (("sentence", ""), ("ria", "whp_"), ("fif", "fwf_")):
            found[kind] = mean(row["text"] for split in splits for row in rows(f"{prefix}corpus_{split}"))
        typical = {key: value for key, value in vars(costs.TYPICAL[name]).items() if key in found}
        assert typical == pytest.approx(found, rel=near) and len(found) == 10


# --- FLOPs, hours, and what point choice saves: the paper's study by hand

POINTS, RATES, SPLITS, EPOCHS = 5, 6, 2, 6
FINEWEB = 2000 / 4.5  # characters, characters a token
GD_TOKENS = 5 * 563 * 4 * (22.5 + FINEWEB)  # 5 epochs of ceil(3 x 750 / 4) steps of 4 pairs: a sentence, a FineWeb text
YEARS_SCORED = 4 * 59.2 + 27.2 + 4 * (5.0 - 1)  # four rotations, question, four choices but for their last tokens
MMLU_SCORED = 4 * 148.8 + 91.8 + 4 * (11.2 - 1)


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    os.chdir(ROOT)
    return Plan(load_study(PAPER), H100, MFU, tmp_path_factory.mktemp("none"))


def trajectory(paper, method, **settings):
    found = (s for s in paper.runs.unlearn.values() if s.source.facts.dataset == "years" and s.method == method)
    return next(s for s in found if all(getattr(s.settings, key) == value for key, value in settings.items()))


def test_gd_on_years_costs_6_flops_per_parameter_and_token_and_2_to_score(paper):
    bill = paper.trajectory(trajectory(paper, "GD", mcq_share=0.0, retain_coefficient=1))
    scored = POINTS * (750 * YEARS_SCORED + 785 * MMLU_SCORED)
    assert bill.train_tokens == pytest.approx(GD_TOKENS)
    assert bill.score_tokens == pytest.approx(scored)
    assert bill.flops == pytest.approx(6 * LLAMA * GD_TOKENS + 2 * LLAMA * scored)
    moved = 5 * 563 * LLAMA * 4 * 23 / 3.35e12  # 23 fp32 values a step and parameter
    products = 6 * LLAMA * GD_TOKENS / (0.3 * 989e12)
    assert bill.hours * 3600 == pytest.approx(products + 2 * LLAMA * scored / (0.3 * 989e12) + moved)
    assert bill.optimizer_hours * 3600 == pytest.approx(moved)


def test_checkpointing_runs_the_forward_pass_again(paper):
    again = Plan(paper.study.model_copy(update={"gradient_checkpointing": True}), H100)
    spec = trajectory(paper, "GD", mcq_share=0.0, retain_coefficient=1)
    more = again.trajectory(spec).flops - paper.trajectory(spec).flops
    assert more == pytest.approx(2 * LLAMA * GD_TOKENS)


def test_rmu_runs_8_of_32_layers_and_updates_three_matrices(paper):
    spec = trajectory(paper, "RMU", retain_coefficient=100)
    bill, layer = paper.trajectory(spec), LLAMA / 32
    forward = 2 * 8 * layer * GD_TOKENS
    activations = 2 * 3 * layer * GD_TOKENS  # back through layers 7, 6, 5
    weights = 2 * 3 * 0.25 * layer * GD_TOKENS
    frozen = 2 * 8 * layer * GD_TOKENS * FINEWEB / (22.5 + FINEWEB)
    scored = 2 * LLAMA * bill.score_tokens
    assert bill.flops == pytest.approx(forward + activations + weights + frozen + scored)


def test_rtt_on_one_checkpoint(paper):
    spec = next(s for s in paper.runs.attacks.values() if s.facts.dataset == "years")
    bill = paper.checkpoint(spec)
    assert bill.runs == RATES * SPLITS
    told = 66.2 + 22.5  # a question and a sentence
    assert bill.train_tokens == pytest.approx(RATES * SPLITS * EPOCHS * 600 * told)
    assert bill.score_tokens == pytest.approx(RATES * SPLITS * EPOCHS * 750 * YEARS_SCORED)
    assert bill.flops == pytest.approx(LLAMA * (6 * bill.train_tokens + 2 * bill.score_tokens))


def test_selection_saves_what_is_not_attacked(paper):
    found = paper.point_choice()
    grids = 4 * (10 + 25 + 10 + 10) + 2 * 4 * (10 + 10) + 4  # default, two formats, hiding
    groups = 4 * 4 + 2 * 4 * 2 + 1
    runs = {"whole_grid": grids * POINTS, "at_most": groups * 4, "at_least": groups}
    assert {name: found[name]["runs"] for name in runs} == {name: n * RATES * SPLITS for name, n in runs.items()}
    assert paper.stages["unlearn"].runs == grids
    others = [spec for spec in paper.runs.attacks.values() if not spec.unlearned]  # the originals and the controls
    beside = sum(paper.attack(spec, 1).flops for spec in others)
    assert found["at_most"]["flops"] == pytest.approx(paper.stages["attack"].flops - beside)


def test_frozen_layers_and_bf16_scoring_are_cheaper_in_every_phase(tmp_path):
    def cost(**changes):
        phases = {
            "attacks": {"RTT": {"learning_rates": [1e-3], "epochs": 1, "batch_size": 4}},
            "teaching": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3},
        }
        raw = {"teaching": phases["teaching"] | changes.get("teaching", {})}
        raw["attacks"] = {"RTT": phases["attacks"]["RTT"] | changes.get("RTT", {})}
        study = tiny.study(arms=["pretrained", "taught"], scores=changes.get("scores", {}), **raw)
        return plan_of(study, tmp_path).stages

    full, upper = cost(), {"train_layers": [1]}  # one of two layers: 2 + 1 + 1 of 6 FLOPs
    for phase, stage in (("RTT", "attack"), ("teaching", "teach")):
        trained = 6 * full[stage].train_tokens
        scored = 2 * full[stage].score_tokens
        ratio = cost(**{phase: upper})[stage].flops / full[stage].flops
        assert ratio == pytest.approx((trained * 4 / 6 + scored) / (trained + scored))
    half = cost(scores={"precision": "bf16"})["attack"]
    assert half.score_hours == pytest.approx(full["attack"].score_hours * 67 / 989)
    assert half.hours - half.score_hours == pytest.approx(full["attack"].hours - full["attack"].score_hours)


class Passes(TorchDispatchMode):
    """Count the values of two bytes of these tensors that operations read or write, the operations, and all bytes."""

    def __init__(self, *tensors):
        super().__init__()
        self.found = self.operations = self.bytes = 0
        self.own = {one.untyped_storage().data_ptr() for one in tensors}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if out is not None and not function._schema.is_mutable and any(r.alias_info for r in function._schema.returns):
            return out  # a view moves nothing
        written = [arg for given, arg in zip(function._schema.arguments, args, strict=False) if _writes(given)]
        kept = [arg for given, arg in zip(function._schema.arguments, args, strict=False) if not _writes(given)]
        if function._overloadpacket is not torch.ops.aten.copy_:
            kept += written  # it reads what it changes
        self.operations += 1
        self.bytes += sum(one.nbytes for one in tree_leaves([args, out]) if torch.is_tensor(one))
        for one in tree_leaves([written, kept]):
            if torch.is_tensor(one) and one.untyped_storage().data_ptr() in self.own:
                self.found += one.nbytes / 2
        return out


def _writes(given) -> bool:
    return given.alias_info is not None and given.alias_info.is_write


@pytest.mark.parametrize(("optimizer", "kind"), [("lion", KahanLion), ("adamw", KahanAdamW)])
def test_bf16_kahan_reads_and_writes_what_its_code_does(optimizer, kind, monkeypatch):
    weight = torch.nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
    made, gradient = kind([weight], 1e-3, (0.9, 0.99), 0.1), torch.ones_like(weight)
    monkeypatch.setattr(kahan, "SLICE", 300)
    weight.grad = gradient
    with Passes(weight, gradient, *(t for t in made.state[weight].values() if torch.is_tensor(t))) as seen:
        made.step()
    assert seen.found == 1000 * costs.KAHAN_PASSES[optimizer]
    # docs/plan.md, "What it does not know": in each of four slices, and with the fp32 copies
    assert (seen.operations // 4, seen.bytes) == {"lion": (22, 186_000), "adamw": (30, 258_000)}[optimizer]
    settings = study_settings.Training(learning_rate=1.0, batch_size=1, optimizer=optimizer, precision="bf16_kahan")
    assert costs.traffic(settings, 1000, 1) == 2 * (seen.found + 4 * 1000)  # clipping and the gradient itself
    released = settings.model_copy(update={"gradient_release": True})
    assert costs.traffic(released, 1000, 1) == 2 * (seen.found + 2 * 1000)  # written, and read for its norm


# --- disk: what the real KeptWeights holds (memory: test_plan_memory.py)


def _most_files(folder, order, budgets, trajectories, points_each, seed) -> int:
    """Let trajectories report points in the given order to the real KeptWeights; return the most weight files at once,
    counting the one being written.
    """
    rng, most = np.random.default_rng(seed), 0
    places = [folder / f"run-{i}" for i in range(trajectories)]

    def wanted(points):
        return best(points, {"letter": 1.0}, budgets, "strongest")

    def save(path):
        nonlocal most
        path.write_bytes(b"w")
        most = max(most, len(list(folder.glob("*/step-*"))))

    made = [KeptWeights(place, [p for p in places if p != place], folder / ".lock", wanted) for place in places]
    for step in range(1, points_each + 1):
        for i in range(trajectories):
            # order: what is forgotten costs retain accuracy, so that every budget wants another point
            harm = (
                rng.random()
                if order == "random"
                else ((step - 1) * trajectories + i + 1) / (points_each * trajectories + 1)
            )
            forget = 1 - 0.7 * harm
            point = {
                "run": f"run-{i}", "step": step, "forget": {"letter": forget}, "floor": {"letter": 0.25},
                "distance": abs(forget - 0.25), "at_floor": False, "retain": {"letter": 1 - 0.6 * harm},
            }  # fmt: skip
            made[i].add(point, save)
    return most


@pytest.mark.parametrize("order", ["random", "worse and worse"])
@pytest.mark.parametrize("budgets", [[0.1], [0.05, 0.1, 0.3, 1.0]])
def test_a_group_never_has_more_weights_on_disk_than_planned(order, budgets, tmp_path):
    planned = len(budgets) + 1
    most = [_most_files(tmp_path / str(seed), order, budgets, 3, 6, seed) for seed in range(5)]
    assert max(most) <= planned
    if order == "worse and worse":
        assert max(most) == planned  # and it comes to that
    study = tiny.study(
        methods={"GD": {"learning_rate": 1e-3, "batch_size": 4, "points": [1, 2, 3, 4, 5, 6]}}, retain_budgets=budgets
    )
    plan = plan_of(study, tmp_path)
    assert plan.disk()["largest_group"] == 4 * costs.parameters(study.model) * planned


def test_disk_of_the_paper_by_hand(paper):
    disk = paper.disk()
    assert disk["imports"] == 2 * LLAMA  # bf16
    assert disk["sources"] == 2 * 4 * LLAMA  # taught with fp32 weights, with two kinds of retain texts
    assert disk["largest_group"] == 5 * 4 * LLAMA
    assert disk["state"] == 2 * 4 * LLAMA  # weights and Lion's one state
    fixed = disk["imports"] + disk["sources"] + disk["evals"] + 2 * disk["state"]
    assert disk["at_least"] == fixed + disk["largest_group"]
    assert disk["at_most"] - disk["at_least"] == pytest.approx(32 * 5 * 4 * LLAMA)


def test_evaluations_have_about_the_planned_size(world):
    from rtt.files import canonical_json

    study, facts, _ = world
    scorer = Scorer(tiny.tokenizer(), facts["birth_years_a"])
    questions = scorer.questions(tiny.model(), lambda fact: "V") * 50
    size = len(canonical_json({"looks": [{"questions": questions}]}))
    assert costs.eval_bytes(len(questions), study.scores.probes) == pytest.approx(size + costs.FILE_BYTES, rel=0.05)


# --- intervals: the statistics module's, on simulated answers


@pytest.mark.parametrize("n", [160, 300])
@pytest.mark.parametrize(("original", "attacked"), [(0.8, 0.5), (0.72, 0.68), (0.6, 0.3)])
def test_expected_widths_are_those_of_the_bootstrap(n, original, attacked):
    rng, times = np.random.default_rng(n), 150
    answers = [rng.random((times, n)) < p for p in (original, 0.25, attacked)]
    strata = np.repeat([0, 1], n // 2)
    found = recover(*answers, strata, 0.25, 1000)
    expected = half_widths(n, original, attacked)
    for name, (_, low, high) in found.items():
        assert expected[name] == pytest.approx(np.nanmedian(high - low) / 2, rel=0.1), name


def test_answers_that_go_together_make_narrower_intervals_than_planned():
    rng, n, times = np.random.default_rng(0), 300, 100
    hard = rng.random((times, n))  # the same questions are hard for all
    found = recover(*(hard < p for p in (0.8, 0.25, 0.5)), np.repeat([0, 1], n // 2), 0.25, 1000)
    expected = half_widths(n, 0.8, 0.5)
    for name in ("recovery", "recovery_corrected", "recovery_difference"):
        assert np.median(found[name][2] - found[name][1]) / 2 < 0.95 * expected[name]


def test_accuracies_have_wilson_s_interval():
    # 50 of 100: Wilson's interval is .4038 to .5962 (Newcombe 1998's formula, by hand)
    assert half_widths(100, 0.8, 0.5)["accuracy_at_0.5"] == pytest.approx((0.5962 - 0.4038) / 2, abs=1e-4)


# --- the command


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--gpu", "abacus"], "h100"),
        (["--mfu", "2"], "--mfu"),
        (["--flops", "-1"], "--flops"),
        (["--flops", "1e12", "--mfu", ".5"], "give one"),
        (["--at", ".2", ".5"], "--at"),
        (["--disk", "0"], "--disk"),
    ],
)
def test_a_wrong_option_is_named(arguments, says, capsys):
    assert main(["plan", "config/smoke.yaml", *arguments]) != 0
    told = capsys.readouterr()
    assert says in told.err and "Traceback" not in told.err and not told.out


def test_a_model_file_without_a_count_is_named():
    with pytest.raises(UserError, match="parameters"):
        costs.parameters(ModelFile(name="mine", path="somewhere"))


def test_a_model_folder_is_counted(tmp_path):
    """Of a GPT-NeoX, whose config.json and tensors have other names than Llama's; a damaged file is named."""
    shape = {"hidden_size": 8, "num_hidden_layers": 3, "intermediate_size": 24, "num_attention_heads": 2}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=50, **shape))
    model.save_pretrained(tmp_path)
    file, count = ModelFile(name="mine", path=str(tmp_path)), sum(p.numel() for p in model.parameters())
    assert costs.parameters(file) == count
    assert memory.shape_of(file) == memory.Shape(count, 3, 8, 24, 50)
    (tmp_path / "model.safetensors").write_bytes(b"no header")
    with pytest.raises(UserError, match=r"model\.safetensors: no safetensors header"):
        costs.parameters(file)


def test_flops_of_one_s_own_set_the_time():
    plan = make(load_study("config/smoke.yaml"), device_of("cpu", 5e10), 1.0)
    assert plan["total"]["hours"] * 3600 == pytest.approx(plan["total"]["flops"] / 5e10)


def test_the_docs_show_the_paper_s_plan(tmp_path):
    block = re.search(r"```\n(Plan of config/paper.yaml.*?)\n```", (ROOT / "docs/plan.md").read_text(), re.DOTALL)
    now = plan_text.show(make(load_study(PAPER), H100, root=tmp_path), "config/paper.yaml")
    assert block and block[1] == now, "paste what `python -m rtt plan config/paper.yaml` prints into docs/plan.md"


def test_other_numbers_of_choices_are_counted():
    """Two questions of two and of five choices, each choice a word and a question three; no sentences."""
    shared = {"dataset": "d", "split": "s", "sentences": [], "ria_sentences": [], "fif_sentences": [], "origin": {}}
    facts = [
        Fact(id=str(k), question="One two three", choices=["x"] * k, answer=1, fresh_choices=["x"] * k, **shared)
        for k in (2, 5)
    ]
    found = costs.texts_of(facts, lambda text: float(len(text.split())))
    assert (found.choices, found.chance) == (3.5, (1 / 2 + 1 / 5) / 2)
    # A prompt is the question, "A. x" for each choice and "Answer:"; a choice of one token needs no further one.
    assert found.prompt == 3 + 2 * 3.5 + 1 and found.scored(["letter"]) == found.prompt
    assert found.scored(["letter", "letter_permuted"]) == 3.5 * found.prompt  # the first rotation is `letter`
    assert found.scored(["few_shot"]) == found.prompt + 4 * found.mcq
    longer = replace(found, choice=3.0, sentence=8.0)
    assert longer.scored(["cloze"]) == 5 + 3.5 * (3 - 1)
    assert longer.scored(["likelihood", "likelihood_fresh"]) == longer.question + 2 * 3.5 * (3 - 1)
    assert half_widths(100, 0.8, 0.5, 0.5)["recovery_difference"] == pytest.approx(
        1.96 * (2 * 0.25 / 100) ** 0.5, rel=1e-4
    )
