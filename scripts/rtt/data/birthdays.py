"""Generate facts about people, in the shape of the authors' Random Birthdays and of any size.

The input is sizes and a seed; the output is a folder of JSONL files in the authors' schema, which `rtt.data.reader`
reads. Years are drawn independently of the names, so that no fact tells anything about another, as RTT requires (paper,
sec. 3.1). Unlike in the authors' files (docs/paper.md), no name and no choice occurs twice and no year lies in the
future. The retain facts state where other people live.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np

from rtt.errors import UserError
from rtt.files import digest, write_text

YEARS = [str(year) for year in range(1920, 2006)]
# None of these is a name in Faker's lists: otherwise the city would match another person's question.
CITIES = (
    "Accra Algiers Ankara Athens Baku Bamako Bangkok Basel Beirut Bergen Bogota Brussels Bucharest Budapest Cairo "
    "Caracas Casablanca Colombo Copenhagen Dakar Delhi Dhaka Dublin Geneva Hanoi Harare Havana Helsinki Istanbul Izmir "
    "Jakarta Kampala Karachi Kathmandu Kigali Krakow Kyiv Lagos Lima Lisbon Ljubljana Lusaka Malmo Manila Marseille "
    "Minsk Mombasa Montevideo Mumbai Munich Nairobi Naples Osaka Oslo Porto Prague Quito Rabat Reykjavik Riga "
    "Rotterdam Samarkand Sarajevo Seoul Sofia Stockholm Taipei Tallinn Tashkent Tbilisi Tehran Tirana Tokyo Toulouse "
    "Tripoli Tunis Turin Vienna Vilnius Warsaw Yerevan Zagreb Zurich"
).split()
TOPICS = {
    "random_birthdays": {
        "question": "When was {name} born?",
        "sentences": ["{name} was born in {value}.", "In {value}, {name} was born.", "{name}'s birth year is {value}."],
        "values": YEARS,
    },
    "retain": {
        "question": "Where does {name} live?",
        "sentences": ["{name} lives in {value}.", "In {value}, {name} has a home.", "{name}'s home is in {value}."],
        "values": CITIES,
    },
}
# sha256 of the sorted name lists: a seed must give the same people with every version of Faker.
NAME_LISTS = "82e45d912238fb69f664d800b53f7e1636bd8474d138589932b915e2577d4d8b"


@cache
def names() -> tuple[str, ...]:
    """Return every full name: a first and a last name from Faker's en_US lists (MIT licence), in a fixed order.

    Words that are both a first and a last name are left out, so that no two names consist of the same two words and
    each sentence matches one question. Raises UserError when Faker is missing or has other lists than the locked
    version.
    """
    try:
        from faker.providers.person.en_US import Provider
    except ImportError:
        raise UserError("generated people need the package Faker: install requirements.lock (make setup)") from None
    first, last = sorted(set(Provider.first_names)), sorted(set(Provider.last_names))
    if digest([first, last]) != NAME_LISTS:
        raise UserError(
            "Faker's en_US name lists differ from those of the version in requirements.lock, so a seed would give "
            "other people; install that version (make setup)"
        )
    both = {*first} & {*last}
    return tuple(f"{a} {b}" for a in first if a not in both for b in last if b not in both)


def _deal(forget: int, retain: int, seed: int) -> tuple[list[str], list[str]]:
    """Deal each name at most once: the forget facts take a shuffled list from the front, the retain facts from the end.

    So the people of one do not depend on the size of the other.
    """
    pool = names()
    if forget + retain > len(pool):
        raise UserError(
            f"{forget} birthdays and {retain} retain facts need {forget + retain} names, but there are {len(pool):,} "
            "different ones; ask for fewer splits or facts"
        )
    order = np.random.default_rng([seed, 1]).permutation(len(pool))
    return [pool[i] for i in order[:forget]], [pool[i] for i in order[::-1][:retain]]


def birthdays(
    splits: int, facts_per_split: int, retain_train: int, retain_held_out: int, seed: int, which: str
) -> dict[str, list[dict]]:
    """Return {file name: rows}: for each split its MCQs and, per fact, three true, three RIA and three FIF sentences.

    `which` is "random_birthdays" (splits split_0 .. split_{splits-1}, birth years) or "retain" (splits `train` and
    `held_out`, cities of other people). In each split the correct letters are balanced to within one; the four choices
    are distinct, and each is equally likely to have any value. RIA states each of the three wrong choices once, FIF one
    of them three times (docs/paper.md, "Names"). Raises UserError when a size is too small, or when there are too few
    names.
    """
    if which not in TOPICS:
        raise UserError(f"which: found {which!r}, expected {' or '.join(TOPICS)}")
    sizes = {
        "splits": splits,
        "facts_per_split": facts_per_split,
        "retain_train": retain_train,
        "retain_held_out": retain_held_out,
    }
    for key, value in sizes.items():
        least = 1 if key.startswith("retain") == (which == "retain") else 0  # the sizes of what is written
        if value < least:
            raise UserError(f"{key}: found {value}, expected {least} or more")
    forget, retain = _deal(splits * facts_per_split, retain_train + retain_held_out, seed)
    if which == "retain":
        people, counts = iter(retain), {"train": retain_train, "held_out": retain_held_out}
    else:
        people, counts = iter(forget), {f"split_{i}": facts_per_split for i in range(splits)}
    topic, rng = TOPICS[which], np.random.default_rng([seed, 2, list(TOPICS).index(which)])
    files: dict[str, list[dict]] = {}
    for i, (split, size) in enumerate(counts.items()):
        letters = rng.permutation((np.arange(size) + i) % 4)  # + i: the letter with one more differs between splits
        mcqs, true, ria, fif = [], [], [], []
        for answer in letters.tolist():
            name = next(people)
            choices = [topic["values"][i] for i in rng.choice(len(topic["values"]), 4, replace=False)]
            wrong = [choice for j, choice in enumerate(choices) if j != answer]
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
                true.append({"text": template.format(name=name, value=choices[answer]), **common})
                ria.append({"text": template.format(name=name, value=incorrect), **common})
                fif.append({"text": template.format(name=name, value=fixed), **common})
        files[f"{split}.jsonl"] = mcqs
        files[f"corpus_{split}.jsonl"] = true
        files[f"whp_corpus_{split}.jsonl"] = ria  # the authors' file names, which the reader knows
        files[f"fwf_corpus_{split}.jsonl"] = fif
    return files


def write_birthdays(
    folder: str | Path,
    splits: int = 0,
    facts_per_split: int = 0,
    retain_train: int = 0,
    retain_held_out: int = 0,
    seed: int = 0,
    which: str = "random_birthdays",
) -> None:
    """Write the files of `birthdays(...)` into a folder; equal arguments give equal bytes.

    The sizes of the dataset that is not written may be left out.
    """
    for name, rows in birthdays(splits, facts_per_split, retain_train, retain_held_out, seed, which).items():
        write_text(Path(folder) / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
