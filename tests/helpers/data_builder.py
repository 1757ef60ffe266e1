"""Synthetic datasets in the authors' schema, for the tests of reader, audit and facts."""

import json
from pathlib import Path

PREFIX = {"mcq": "", "true": "corpus_", "ria": "whp_corpus_", "fif": "fwf_corpus_", "pairs": "tf_"}
FIRST = ["Ada", "Boris", "Chen", "Dalia", "Emil", "Farah", "Goran", "Hana", "Ivan", "Jana", "Karim", "Lena"]
LAST = ["Abbas", "Baker", "Costa", "Duarte", "Ekman", "Fischer"]


def dataset(style: str = "question", splits: int = 3, n: int = 8) -> dict[str, list[dict]]:
    """Return {file name: rows} without a defect. Years are 1900 + 5 i for person i; the wrong ones follow it.

    style `question`: sentences have original_question (as MMLU); `names`: true sentences have nothing but the text (as
    Random Birthdays); `pairs`: no sentence names its question, `tf_` files do, and the texts' splits are rotated by one
    (as Years).
    """
    files = {}
    for s in range(splits):
        split = f"split_{s}"
        rows = {kind: [] for kind in PREFIX}
        for j in range(n):
            i = s * n + j
            name, year, answer = f"{FIRST[i % 12]} {LAST[i // 12 % 6]}", 1900 + 5 * i % 100, i % 4
            wrong = [year + 1, year + 2, year + 3]
            choices = [*wrong[:answer], year, *wrong[answer:]]
            question = f"When was {name} born?"
            rows["mcq"].append(
                {"question": question, "choices": [str(c) if i % 2 else c for c in choices], "answer": answer}
            )
            common = {"split": split, "correct_answer": year, "wrong_answers": wrong}
            if style == "question":
                common["original_question"] = question
            for k, form in enumerate(("{} was born in {}.", "In {1}, {0} was born.", "{}'s birth year is {}.")):
                true = {"text": form.format(name, year), "split": split}
                rows["true"].append(true | (common if style == "question" else {}))
                wrongs = common | ({"original_question": question} if style == "names" else {})
                rows["ria"].append({"text": form.format(name, wrong[k]), **wrongs})
                rows["fif"].append({"text": form.format(name, wrong[0]), **wrongs})
            rows["pairs"].append({"text": f"{name} was born in {year}.", "is_false": 0, "question": question, **common})
        for kind, prefix in PREFIX.items():
            if kind == "pairs" and style != "pairs":
                continue
            where = f"split_{(s + 1) % splits}" if style == "pairs" and kind != "mcq" else split
            files[f"{prefix}{where}.jsonl"] = rows[kind]
    return files


def write(folder: Path, files: dict[str, list]) -> Path:
    """Write the files; a row of type bytes or str is written as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        raw = [row if isinstance(row, bytes) else row.encode() if isinstance(row, str) else dump(row) for row in rows]
        (folder / name).write_bytes(b"".join(row + b"\n" for row in raw))
    return folder


def dump(row: dict) -> bytes:
    """Return one row as a line."""
    return json.dumps(row, ensure_ascii=False).encode()
