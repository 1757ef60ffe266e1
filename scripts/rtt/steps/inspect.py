"""Commands `loss` and `score`: compute a loss, or the scores, of any local checkpoint on a file, without a study.

Inputs: a model's folder (transformers, safetensors) and a JSONL file: canonical facts, or an MCQ or sentence file in
the authors' schema (docs/data.md). Output: one JSON object on stdout (docs/losses.md).
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rtt.data.facts import Fact, read_facts
from rtt.data.reader import Folder, Malformed, parse_mcq, parse_sentence, read_file
from rtt.data.text import LOSSES, SENTENCE_LOSSES, Text, encode, mcq, sentence, training_texts
from rtt.errors import UserError
from rtt.models.architecture import check_causal
from rtt.models.load import load
from rtt.scoring.correct import judged
from rtt.scoring.score import Scorer
from rtt.stats.intervals import wilson
from rtt.study.names import ASKED
from rtt.training.collate import collate
from rtt.training.losses import token_nats

SWITCHES = {"loss": ("padding", "bare_letter", "number_mask", "question_answer_join"), "score": ("bare_letter",)}
PROBES = tuple(probe for probe in ASKED if probe != "few_shot")  # there are no other facts to show solved
USUAL = ("letter", "letter_permuted", "likelihood")  # what every MCQ can be asked
DTYPES = ("fp64", "fp32", "bf16", "fp16")


def _names(allowed: tuple[str, ...]):
    """Return an argparse type: names separated by commas, each one of `allowed`."""

    def names(text: str) -> list[str]:
        found = [name.strip() for name in text.split(",") if name.strip()]
        if unknown := [name for name in found if name not in allowed]:
            raise argparse.ArgumentTypeError(f"found {', '.join(unknown)}; allowed: {', '.join(allowed)}")
        return found

    return names


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `loss` or `score`, whichever `parser` is for."""
    command = parser.prog.split()[-1]
    parser.add_argument("--model", required=True, metavar="PATH", help="folder of a causal language model")
    parser.add_argument("--data", required=True, metavar="FILE", help="facts.jsonl, or an MCQ or a sentence file")
    if command == "loss":
        parser.add_argument("--loss", required=True, choices=LOSSES)
        parser.add_argument("--batch-size", type=int, default=4, metavar="N", help="texts a batch (default: 4)")
    else:
        asked = {"type": _names(PROBES), "default": list(USUAL), "metavar": ",".join(PROBES)}
        parser.add_argument("--probes", **asked)
        parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="prompts a batch (default: 64)")
    switches = SWITCHES[command]
    parser.add_argument("--faithful", type=_names(switches), default=[], metavar=",".join(switches))
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the weights in memory (default: fp32)")


def read_data(path: str) -> list[Fact] | list[str]:
    """Return a file's facts, or its sentences; the keys of the first line decide which.

    Facts of an MCQ file have no sentences and no fresh choices. Raises UserError with file and line.
    """
    folder, name = Folder(Path(path).parent), Path(path).name
    rows = read_file(folder, name)
    if rows and "fresh_choices" in rows[0][1]:
        return read_facts(path)
    found: list = []
    for line, row in rows:
        try:
            if "question" in rows[0][1] and ("choices" in rows[0][1] or "text" not in rows[0][1]):
                found.append(_fact(row, name, line))
            else:
                found.append(parse_sentence(row, name, line).text)
        except Malformed as error:
            folder.malformed.append((name, line, str(error)))
    if folder.malformed:
        _, line, why = min(folder.malformed)
        raise UserError(f"{path}:{line}: {why} ({len(folder.malformed)} such lines)")
    if not found:
        raise UserError(f"{path}: no row; expected facts, MCQs or sentences, one JSON object a line (docs/data.md)")
    return found


def facts_of(rows: Sequence[Mapping[str, Any]], name: str = "questions") -> list[Fact]:
    """Return the facts of MCQs that are given as dicts. Raises UserError with a row's number, from 1."""
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(_fact(dict(row), name, number))
        except (Malformed, TypeError, ValueError) as error:
            raise UserError(f"{name}: row {number}: {error}") from None
    if not found:
        raise UserError(f"{name}: no row; expected dicts with question, choices and answer")
    return found


def _fact(row: dict, name: str, line: int) -> Fact:
    """Return an MCQ as a fact without sentences and without fresh choices."""
    one, origin = parse_mcq(row, name, line), {"file": name, "line": line}
    if one.open:
        raise Malformed("no 'choices': `rtt facts` makes facts of open questions, with choices from other answers")
    group = "" if one.group is None else f"{name}:{one.group}"
    choices = list(one.choices)
    return Fact(f"{name}:{line}", "", one.split, one.question, choices, one.answer, [], [], [], [], origin, group)


def check_scorable(data: list[Fact] | list[str], probes: Sequence[str], path: str) -> None:
    """Raise UserError where a file's rows cannot be scored by these probes."""
    if isinstance(data[0], str):
        raise UserError(f"{path}: sentences have no choices to score; give facts.jsonl or a file of MCQs")
    if "likelihood_fresh" in probes and not all(fact.fresh_choices for fact in data):
        raise UserError(f"{path}: likelihood_fresh needs fresh choices, which only facts.jsonl has (`rtt facts`)")
    if "cloze" in probes and not any(fact.sentences for fact in data):
        raise UserError(f"{path}: cloze needs sentences, which only facts.jsonl has (`rtt facts`)")


def texts_of(
    data: list[Fact] | list[str], loss: str, path: str, faithful: Sequence[str] = ()
) -> list[tuple[str, Text]]:
    """Return [(name, text)] on which `loss` is defined. Raises UserError where the file holds no such text."""
    number_mask = "last_run" if "number_mask" in faithful else "all"
    join = "space" if "question_answer_join" in faithful else "answer_line"
    forms = {"number_mask": number_mask, "question_answer_join": join}
    if isinstance(data[0], str):
        if loss not in SENTENCE_LOSSES:
            raise UserError(f"{path}: a file of sentences has the losses {', '.join(SENTENCE_LOSSES)}, found {loss}")
        return [(f"text {i}", sentence(text, loss, number_mask)) for i, text in enumerate(data, 1)]
    from_mcqs = not any(fact.sentences for fact in data)
    if loss == "NUMBER" and from_mcqs:
        return [(fact.id, mcq(fact, loss=loss, **forms)) for fact in data]
    bare = "bare_letter" in faithful
    texts = [(fact.id, text) for fact in data for text in training_texts(fact, loss, bare, **forms)]
    if not texts:
        raise UserError(f"{path}: {loss} needs sentences, and these questions have none; give a sentence file")
    return texts


@torch.no_grad()
def losses(model, tokenizer, texts: list[tuple[str, Text]], batch_size: int, count_padding: bool) -> dict:
    """Return {"mean", "texts": [{"id", "tokens", "nats"}]}; `nats` is the sum over the text's counted tokens.

    `mean` weights the `rtt.training.losses.text_loss` of each batch, in file order, by its number of texts. Without
    `count_padding` that is the mean over texts of nats / tokens.
    """
    model.eval()
    check_causal(model)
    device, rows = next(model.parameters()).device, []
    for first in range(0, len(texts), batch_size):
        part = texts[first : first + batch_size]
        examples = [encode(tokenizer, text) for _, text in part]
        batch = collate(examples, tokenizer.pad_token_id, count_padding)
        nats, mask = token_nats(model, {key: value.to(device) for key, value in batch.items()})
        sums, counts = (nats.double() * mask).sum(1).tolist(), mask.sum(1).tolist()
        for (name, _), total, count in zip(part, sums, counts, strict=True):
            rows.append({"id": name, "tokens": count, "nats": total})
    return {"mean": sum(row["nats"] / max(row["tokens"], 1) for row in rows) / len(rows), "texts": rows}


def scores(model, tokenizer, facts: list[Fact], probes: list[str], bare_letter: bool, batch_size: int) -> dict:
    """Return {"accuracy": {probe: {...}}, "questions": [...]}; a question is as in an evaluation JSON, without role.

    Of each probe of the tables that comes from those asked: the number of questions, and the accuracy with its 95 %
    Wilson interval.
    """
    scorer = Scorer(tokenizer, facts, probes, bare_letter, batch_size)
    questions = [
        {key: value for key, value in question.items() if key != "role"}
        for question in scorer.questions(model, lambda fact: None)
    ]
    summary, n = {}, len(questions)
    for probe, right in judged(questions, calibrate=True).items():
        low, high = wilson(right.sum(), n)
        summary[probe] = {"n": n, "accuracy": float(right.mean()), "low": float(low), "high": float(high)}
    return {"accuracy": summary, "questions": questions}


def run(args: argparse.Namespace) -> int:
    """Load the checkpoint and print one JSON object."""
    if args.batch_size < 1:
        raise UserError(f"--batch-size: found {args.batch_size}, expected 1 or more")
    data = read_data(args.data)
    bare = "bare_letter" in args.faithful
    if args.command == "loss":
        texts = texts_of(data, args.loss, args.data, args.faithful)
    else:
        check_scorable(data, args.probes, args.data)
    model, tokenizer = load(args.model, "fp32" if args.dtype == "fp64" else args.dtype)
    if args.dtype == "fp64":
        model = model.double()
    said = {"model": args.model, "data": args.data, "dtype": args.dtype, "faithful": args.faithful}
    if args.command == "loss":
        found = losses(model, tokenizer, texts, args.batch_size, "padding" in args.faithful)
        said |= {"loss": args.loss, "batch_size": args.batch_size}
    else:
        found = scores(model, tokenizer, data, args.probes, bare, args.batch_size)
    print(json.dumps(said | found, indent=1, ensure_ascii=False, allow_nan=False))
    return 0
