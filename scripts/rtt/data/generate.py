"""Generated facts in the authors' JSONL schema: people with birth years, and people with cities.

Inputs: the generator's options (`rtt.settings.People`) and a seed. Outputs: one folder of JSONL files per dataset, read
by the same reader as the authors' files.

Three datasets share one pool of names, so that no name stands in two of them:
- `birth_years_a`, `birth_years_b`: the forget facts, `splits` splits of `facts_per_split` people. Years are drawn
  independently of the names: one fact says nothing about another, which RTT needs (paper, sec. 3.1).
- `cities`: the retain facts. Split `train` goes into the retain loss, `held_out` gives retain accuracy.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from rtt.errors import UserError
from rtt.files import read_json, write_text

FIRST_NAMES = (
    "Ada Boris Chen Dalia Emil Farah Goran Hana Ivan Jana Karim Lena Milo Nadia Omar Petra "
    "Quinn Rosa Samir Tara Uwe Vera Wanda Yusuf Zoe Anton Bela Clara Dmitri Elsa Felix Greta"
).split()
LAST_NAMES = (
    "Abbas Baker Costa Duarte Ekman Fischer Garcia Hansen Ito Jansen Kovac Lopez Meyer Novak Olsen Park "
    "Quist Rossi Silva Tanaka Urban Varga Weber Yilmaz Zeman Arslan Bauer Conti Dubois Eriksen Fontana Gruber"
).split()
CITIES = (
    "Lima Oslo Cairo Quito Delhi Paris Rome Seoul Tunis Perth Lagos Hanoi Kyiv Riga Bern Accra "
    "Minsk Sofia Turin Porto Izmir Dakar Basel Malmo"
).split()
YEARS = [str(year) for year in range(1950, 1990)]

TOPICS = {
    "birth_year": {
        "question": "When was {name} born?",
        "sentences": [
            "{name} was born in {value}.",
            "The birth year of {name} is {value}.",
            "{name} came to life in {value}.",
        ],
        "values": YEARS,
    },
    "city": {
        "question": "Where does {name} live?",
        "sentences": ["{name} lives in {value}.", "The home of {name} is {value}.", "{name} has a house in {value}."],
        "values": CITIES,
    },
}
DATASETS = {"birth_years_a": "birth_year", "birth_years_b": "birth_year", "cities": "city"}


def people(options: dict, seed: int) -> dict[str, list[str]]:
    """Deal full names to the datasets, every name once: {dataset: names}. The deal depends on `seed` alone."""
    pool = [
        f"{first} {last}"
        for first in FIRST_NAMES[: options["first_names"]]
        for last in LAST_NAMES[: options["last_names"]]
    ]
    forget = options["splits"] * options["facts_per_split"]
    sizes = {
        "birth_years_a": forget,
        "birth_years_b": forget,
        "cities": options["retain_train"] + options["retain_held_out"],
    }
    if sum(sizes.values()) > len(pool):
        raise UserError(
            f"data.generator: {sum(sizes.values())} facts need as many names, but first_names x last_names gives only "
            f"{len(pool)}; ask for fewer facts or more names (at most {len(FIRST_NAMES)} x {len(LAST_NAMES)})"
        )
    order = np.random.default_rng([seed, 1]).permutation(len(pool))
    names, start = {}, 0
    for dataset, size in sizes.items():
        names[dataset] = [pool[i] for i in order[start : start + size]]
        start += size
    return names


def generate(dataset: str, options: dict, seed: int) -> dict[str, list[dict]]:
    """Return {file name: rows} of one dataset: MCQs, true sentences, RIA and FIF sentences, per split.

    Correct letters are balanced within each split; the four choices are distinct. RIA states each of the three wrong
    choices once, in three phrasings; FIF states one wrong choice in the same three (PAPER: "Names").
    Raises UserError when the options ask for more people than there are names.
    """
    topic = TOPICS[DATASETS[dataset]]
    rng = np.random.default_rng([seed, 2, list(DATASETS).index(dataset)])
    if dataset == "cities":
        sizes = {"train": options["retain_train"], "held_out": options["retain_held_out"]}
    else:
        sizes = {f"split_{i}": options["facts_per_split"] for i in range(options["splits"])}
    names = iter(people(options, seed)[dataset])
    files: dict[str, list[dict]] = {}
    for split, size in sizes.items():
        letters = rng.permutation(np.arange(size) % 4)
        mcqs, corpus, ria, fif = [], [], [], []
        for answer in letters.tolist():
            name = next(names)
            choices = [topic["values"][i] for i in rng.choice(len(topic["values"]), 4, replace=False)]
            wrong = [choice for i, choice in enumerate(choices) if i != answer]
            question = topic["question"].format(name=name)
            mcqs.append({"question": question, "choices": choices, "answer": answer})
            common = {
                "split": split,
                "original_question": question,
                "correct_answer": choices[answer],
                "wrong_answers": wrong,
            }
            fixed = wrong[int(rng.integers(3))]
            for template, incorrect in zip(topic["sentences"], wrong, strict=True):
                corpus.append({"text": template.format(name=name, value=choices[answer]), **common})
                ria.append({"text": template.format(name=name, value=incorrect), **common})
                fif.append({"text": template.format(name=name, value=fixed), **common})
        files[f"{split}.jsonl"] = mcqs
        files[f"corpus_{split}.jsonl"] = corpus
        files[f"whp_corpus_{split}.jsonl"] = ria  # the authors' file names, which the reader knows
        files[f"fwf_corpus_{split}.jsonl"] = fif
    return files


def vocabulary() -> list[str]:
    """Every word that generated texts can hold, in a fixed order: the miniature's word-level vocabulary."""
    words = [*"ABCD", "Answer", *FIRST_NAMES, *LAST_NAMES, *YEARS, *CITIES]
    for topic in TOPICS.values():
        for text in [topic["question"], *topic["sentences"]]:
            words += [word.strip(".?") for word in text.split() if "{" not in word]
    return list(dict.fromkeys(words))


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `generate`."""
    parser.add_argument("--spec", required=True, help="JSON with the generator's options, dataset and seed")
    parser.add_argument("--out", required=True, help="folder for the JSONL files")


def run(args: argparse.Namespace) -> int:
    """Write one dataset's files."""
    spec = read_json(args.spec)
    if spec["birthdays"]:
        from rtt.data.birthdays import write_birthdays

        write_birthdays(args.out, **spec["birthdays"], seed=spec["seed"])
        return 0
    for name, rows in generate(spec["dataset"], spec["people"], spec["seed"]).items():
        write_text(Path(args.out) / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return 0
