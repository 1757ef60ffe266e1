"""Read a folder of JSONL files in the authors' schema, and join its sentences to its questions.

The input is a dataset's folder (docs/data.md has the schema); the output is a `Folder` with the questions, the
sentences and the question that each belongs to, and every malformed line. `rtt.data.audit` judges the data; nothing
here does.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtt.data.facts import LETTERS, MAX_CHOICES, MIN_CHOICES
from rtt.errors import UserError, brief
from rtt.files import natural
from rtt.listing import jsonl_files

# {prefix of a sentence file: kind of its sentences}. A file without any of these prefixes holds MCQs.
KINDS = {"corpus_": "sentences", "whp_corpus_": "ria_sentences", "fwf_corpus_": "fif_sentences"}
PAIRS = "tf_"  # true-or-false statements, which name the question of each event in the sentence files
COPIES = "mcq_"  # WMDP: the split's questions again, as text; checked, but not used
DEV = "dev"  # few-shot questions, which are no split
# Characters that no text may hold. U+0080 to U+009F may stand: MMLU has a few, as remains of Windows-1252.
REFUSED = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Mcq:
    """One multiple-choice question; `answer` is an index of `choices` from 0, `line` counts from 1.

    `group` names what several questions are about, such as one author; None: nothing else. An `open` question has no
    choices but its answer: wrong ones are drawn when facts are made.
    """

    split: str
    file: str
    line: int
    question: str
    choices: tuple[str, ...]
    answer: int
    group: str | None = None
    open: bool = False

    @property
    def correct(self) -> str:
        """Return the correct choice."""
        return self.choices[self.answer]

    @property
    def place(self) -> str:
        """Return `file:line`."""
        return f"{self.file}:{self.line}"

    @property
    def key(self) -> str:
        """Return the question as it is compared: two copies of one question have the same key."""
        return same(self.question)


@dataclass
class Sentence:
    """One row of a sentence file or, if `kind` is `pair`, of a `tf_` file.

    `mcq` is the index in `Folder.mcqs` of the question that it belongs to, None if there is none; `event` is the index
    of its row in the `tf_` file of its split, if that file told the question.
    """

    kind: str
    split: str
    file: str
    line: int
    text: str
    question: str | None
    correct: str | None
    wrong: tuple[str, ...] | None
    mcq: int | None = None
    event: int | None = None

    @property
    def place(self) -> str:
        """Return `file:line`."""
        return f"{self.file}:{self.line}"


@dataclass
class Folder:
    """All that a dataset's folder holds, with files, splits and rows in a fixed order."""

    path: Path
    files: list[str] = field(default_factory=list)
    sha256: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)  # rows of each file: malformed ones count, blank lines do not
    mcqs: list[Mcq] = field(default_factory=list)
    dev: list[Mcq] = field(default_factory=list)
    pairs: dict[str, list[Sentence]] = field(default_factory=dict)  # {split: rows of its tf_ file}
    sentences: list[Sentence] = field(default_factory=list)
    malformed: list[tuple[str, int, str]] = field(default_factory=list)  # (file, line, what is wrong)

    @property
    def splits(self) -> list[str]:
        """Return the splits, in order: the stems of the MCQ files."""
        return [Path(name).stem for name in self.files if role(name) == ("mcq", Path(name).stem)]

    @property
    def told(self) -> set[str]:
        """Return the kinds of sentences that the folder has files of; none: its facts are questions alone."""
        return {kind for kind, split in map(role, self.files) if kind in KINDS.values() and split != DEV}


class Malformed(Exception):
    """One line cannot be read; the text says why."""


def same(text: str) -> str:
    """Return `text` as it is compared: Unicode NFKC, case-folded, every run of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def words(text: str) -> list[str]:
    """Return the words of `text` as they are compared, with digits of every script as 0 to 9."""
    return re.findall(r"\w+", re.sub(r"\d", lambda digit: str(unicodedata.decimal(digit[0])), same(text)))


def role(file: str) -> tuple[str, str]:
    """Return (role, split) of a file name; the role is `mcq`, `dev`, `pair`, `copy` or a kind of sentences."""
    stem = Path(file).stem
    for prefix, kind in [*KINDS.items(), (PAIRS, "pair"), (COPIES, "copy")]:
        if stem.startswith(prefix):
            return kind, stem.removeprefix(prefix)
    return ("dev" if stem == DEV else "mcq"), stem


def parse_line(raw: bytes) -> dict[str, Any]:
    """Return the JSON object on one line.

    Raises Malformed for a wrong encoding, for text that is not a JSON object, for a key that stands twice, and for half
    a surrogate pair.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"wrong encoding: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from None

    def pairs(items):
        twice = [key for key, n in Counter(key for key, _ in items).items() if n > 1]
        if twice:
            raise Malformed(f"key {twice[0]!r} stands twice")
        return dict(items)

    def constant(name):
        raise Malformed(f"not JSON: {name} is no JSON value")

    try:
        row = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise Malformed(f"not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of open brackets
        raise Malformed(f"not JSON that can be read: {str(error)[:80]}") from None
    if not isinstance(row, dict):
        raise Malformed(f"found a {type(row).__name__}, expected an object with keys")
    refuse_control(row)
    return row


def refuse_control(value: Any) -> None:
    """Raise Malformed for a text, also within lists and objects, with a character of REFUSED."""
    left = [value]
    while left:
        one = left.pop()
        left += [*one, *one.values()] if isinstance(one, dict) else one if isinstance(one, list) else ()
        if not isinstance(one, str) or not (bad := REFUSED.search(one)):
            continue
        if bad[0] >= "\ud800":
            raise Malformed("wrong encoding: an escape \\uD800..\\uDFFF stands alone")
        raise Malformed(f"the control character {bad[0]!r} in {brief(one)}; only tab and newline may stand in texts")


def _text(row: dict, key: str, required: bool = True) -> str | None:
    if key not in row and not required:
        return None
    if key not in row:
        raise Malformed(f"no {key!r}")
    if not isinstance(row[key], str):
        raise Malformed(f"{key!r} is a {type(row[key]).__name__}, expected a string")
    if not row[key].strip():
        raise Malformed(f"{key!r} is empty text")
    return row[key]


def _value(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Malformed(f"{name} is a {type(value).__name__}, expected a string or an integer")
    if not str(value).strip():
        raise Malformed(f"{name} is empty text")
    return str(value)


def _values(row: dict, key: str) -> tuple[str, ...] | None:
    if key not in row:
        return None
    if not isinstance(row[key], list):
        raise Malformed(f"{key!r} is a {type(row[key]).__name__}, expected a list")
    return tuple(_value(value, f"{key}[{i}]") for i, value in enumerate(row[key]))


def parse_mcq(row: dict, file: str, line: int) -> Mcq:
    """Return a row as an Mcq.

    Raises Malformed unless there are a question, two to ten choices of text or integers, and an answer that is one of
    them: an index, a letter, or the choice itself. Without `choices` the question is open, and its answer is a text.
    """
    question = _text(row, "question")
    choices = _values(row, "choices")
    if choices is not None and not MIN_CHOICES <= len(choices) <= MAX_CHOICES:
        raise Malformed(f"{len(choices)} choices, expected {MIN_CHOICES} to {MAX_CHOICES}")
    if "answer" not in row:
        raise Malformed("no 'answer'")
    group = None if row.get("group") is None else _value(row["group"], "'group'")
    if choices is None:
        answer = row["answer"]
        if not isinstance(answer, str) or re.fullmatch(r"\s*[A-J]\s*", answer):
            raise Malformed(f"no 'choices', and 'answer' is {answer!r:.40}; the answer to an open question is its text")
        answer = _value(answer, "'answer'")
        return Mcq(role(file)[1], file, line, question, (answer,), 0, group, open=True)
    return Mcq(role(file)[1], file, line, question, choices, answer_index(row["answer"], choices), group)


def answer_index(answer: Any, choices: Sequence[str]) -> int:
    """Return the index of the choice that an answer names: an index, a letter such as "B", or the choice's own text.

    Raises Malformed for anything else, and for a text that is one choice and the letter of another.
    """
    last = len(choices) - 1
    expected = f"the index of a choice, 0 to {last}, its letter, A to {LETTERS[last]}, or its text"
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        raise Malformed(f"'answer' is a {type(answer).__name__}, expected {expected}")
    if isinstance(answer, int):
        if not 0 <= answer <= last:
            raise Malformed(f"'answer' is out of range, expected 0 to {last}")
        return answer
    texts = [i for i, choice in enumerate(choices) if choice.strip() == answer.strip()]
    letter = re.fullmatch(r"\(?([A-Ja-j])[.:)]?", answer.strip())
    letters = [i for i in range(last + 1) if letter and LETTERS[i] == letter[1].upper()]
    if texts and letters and letters[0] not in texts:
        raise Malformed(
            f"'answer' is {answer!r}, which is the text of one choice and the letter of another; give the index"
        )
    if not texts and not letters:
        raise Malformed(f"'answer' is {answer[:60]!r}, expected {expected}")
    return (letters or texts)[0]


def parse_sentence(row: dict, file: str, line: int) -> Sentence:
    """Return the row of a sentence file or a `tf_` file. Raises Malformed for text that is missing, empty or of another
    type.
    """
    kind, split = role(file)
    text = _text(row, "text")
    question = _text(row, "question") if kind == "pair" else _text(row, "original_question", required=False)
    correct = _value(row["correct_answer"], "'correct_answer'") if "correct_answer" in row else None
    return Sentence(kind, split, file, line, text, question, correct, _values(row, "wrong_answers"))


def read_file(folder: Folder, file: str) -> list[tuple[int, dict]]:
    """Return [(line from 1, object)] of one file; list malformed lines in `folder.malformed` and read on.

    A UTF-8 byte order mark, CRLF, blank lines and white space around an object are allowed. Raises UserError when the
    file cannot be opened.
    """
    try:
        data = (folder.path / file).read_bytes()
    except OSError as error:
        raise UserError(f"{folder.path / file}: cannot be read: {error.strerror}") from None
    folder.sha256[file] = hashlib.sha256(data).hexdigest()
    folder.rows[file] = 0
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        folder.malformed.append((file, 1, "wrong encoding: UTF-16; save the file as UTF-8"))
        return []
    rows = []
    for line, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not raw.strip():
            continue
        folder.rows[file] += 1
        try:
            rows.append((line, parse_line(raw.strip())))
        except Malformed as error:
            folder.malformed.append((file, line, str(error)))
    return rows


def read_folder(path: str | Path) -> Folder:
    """Read every `*.jsonl` file of a dataset's folder and join its sentences to its questions.

    Malformed lines are listed, not raised. Raises UserError when `path` is no folder, holds no JSONL file or one that
    cannot be read, or holds a file whose name cannot be printed.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; expected a dataset's folder of JSONL files")
    names = [entry.name for entry in jsonl_files(path)]
    if not names:
        raise UserError(f"{path}: no *.jsonl file in this folder; expected <split>.jsonl with MCQs (docs/data.md)")
    for name in names:
        if not name.isprintable():  # the name appears in ids, messages and audit.json
            raise UserError(f"{path}: file name {name!a} holds characters that cannot be printed; rename the file")
    folder = Folder(path, names)
    for file in names:
        kind, split = role(file)
        for line, row in read_file(folder, file):
            try:
                if kind in ("mcq", "dev", "copy"):
                    mcq = parse_mcq(row, file, line)
                    if kind != "copy":
                        (folder.mcqs if kind == "mcq" else folder.dev).append(mcq)
                else:
                    sentence = parse_sentence(row, file, line)
                    if kind == "pair":
                        folder.pairs.setdefault(split, []).append(sentence)
                    elif split != DEV:  # sentences of the few-shot questions are checked, but no method uses them
                        folder.sentences.append(sentence)
            except Malformed as error:
                folder.malformed.append((file, line, str(error)))
        if kind == "mcq" and not folder.rows[file] and file not in [name for name, _, _ in folder.malformed]:
            folder.malformed.append((file, 1, "found no rows; a split needs questions"))
    if not folder.splits:
        folder.malformed.append((names[0], 1, "found no MCQ file <split>.jsonl beside it"))
    folder.malformed.sort(key=lambda item: (natural(item[0]), item[1]))
    join(folder)
    return folder


def join(folder: Folder) -> None:
    """Set `mcq` of every sentence whose question can be identified.

    Three ways are tried in this order: `original_question`; the `tf_` file of the split, whose rows name the questions
    of the sentence file's events in the same order; and the content, where a sentence must hold the words that are
    peculiar to a question and, if it is a true sentence, the answer. Questions of the sentence's own split come first,
    then those of other splits, since Years partitions sentences and questions differently.
    """
    by_question = defaultdict(list)
    for i, mcq in enumerate(folder.mcqs):
        by_question[mcq.key].append(i)
    groups = defaultdict(list)
    for sentence in folder.sentences:
        if sentence.question is not None:
            groups[sentence.file, "question"].append(sentence)
        elif sentence.split in folder.pairs:
            groups[sentence.file, "pairs"].append(sentence)
        else:
            groups[sentence.file, "content"].append(sentence)
    subjects = _subjects(folder.mcqs)
    by_word = defaultdict(list)  # {word: questions whose first peculiar word it is}
    for i, subject in enumerate(subjects):
        by_word[min(subject, default="")].append(i)
    for (_, how), sentences in groups.items():
        if how == "pairs":
            _pair(sentences, folder.pairs[sentences[0].split])
        claims = defaultdict(list)  # {questions that match: sentences that they match}
        for sentence in sentences:
            pair = None if sentence.event is None else folder.pairs[sentence.split][sentence.event]
            if how == "content":
                fits = _by_content(sentence, folder.mcqs, subjects, by_word)
            elif how == "pairs" and pair is None:
                continue
            else:
                fits = by_question[same(sentence.question or pair.question)]
            fits = _narrow(folder.mcqs, fits, sentence, pair or sentence)
            if fits:
                claims[tuple(fits)].append(sentence)
        for fits, claimed in claims.items():  # copies of one fact divide its sentences evenly, in file order
            for i, sentence in enumerate(claimed):
                sentence.mcq = fits[i * len(fits) // len(claimed)]


def _narrow(mcqs: list[Mcq], fits: list[int], sentence: Sentence, answers: Sentence) -> list[int]:
    """Narrow the matching questions `fits` to those with the sentence's answer, then to its wrong answers or its split.

    Either of the latter is skipped if it leaves none.
    """
    if answers.correct is not None:
        fits = [i for i in fits if mcqs[i].correct.strip() == answers.correct.strip()]
    elif len(fits) > 1 and sentence.kind == "sentences":
        fits = [i for i in fits if holds(sentence.text, mcqs[i].correct)] or fits
    if answers.correct is not None and answers.wrong is not None:
        choices = sorted((answers.correct, *answers.wrong))
        fits = [i for i in fits if sorted(mcqs[i].choices) == choices and mcqs[i].split == sentence.split] or fits
    return [i for i in fits if mcqs[i].split == sentence.split] or fits


def holds(text: str, answer: str) -> bool:
    """Return whether the words of `answer` occur in `text`, next to each other."""
    return f" {' '.join(words(answer))} " in f" {' '.join(words(text))} "


def _subjects(mcqs: list[Mcq]) -> list[set[str]]:
    """Return for each question its words that fewer than half of all questions hold.

    Of "When was Ada Ito born?" these are ada and ito.
    """
    each = [set(words(mcq.question)) for mcq in mcqs]
    counts = Counter(word for found in each for word in found)
    return [{word for word in found if counts[word] < max(2, len(mcqs) / 2)} for found in each]


def _by_content(sentence: Sentence, mcqs: list[Mcq], subjects: list[set[str]], by_word: dict) -> list[int]:
    """Return the questions whose peculiar words all occur in the sentence, of its own split first, with the most such
    words.
    """
    found = set(words(sentence.text))
    fits = sorted(i for word in found for i in by_word.get(word, ()) if subjects[i] <= found)
    if sentence.kind == "sentences" and sentence.correct is None:
        fits = [i for i in fits if holds(sentence.text, mcqs[i].correct)]
    fits = [i for i in fits if mcqs[i].split == sentence.split] or fits
    most = max((len(subjects[i]) for i in fits), default=0)
    fits = [i for i in fits if len(subjects[i]) == most]
    return fits if len({(mcqs[i].key, mcqs[i].correct) for i in fits}) < 2 else []


def _pair(sentences: list[Sentence], pairs: list[Sentence]) -> None:
    """Set `event` of the sentences of one file: the index of the row in the split's `tf_` file that each paraphrases.

    Both files are in the same order, with k sentences for each event, of which some may be lost. Sentence j then stood
    at row j to j + lost, so its event is one of (j .. j + lost) // k. Among these, the answer must match and the number
    of shared words decides.
    """
    k = -(-len(sentences) // len(pairs))
    lost = k * len(pairs) - len(sentences)
    for j, sentence in enumerate(sentences):
        found = set(words(sentence.text))
        best = None
        for event in range(j // k, min((j + lost) // k, len(pairs) - 1) + 1):
            pair = pairs[event]
            if sentence.correct is not None and pair.correct is not None:
                fits = sentence.correct == pair.correct and (
                    None in (sentence.wrong, pair.wrong) or sentence.wrong == pair.wrong
                )
            else:
                fits = pair.correct is None or sentence.kind != "sentences" or holds(sentence.text, pair.correct)
            shared = len(found & {*words(pair.text), *words(pair.question)})
            if fits and shared and (best is None or shared > best):
                best, sentence.event = shared, event
