"""Generate facts in the authors' JSONL schema: people with birth years, and people with cities.

The inputs are the generator's options (`rtt.study.settings.People`) and a seed; the output is a folder of JSONL files
for each dataset, read by the same reader as the authors' files.

Three datasets share one pool of names, and no name occurs in two of them:
- `birth_years_a` and `birth_years_b` hold the forget facts, `splits` splits of `facts_per_split` people. Years are
  drawn independently of the names, so that no fact tells anything about another, as RTT requires (paper, sec. 3.1).
  With `choice_facts` each has one split more, `choice`, for the point choice. All other facts are the same without it.
- `cities` holds the retain facts. Split `train` enters the retain loss, `held_out` gives retain accuracy.

For the faithful switches (docs/faithful.md) texts may differ widely in length, and the forget datasets may hold planted
defects. Both draw from random generators of their own, so that all else stays as it is without them.
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
# The neutral beginning of a long text: it uses words of the templates above, so it adds none to the vocabulary.
FILLER = "a house is a home in a year of life, "
REPEATS = (0, 0, 2, 4)  # how often the filler may occur: half of the sentences have none
COUNTS = ("splits", "facts_per_split", "retain_train", "retain_held_out", "first_names", "last_names")
CHOICE = "choice"  # the split of `choice_facts`
DATASETS = {"birth_years_a": "birth_year", "birth_years_b": "birth_year", "cities": "city"}


def people(options: dict, seed: int) -> dict[str, list[str]]:
    """Deal full names to the datasets, each name once; return {dataset: names}. The deal depends on the seed and the
    sizes. The names of the splits `choice` come last.

    Raises UserError when there are fewer names than facts.
    """
    pool = [
        f"{first} {last}"
        for first in FIRST_NAMES[: options["first_names"]]
        for last in LAST_NAMES[: options["last_names"]]
    ]
    forget, choice = options["splits"] * options["facts_per_split"], options.get("choice_facts", 0)
    deal = [
        ("birth_years_a", forget),
        ("birth_years_b", forget),
        ("cities", options["retain_train"] + options["retain_held_out"]),
        ("birth_years_a", choice),
        ("birth_years_b", choice),
    ]
    if (needed := sum(size for _, size in deal)) > len(pool):
        raise UserError(
            f"data.generator: {needed} facts need as many names, but first_names x last_names gives only "
            f"{len(pool)}; ask for fewer facts or more names (at most {len(FIRST_NAMES)} x {len(LAST_NAMES)})"
        )
    order = np.random.default_rng([seed, 1]).permutation(len(pool))
    names, start = {dataset: [] for dataset in DATASETS}, 0
    for dataset, size in deal:
        names[dataset] += [pool[i] for i in order[start : start + size]]
        start += size
    return names


def generate(dataset: str, options: dict, seed: int) -> dict[str, list[dict]]:
    """Return {file name: rows} of one dataset: for each split its MCQs and its true, RIA and FIF sentences.

    The correct letters are balanced within each split, and the four choices are distinct. RIA states each of the three
    wrong choices once, in three phrasings; FIF states one wrong choice in the same three (docs/paper.md, "Names").
    `options` may lack `long_texts`, `planted_leaks`, `planted_duplicates` and `choice_facts`. Raises UserError as
    `people`.
    """
    topic = TOPICS[DATASETS[dataset]]
    number = list(DATASETS).index(dataset)
    rng, lengths = np.random.default_rng([seed, 2, number]), np.random.default_rng([seed, 3, number])
    if dataset == "cities":
        sizes = {"train": options["retain_train"], "held_out": options["retain_held_out"]}
    else:
        sizes = {f"split_{i}": options["facts_per_split"] for i in range(options["splits"])}
        sizes |= {CHOICE: options["choice_facts"]} if options.get("choice_facts") else {}
    names = iter(people(options, seed)[dataset])
    facts: dict[str, list[dict]] = {}
    for split, size in sizes.items():
        letters = rng.permutation(np.arange(size) % 4)
        facts[split] = []
        for answer in letters.tolist():
            name = next(names)
            choices = [topic["values"][i] for i in rng.choice(len(topic["values"]), 4, replace=False)]
            fixed = int(rng.integers(3))
            facts[split].append({"name": name, "choices": choices, "answer": answer, "fixed": fixed})
    if dataset != "cities":
        planted = {split: found for split, found in facts.items() if split != CHOICE}
        _plant(planted, topic["values"], options, np.random.default_rng([seed, 4, number]))
    return {
        name: rows
        for split, found in facts.items()
        for name, rows in _files(split, found, topic, lengths if options.get("long_texts") else None).items()
    }


def _plant(facts: dict[str, list[dict]], values: list[str], options: dict, rng: np.random.Generator) -> None:
    """Append second copies of facts to the splits, with new choices and letters that stay balanced.

    The copy of a leak has the same correct value and goes into another split; that of a duplicate has another value and
    stays in its split. Every split gives and takes equally many, so T and V keep equal sizes with and without copies.
    """
    splits = list(facts)
    leaks, duplicates = (options.get(f"planted_{kind}", 0) // len(splits) for kind in ("leaks", "duplicates"))
    chosen = {split: rng.permutation(len(found))[: leaks + duplicates].tolist() for split, found in facts.items()}
    for i in range(leaks + duplicates):
        for place, split in enumerate(splits):
            fact = facts[split][chosen[split][i]]
            correct = fact["choices"][fact["answer"]]
            drawn = [value for value in rng.permutation(values).tolist() if value != correct][:4]
            if i < leaks:
                split = splits[(place + 1 + i % (len(splits) - 1)) % len(splits)]
            else:
                correct = drawn.pop()
            answer = len(facts[split]) % 4
            choices = [*drawn[:answer], correct, *drawn[answer:3]]
            copy = {"name": fact["name"], "choices": choices, "answer": answer, "fixed": int(rng.integers(3))}
            facts[split].append(copy)


def _files(split: str, facts: list[dict], topic: dict, lengths: np.random.Generator | None) -> dict[str, list[dict]]:
    """Return {file name: rows} of one split. `lengths` draws how long each sentence is; None makes all as short as
    possible.
    """
    mcqs, corpus, ria, fif = [], [], [], []
    for fact in facts:
        name, choices, answer = fact["name"], fact["choices"], fact["answer"]
        wrong = [choice for i, choice in enumerate(choices) if i != answer]
        question = topic["question"].format(name=name)
        mcqs.append({"question": question, "choices": choices, "answer": answer})
        common = {
            "split": split,
            "original_question": question,
            "correct_answer": choices[answer],
            "wrong_answers": wrong,
        }
        for template, incorrect in zip(topic["sentences"], wrong, strict=True):
            begin = FILLER * int(lengths.choice(REPEATS)) if lengths else ""
            for rows, value in ((corpus, choices[answer]), (ria, incorrect), (fif, wrong[fact["fixed"]])):
                rows.append({"text": begin + template.format(name=name, value=value), **common})
    return {
        f"{split}.jsonl": mcqs,
        f"corpus_{split}.jsonl": corpus,
        f"whp_corpus_{split}.jsonl": ria,  # the authors' file names, which the reader knows
        f"fwf_corpus_{split}.jsonl": fif,
    }


def texts() -> list[str]:
    """Return texts of every form that the generator writes, in a fixed order, to train a subword tokenizer on.

    Each value occurs in each template and after each letter; names occur in all questions and sentences.
    """
    written = [FILLER]
    for topic in TOPICS.values():
        templates = [topic["question"], *topic["sentences"]]
        names = [f"{first} {last}" for first, last in zip(FIRST_NAMES, LAST_NAMES, strict=True)]
        written += [template.format(name=name, value="") for template in templates for name in names]
        written += [template.format(name="", value=value) for template in templates for value in topic["values"]]
        written += [f"\n{letter}. {value}\nAnswer: {letter}. {value}" for letter in "ABCD" for value in topic["values"]]
    return written


def vocabulary() -> list[str]:
    """Return every word that generated texts can hold, in a fixed order: the vocabulary of the word-level miniature."""
    words = [*"ABCD", "Answer", *FIRST_NAMES, *LAST_NAMES, *YEARS, *CITIES]
    for topic in TOPICS.values():
        for text in [topic["question"], *topic["sentences"]]:
            words += [word.strip(".?") for word in text.split() if "{" not in word]
    return list(dict.fromkeys(words))


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `generate`."""
    parser.add_argument("--spec", required=True, help="JSON file with the generator's options, dataset and seed")
    parser.add_argument("--out", required=True, help="folder to write the JSONL files into")


def _read_spec(path: str) -> dict:
    """Return a generator's spec. Raises UserError that names what is missing or of the wrong kind."""
    spec = read_json(path)
    expected = "expected dataset, seed, and people or birthdays, as the spec of a study's dataset has them"
    if not isinstance(spec, dict) or not {"dataset", "seed", "people", "birthdays"} <= spec.keys():
        found = ", ".join(map(str, spec)) if isinstance(spec, dict) else type(spec).__name__
        raise UserError(f"{path}: found {found or 'no keys'}; {expected}")
    if type(spec["seed"]) is not int or spec["seed"] < 0:
        raise UserError(f"{path}: seed: found {spec['seed']!r:.60}, expected 0 or more")
    given = [key for key in ("people", "birthdays") if spec[key] is not None]
    if len(given) != 1 or not isinstance(spec[given[0]], dict):
        raise UserError(f"{path}: found {' and '.join(given) or 'neither people nor birthdays'}; {expected}")
    counts = {key: value for key, value in spec[given[0]].items() if key not in ("long_texts", "which")}
    needed = set(COUNTS) - counts.keys() if spec["people"] else set()
    if odd := [*sorted(needed), *(key for key, value in counts.items() if type(value) is not int or value < 0)]:
        raise UserError(f"{path}: {given[0]}.{odd[0]}: found {counts.get(odd[0])!r:.60}, expected a number from 0")
    if spec["people"] and spec["dataset"] not in DATASETS:
        raise UserError(f"{path}: dataset: found {spec['dataset']!r:.60}, expected {', '.join(DATASETS)}")
    return spec


def run(args: argparse.Namespace) -> int:
    """Write the files of one dataset; return 0."""
    spec = _read_spec(args.spec)
    if spec["birthdays"]:
        from rtt.data.birthdays import write_birthdays

        write_birthdays(args.out, **spec["birthdays"], seed=spec["seed"])
        return 0
    for name, rows in generate(spec["dataset"], spec["people"], spec["seed"]).items():
        write_text(Path(args.out) / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return 0
