"""The authors' modes (docs/modes.md): each study file sets what their file of that name sets, by hand and by numpy."""

import re
from functools import cache

import numpy as np
import pytest
import tiny
from places import ROOT
from rtt.study.expand import Runs
from rtt.study.load import load_study, schema

FOLDER = ROOT / "config/modes"
MODES = [
    "default", "random_bd", "learn_random_bd", "ft_on_all", "just_eval", "only_ft", "letter_unlearn", "mcq_format",
    "many_cut_sc", "no_ft_many_cut_sc", "their_corpus_with_ft",
]  # fmt: skip


def log_range(start, end, step):
    """Their pipeline's get_log_range: start, start * step, ... below end. Here from its length, by logarithms."""
    length = np.ceil(np.log(end / start) / np.log(step) - 1e-9)
    return np.logspace(np.log10(start), np.log10(start) + (length - 1) * np.log10(step), int(length)).tolist()


def test_their_ranges_are_geometric_and_end_below_the_end():
    assert log_range(1e-7, 5e-6, 2) == pytest.approx([1e-7, 2e-7, 4e-7, 8e-7, 1.6e-6, 3.2e-6])  # the paper's six
    assert log_range(1e-3, 1e3, 10) == pytest.approx([0.001, 0.01, 0.1, 1, 10, 100])
    assert log_range(1e-1, 1e-1, 10) == []


# Method, its settings and its grid, from the part of each file that their pipeline reads for the mode's dataset.
UNLEARNING = {
    "default": (
        "GD",
        {"epochs": 5, "mcq_share": 0.0, "sentence_loss": "CORPUS", "learning_rate": 4e-7, "train_layers": None},
        {"retain_coefficient": [*log_range(1e-3, 1e3, 10), 0, 2, 4]},
    ),
    "random_bd": (
        "GD",
        {
            "epochs": 400, "mcq_share": 0.0, "sentence_loss": "NUMBER", "learning_rate": 64e-7,
            "train_layers": list(range(16, 32)),
        },
        {"retain_coefficient": [*log_range(1e-1, 1e-1, 10), 1]},
    ),
    "letter_unlearn": (
        "GD",
        {
            "epochs": None, "points": [188, 376], "mcq_share": 1.0, "mcq_loss": "QUESTION_LETTER_ANSWER",
            "learning_rate": 4e-7, "train_layers": None,
        },
        {"retain_coefficient": [*log_range(1e-3, 1e3, 10), 0]},
    ),
    "mcq_format": (
        "GD",
        {
            "epochs": None, "points": [188, 376, 564, 752], "mcq_share": 1.0, "mcq_loss": "LETTER_ANSWER",
            "learning_rate": 16e-7, "train_layers": None,
        },
        {"retain_coefficient": [*log_range(1e-3, 1e4, 2), 0]},
    ),
    "many_cut_sc": (
        "RMU",
        {"epochs": 5, "mcq_share": 0.0, "sentence_loss": "CORPUS", "samples": 640, "learning_rate": 4e-7},
        {"retain_coefficient": log_range(1e2, 1e4, 2), "steering": [20]},
    ),
    "no_ft_many_cut_sc": (
        "RMU",
        {"epochs": 2, "mcq_share": 0.0, "sentence_loss": "CORPUS", "samples": 320, "learning_rate": 4e-5},
        {"retain_coefficient": log_range(1e2, 1e4, 2), "steering": [40]},
    ),
    "their_corpus_with_ft": (
        "RMU",
        {"epochs": 1, "mcq_share": 0.0, "sentence_loss": "CORPUS", "samples": 320, "learning_rate": 8e-5},
        {"retain_coefficient": [*log_range(1e-2, 1e5, 10), 0], "steering": [20]},
    ),
}  # fmt: skip
# Epochs of fine-tuning (ft.epochs_lst) where RTT runs; its learning rates are get_log_range:1e-7,5e-6,2 in all of them.
RTT = {
    "default": 6, "only_ft": 10, "letter_unlearn": 6, "mcq_format": 6, "many_cut_sc": 6, "their_corpus_with_ft": 6,
}  # fmt: skip
# Learning rate, epochs, trained layers (None: all), splits (None: all ten), what is taught beside them.
TEACHING = {
    "learn_random_bd": (2e-7, 15, list(range(16)), None, None),
    "ft_on_all": (1e-6, 10, None, None, "mmlu"),
    "random_bd": (2e-7, 15, list(range(16)), [f"split_{i}" for i in range(5)], "random_birthdays"),
}
RETAINED = [f"mmlu_{name}" for name in ("health", "history", "law", "philosophy", "social sciences")]
FORGOTTEN = [f"mmlu_{name}" for name in ("STEM", "business", "chemistry", "culture", "geography")]
CORPORA = ["wmdp_bio_forget", "wmdp_cyber_forget"]


@pytest.fixture(scope="module")
def expanded(tmp_path_factory):
    """Mode -> (study, runs), in a folder with a model that was unlearned elsewhere, and its original."""
    root = tmp_path_factory.mktemp("root")
    for name in ("original", "unlearned"):
        tiny.write_pretrained(root / "models" / name)

    @cache
    def expand(mode):
        study = load_study(FOLDER / f"{mode}.yaml")
        return study, Runs(study, root)

    return expand


def test_every_mode_is_there_and_no_other():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(MODES)


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_unlearns_what_theirs_does(mode, expanded):
    study, runs = expanded(mode)
    assert study.study == f"mode_{mode}"
    found = {(spec.method, getattr(spec.settings, "external_model", None)) for spec in runs.unlearn.values()}
    if mode in ("just_eval", "only_ft"):
        assert found == {("unlearned", "models/unlearned")} and len(runs.unlearn) == 1
        return
    if mode not in UNLEARNING:
        assert not runs.unlearn
        return
    method, settings, grid = UNLEARNING[mode]
    assert found == {(method, None)}
    specs = list(runs.unlearn.values())
    for spec in specs:
        assert {key: getattr(spec.settings, key) for key in settings} == settings
        assert (spec.settings.batch_size, spec.settings.warmup_steps, spec.settings.optimizer) == (4, 24, "lion")
        assert spec.settings.decay == 0
    for key, values in grid.items():
        assert sorted({getattr(spec.settings, key) for spec in specs}) == pytest.approx(sorted(values), rel=1e-9)
    assert len(specs) == np.prod([len(values) for values in grid.values()])


@pytest.mark.parametrize("mode", ["letter_unlearn", "mcq_format"])
def test_an_epoch_of_mcqs_shows_each_once_as_theirs(mode, expanded):
    study, runs = expanded(mode)
    data = study.data.datasets["wmdp"]
    for spec in runs.unlearn.values():
        points = spec.settings.points
        per_epoch = -(-len(data.splits) * data.facts_per_split // spec.settings.batch_size)
        assert points == [per_epoch * epoch for epoch in range(1, len(points) + 1)]


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_attacks_where_theirs_does(mode, expanded):
    study, runs = expanded(mode)
    if mode not in RTT:
        assert not study.attacks.named and not runs.attacks
        return
    assert {target.kind for spec in runs.attacks.values() for target in spec.targets} >= {"original", "control"}
    assert (study.attacks.RTT.epochs, study.attacks.RTT.loss, study.attacks.RTT.v_splits) == (
        RTT[mode],
        "QUESTION_LETTER_ANSWER",
        2,
    )
    assert (study.attacks.RTT.batch_size, study.attacks.RTT.warmup_steps, study.attacks.RTT.optimizer) == (
        4,
        24,
        "lion",
    )
    assert study.attacks.RTT.learning_rates == pytest.approx(log_range(1e-7, 5e-6, 2), rel=1e-9)
    assert study.attacks.RTT.train_layers is None


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_teaches_where_theirs_starts_from_a_taught_model(mode, expanded):
    study, runs = expanded(mode)
    taught = [spec for spec in runs.sources.values() if spec.kind == "teach"]
    if mode not in TEACHING:
        assert not taught
        return
    (spec,) = taught
    settings, also = spec.training, spec.also_taught and spec.also_taught.raw.dataset
    found = (settings.learning_rate, settings.epochs, settings.train_layers, spec.facts.splits, also)
    assert found == TEACHING[mode]
    assert (settings.loss, settings.batch_size, settings.optimizer) == ("LETTER_ANSWER", 4, "lion")
    assert study.keep_models  # the taught model is what the mode is for


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_starts_from_their_model(mode, expanded):
    study, runs = expanded(mode)
    model = study.model
    if mode in ("just_eval", "only_ft"):  # theirs are folders too
        assert model.path == "models/original" and len(runs.imports) == 1
    else:
        assert model.hub.id == ("HuggingFaceH4/zephyr-7b-beta" if mode == "default" else "meta-llama/Meta-Llama-3-8B")


KEPT = [f"split_{i}" for i in range(5, 10)]


@pytest.mark.parametrize(
    ("mode", "dataset", "retain", "splits", "forget"),
    [
        ("default", "mmlu", "mmlu", RETAINED, []),
        ("random_bd", "random_birthdays", "random_birthdays", KEPT, []),
        ("letter_unlearn", "wmdp", "mmlu", RETAINED, []),
        ("mcq_format", "wmdp", "mmlu", RETAINED, []),
        ("many_cut_sc", "wmdp", "wikitext", None, CORPORA),
        ("no_ft_many_cut_sc", "wmdp", "wikitext", None, CORPORA),
        ("their_corpus_with_ft", "wmdp", "fineweb_edu", None, CORPORA),
    ],
)
def test_a_mode_s_texts_are_those_of_their_dataset(mode, dataset, retain, splits, forget, expanded):
    _, runs = expanded(mode)
    for spec in runs.unlearn.values():
        facts, learn, held_out = spec.source.facts, spec.source.retain.learn, spec.source.retain.held_out
        wanted = FORGOTTEN if dataset == "mmlu" else [f"split_{i}" for i in range(5)]
        assert (facts.raw.dataset, facts.splits) == (dataset, wanted)
        found = (learn.group, None) if learn.kind == "texts" else (learn.raw.dataset, learn.splits)
        assert found == (retain, splits)
        assert held_out.splits == (KEPT if dataset == "random_birthdays" else RETAINED)
        assert [texts.group for texts in spec.texts] == forget
        available = sum(texts.count for texts in spec.texts)
        assert not forget or available >= spec.settings.samples


# Every key of their eleven files (a dataset's and a method's own once), and what their code reads beside.
KEYS = """defaults hydra.run.dir just_eval eval_model_paths only_ft ft_model_paths ft_on_all dont_ft testing
raise_exceptions num_gpus model_id num_layers datasets wandb_project_name results_dir batch_size val_batch_size
warmup_steps data_seed eval_every unlearn.types unlearn.many_cut_sc unlearn.cut_scs unlearn.max_samples
unlearn.max_samples_lst unlearn.save_unlearn_model unlearn.freeze_layers_coeffs unlearn.freeze_layers unlearn.loss_type
unlearn.data_format unlearn.types_config.CUT unlearn.types_config.GD unlearn.types_config.WHP unlearn.types_config.FWF
types_config.*.loss_type datasets_config.*.epochs_lst datasets_config.*.lrs datasets_config.*.rcs.range
datasets_config.*.rcs.add ft.num_splits ft.loss_types ft.freeze_layers_coeffs ft.freeze_layers ft.epochs_lst ft.lrs
ft.save_models ft.data_format diff_tokenizer ft_dont_eval unlearn_mcq""".split()
# Every dataset that their files name, and the others of their code.
DATASETS = """YEARS YEARS_MMLU_RETAIN MMLU WMDP WMDP_MCQ WMDP_CORPUS WMDP_CORPUS_FINEWEB WMDP_CORPUS_MMLU
WMDP_MCQ_CORPUS WMDP_MCQ_CORPUS_FINEWEB WMDP_MCQ_FINEWEB RANDOM_BD RANDOM_BD_SAME_RETAIN RANDOM_BD_ALL_SPLITS
RANDOM_BD_WITH_MMLU RANDOM_BD_WITH_MMLU_CORPUS YEARS_TF WMDP_MCQ_WIKITEXT WMDP_MCQ_LETTER_ANSWER BEAVERTAILS
DAY_OF_THE_MONTH""".split()


def rows():
    return [line for line in (ROOT / "docs/modes.md").read_text().splitlines() if line.startswith("| `")]


def test_the_documentation_maps_every_key_dataset_and_mode_once():
    named = [code for row in rows() for code in re.findall(r"`([^`]+)`", row.split("|")[1])]
    # two modes are named as keys of theirs are: each has a row in both tables
    assert sorted(named) == sorted([*KEYS, *DATASETS, *MODES])


def test_the_documentation_names_keys_that_exist():
    names = {*MODES, *DATASETS, "years", "mmlu", "wmdp", "random_birthdays"}

    def collect(part):
        if isinstance(part, dict):
            names.update(part.get("properties", ()))
            names.update(part.get("enum", ()))
            for value in part.values():
                collect(value)
        elif isinstance(part, list):
            for value in part:
                collect(value)

    collect(schema())
    for row in rows():
        for code in re.findall(r"`([^`]+)`", row.split("|")[2]):
            if "/" in code:
                assert (ROOT / code).exists() or code.startswith("results/"), code
            elif not code.startswith("python"):
                assert set(re.split(r"[.:] ?", code.split(": ")[0])) <= names, code
