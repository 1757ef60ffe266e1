"""Command `export`: put what the author of an unlearning method needs of a study into one folder (docs/own.md).

Input: a study whose originals were made with `keep_models: true`. Output, in DIR:
- `original/`: the model that knows the facts;
- `forget.jsonl`, the texts of T and V together, and `retain.jsonl`, what must stay: {"text", "kind", "split", "fact"};
- `data/<dataset>/*.jsonl`: the datasets' files, for a study that attacks the result.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from rtt.data.facts import Fact, read_facts
from rtt.data.retain import read_texts
from rtt.data.text import mcq
from rtt.errors import UserError
from rtt.files import disk_errors, write_text
from rtt.listing import jsonl_files
from rtt.study.expand import Runs
from rtt.study.load import load_study
from rtt.study.specs import DataSpec, Source, TextsSpec

# Kind of a text -> the field of a fact. GD and RMU unlearn the true sentences; RIA and FIF train on the other kinds.
KINDS = {"sentence": "sentences", "ria": "ria_sentences", "fif": "fif_sentences"}
TRUE = ("mcq", "sentence")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `export`."""
    parser.add_argument("study", help="study file")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make; it must not exist yet")
    parser.add_argument("--original", metavar="RUN", help="which original; needed only where the study has several")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Export one original with its facts, or nothing at all."""
    study = load_study(args.study)
    runs = Runs(study)
    source, results = _original(runs, args), args.results / study.study
    model = results / "models" / source.weights.run_id
    if not model.is_dir():
        raise UserError(
            f"{model}: no such folder; set keep_models: true in {args.study} and run it: "
            f"snakemake -c2 --configfile {args.study}"
        )
    if args.out.exists():
        raise UserError(f"{args.out}: already exists; give another --out, or move it away")
    forget = [line for fact in _facts(results, source.facts) for line in _lines(fact)]
    texts = {"forget": forget, "retain": _learned(results, source)}
    part = args.out.with_name(f".{args.out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with disk_errors(args.out):
        part.mkdir(parents=True)
        shutil.copytree(model, part / "original")
        for name, lines in texts.items():
            write_text(part / f"{name}.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        for raw in runs.raw.values():
            folder = _raw_folder(results, raw)
            (part / "data" / raw.dataset).mkdir(parents=True, exist_ok=True)
            for path in jsonl_files(folder):
                shutil.copyfile(path, part / "data" / raw.dataset / path.name)
        part.rename(args.out)
    print(
        f"{args.out}: original/ ({source.run_id}), data/, " + ", ".join(f"{k}.jsonl {len(v)}" for k, v in texts.items())
    )
    return 0


def _original(runs: Runs, args: argparse.Namespace) -> Source:
    """Return the original to export. Raises UserError where --original names none, or is needed and missing."""
    originals = {spec.run_id: spec for spec in runs.sources.values() if spec.run_id in runs.eval_ids()}
    if args.original is None and len(originals) == 1:
        return next(iter(originals.values()))
    if args.original not in originals:
        found = "nothing" if args.original is None else args.original
        raise UserError(f"--original: found {found}; the originals of {args.study}: {', '.join(originals)}")
    return originals[args.original]


def _raw_folder(results: Path, raw) -> Path:
    if raw.files is None:
        return results / "data" / raw.run_id
    return Path(raw.files.folder or f"data/external/{raw.files.group}-{raw.files.digest[:10]}")


def _facts(results: Path, spec: DataSpec, splits: list[str] | None = None) -> list[Fact]:
    facts = read_facts(results / "data" / spec.run_id / "facts.jsonl")
    return [fact for fact in facts if splits is None or fact.split in splits]


def _learned(results: Path, source: Source) -> list[dict]:
    """Return the lines of retain.jsonl; none of the held-out texts is among them."""
    learn = source.retain.learn
    if isinstance(learn, TextsSpec):
        path = Path(f"data/external/{learn.group}-{learn.count}-{learn.digest[:10]}/texts.jsonl")
        return [{"text": text, "kind": "text"} for text in read_texts(path, learn.max_characters)]
    facts = _facts(results, learn, source.retain.learn_splits)
    return [line for fact in facts for line in _lines(fact) if line["kind"] in TRUE]  # not the wrong answers


def _lines(fact: Fact) -> Iterator[dict]:
    """Yield a fact's texts: its MCQ with the correct answer, as RTT shows it, and its sentences."""
    shared = {"split": fact.split, "fact": fact.id}
    whole = mcq(fact)
    yield {"text": whole.prompt + whole.target, "kind": "mcq", **shared}
    for kind, field in KINDS.items():
        for text in getattr(fact, field):
            yield {"text": text, "kind": kind, **shared}
