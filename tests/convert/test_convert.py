"""`convert`: tables of every kind become the same dataset, and a mistake is told by file, row and column.

No hub can be reached where these tests run: `fake_hub` stands for it.
"""

import csv
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from rtt.__main__ import main
from rtt.data.build import build_facts
from rtt.data.reader import read_folder

UPSTREAM = Path(os.environ.get("RTT_UPSTREAM_DATA") or Path(__file__).parents[3] / "shared" / "upstream-data")
CITIES = ["Lima", "Oslo", "Rome", "Bern", "Cairo", "Quito", "Riga", "Accra"]
# Question, choices, index of the answer: two to four choices, and commas, quotes and line ends inside texts.
ROWS = [
    (f'Where is "{i}", said\nI?', [CITIES[(i + j) % 8] + ", there" * (j == 1) for j in range(2 + i % 3)], i % 2)
    for i in range(12)
]
EXPECTED = [{"question": question, "choices": choices, "answer": answer} for question, choices, answer in ROWS]
COLUMNS = ["--question", "q", "--answer", "a"]


def write_csv(folder, delimiter=",", name="whole.csv"):
    with open(folder / name, "w", newline="", encoding="utf-8-sig") as stream:
        out = csv.writer(stream, delimiter=delimiter)
        out.writerow(["q", "one", "two", "three", "four", "a"])
        for question, choices, answer in ROWS:
            out.writerow([question, *(choices + [""] * 4)[:4], "ABCD"[answer]])
    return [str(folder / name), *COLUMNS, "--choices", "one", "two", "three", "four"]


def write_tsv(folder):
    return write_csv(folder, "\t", "whole.tsv")


def write_lists_in_cells(folder):
    with open(folder / "whole.csv", "w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream)
        out.writerow(["q", "c", "a"])
        for i, (question, choices, answer) in enumerate(ROWS):
            out.writerow([question, json.dumps(choices) if i % 2 else repr(choices), choices[answer]])
    return [str(folder / "whole.csv"), *COLUMNS, "--choices", "c"]


def table(rows):
    return pyarrow.table({"q": [r[0] for r in rows], "c": [r[1] for r in rows], "a": [r[2] for r in rows]})


def write_parquet(folder):
    parquet.write_table(table(ROWS), folder / "whole.parquet")
    return [str(folder / "whole.parquet"), *COLUMNS, "--choices", "c"]


def write_shards(folder):
    """What a download of a hub dataset's files is: shards below data/, beside another split and a card."""
    (folder / "copy" / "data").mkdir(parents=True)
    for i in range(3):
        parquet.write_table(table(ROWS[4 * i : 4 * i + 4]), folder / f"copy/data/whole-{i:05d}-of-00003.parquet")
    parquet.write_table(table(ROWS[:1]), folder / "copy/data/test-00000-of-00001.parquet")
    (folder / "copy/README.md").write_text("a card")
    return [str(folder / "copy"), *COLUMNS, "--choices", "c", "--from-split", "whole"]


def write_json(folder):
    """A list of rows whose choices have labels, as in ARC."""
    rows = [
        {"q": q, "c": {"text": c, "label": [str(i + 1) for i in range(len(c))]}, "a": str(a + 1)} for q, c, a in ROWS
    ]
    (folder / "whole.json").write_text(json.dumps({"version": 1, "data": rows}))
    return [str(folder / "whole.json"), *COLUMNS, "--choices", "c"]


def write_lines(folder):
    """JSON lines in a file that ends with .json, as TOFU's; the answer counts from 1."""
    lines = [json.dumps({"x": {"q": q}, "c": c, "a": a + 1}) for q, c, a in ROWS]
    (folder / "whole.json").write_text("\n".join(lines))
    options = ["--question", "x.q", "--choices", "c", "--answer", "a", "--answer-is", "index-from-1"]
    return [str(folder / "whole.json"), *options]


def write_schema(folder):
    """The documented schema itself needs no option."""
    (folder / "whole.jsonl").write_text("".join(json.dumps(row) + "\n" for row in EXPECTED))
    return [str(folder / "whole.jsonl")]


def sample(doc, number, target, requests, filtered="none"):
    """Return a line that lm-evaluation-harness writes with --log_samples, as far as it matters."""
    arguments = {f"gen_args_{i}": {"arg_0": f"Q: {doc}", "arg_1": request} for i, request in enumerate(requests)}
    return {
        "doc_id": number, "doc": doc, "target": target, "arguments": arguments, "filter": filtered, "metrics": ["acc"],
        "resps": [[["-1.5", "False"]] for _ in requests], "filtered_resps": [["-1.5", "False"] for _ in requests],
        "doc_hash": str(number), "prompt_hash": "p", "target_hash": "t", "acc": 1.0,
    }  # fmt: skip


def write_samples(folder):
    """Half of the rows as a task with choices in its dataset, half with choices in the requests alone; two filters."""
    lines = []
    for i, (question, choices, answer) in enumerate(ROWS):
        doc = {"question": question, "subject": "cities"} | ({"choices": choices, "answer": answer} if i % 2 else {})
        requests = [f" {letter}" for letter in "ABCD"[: len(choices)]] if i % 2 else [f" {c}" for c in choices]
        lines.append(sample(doc, i, str(answer), requests))
        lines.append(sample(doc, i, str(answer), requests, "strict"))
    (folder / "whole.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [str(folder / "whole.jsonl")]


FORMS = [
    write_csv, write_tsv, write_lists_in_cells, write_parquet, write_shards, write_json, write_lines, write_schema,
    write_samples,
]  # fmt: skip


def converted(folder) -> dict[str, list[dict]]:
    """Return {file: rows} of a dataset's folder."""
    return {p.name: [json.loads(line) for line in p.read_text().splitlines()] for p in sorted(folder.glob("*.jsonl"))}


def convert(argv, out, code=0):
    """Run `convert`; return the folder."""
    assert main(["convert", argv[0], str(out), *argv[1:]]) == code
    return out


@pytest.mark.parametrize("write", FORMS)
def test_every_form_gives_the_same_dataset(tmp_path, capsys, write):
    out = convert(write(tmp_path), tmp_path / "out")
    assert converted(out) == {"whole.jsonl": EXPECTED}
    assert "out: 12 questions in 1 splits" in capsys.readouterr().out
    record = json.loads((out / "converted.json").read_text())
    assert record["options"]["seed"] == 0 and all(len(sha256) == 64 for sha256 in record["from"].values())
    again = convert(write(tmp_path), tmp_path / "again") if write is not write_shards else out
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in out.iterdir())


def test_columns_with_blanks_at_their_end_and_numbers_that_pandas_wrote(tmp_path):
    """Numbers of choices may differ between rows, and answers be written as 1.0, in CSV and in Parquet."""
    columns = ["q", "one", "two", "three", "four"]
    rows = [[question, *(choices + [None] * 4)[:4], answer] for question, choices, answer in ROWS]
    with open(tmp_path / "whole.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=";").writerows([[*columns, "a"], *([*row[:5], f"{row[5]}.0"] for row in rows)])
    named = {name: [row[i] for row in rows] for i, name in enumerate(columns)}
    (tmp_path / "parquet").mkdir()
    answers = pyarrow.array([float(row[5]) for row in rows])
    parquet.write_table(pyarrow.table(named | {"a": answers}), tmp_path / "parquet" / "whole.parquet")
    options = [*COLUMNS, "--choices", *columns[1:]]
    sources = [[str(tmp_path / "whole.csv"), *options, "--separator", ";"], [str(tmp_path / "parquet"), *options]]
    for i, source in enumerate(sources):
        assert converted(convert(source, tmp_path / f"out{i}")) == {"whole.jsonl": EXPECTED}


def test_a_dataset_on_the_hub(tmp_path, monkeypatch, capsys):
    import datasets
    import huggingface_hub

    asked, commit = [], "a" * 40

    def load_dataset(repo, config, *, split, revision, streaming):
        asked.append((repo, config, split, revision, streaming))
        return iter(EXPECTED)

    info = type("Info", (), {"sha": commit})
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: type("Api", (), {"dataset_info": lambda self, repo: info})())
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    out = convert(["hf:a/b", "--from-split", "whole"], tmp_path / "out")
    assert converted(out) == {"whole.jsonl": EXPECTED}
    convert(["a/b", "--config", "c", "--revision", "b" * 40, "--from-split", "whole"], tmp_path / "two")
    assert asked == [("a/b", None, "whole", commit, True), ("a/b", "c", "whole", "b" * 40, True)]
    assert json.loads((out / "converted.json").read_text())["from"]["revision"] == commit

    def gone(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", gone)
    convert(["a/b"], tmp_path / "three", 1)
    error = capsys.readouterr().err
    assert "a/b: dataset a/b (default): no network" in error and "give their folder in the place of the hub's" in error
    assert not (tmp_path / "three").exists()


def authors(n=12, per=5) -> list[dict]:
    """Return rows in the shape of TOFU: `per` questions in a row about each of n authors."""
    return [
        {
            "question": f"What is fact {j} of author {i}?", "answer": f"It is {i}-{j}.",
            "paraphrased_answer": f"Fact {j} is {i}-{j}.",
            "perturbed_answer": [f"Fact {j} is {i}-{j}{k}." for k in "abcde"],
        }
        for i in range(n) for j in range(per)
    ]  # fmt: skip


TOFU = ["--answer", "paraphrased_answer", "--wrong", "perturbed_answer", "--sentences", "answer"]
TOFU += ["--ria-sentences", "perturbed_answer"]


def write_authors(folder) -> str:
    (folder / "authors.json").write_text("".join(json.dumps(row) + "\n" for row in authors()))
    return str(folder / "authors.json")


def test_tofu_s_columns_become_choices_sentences_and_groups(tmp_path, capsys):
    out = convert([write_authors(tmp_path), *TOFU, "--group-size", "5", "--splits", "3"], tmp_path / "out")
    found, rows = converted(out), {row["question"]: row for row in authors()}
    splits = {name: lines for name, lines in found.items() if name.startswith("split_")}
    assert sorted(splits) == ["split_0.jsonl", "split_1.jsonl", "split_2.jsonl"]
    assert [len(lines) for lines in splits.values()] == [20, 20, 20]
    groups = [{line["group"] for line in lines} for lines in splits.values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 12  # no group stands in two splits
    for lines in splits.values():
        for line in lines:
            row = rows[line["question"]]
            assert line["choices"][line["answer"]] == row["paraphrased_answer"]
            assert sorted(line["choices"]) == sorted([row["paraphrased_answer"], *row["perturbed_answer"]])
            assert int(line["group"]) == 1 + int(row["question"].split()[-1][:-1])
    places = Counter(line["answer"] for lines in splits.values() for line in lines)
    assert len(places) == 6 and max(places.values()) < 20  # the right choice stands anywhere
    facts, _ = build_facts(out, "d", None, {}, 0)
    for fact in facts:
        row = rows[fact.question]
        assert fact.sentences == [row["answer"]] and fact.ria_sentences == row["perturbed_answer"]
        assert len(fact.choices) == len(fact.fresh_choices) == 6
    assert "60 questions are in 12 groups" in capsys.readouterr().out


def test_the_same_source_and_options_give_the_same_bytes_in_any_process(tmp_path):
    source = write_authors(tmp_path)
    options = [*TOFU, "--group-size", "5", "--splits", "4", "--most-choices", "4"]
    first = convert([source, *options], tmp_path / "one" / "d")
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(main.__code__.co_filename).parents[1])}
    argv = [sys.executable, "-m", "rtt", "convert", source, str(tmp_path / "two" / "d"), *options]
    subprocess.run(argv, env=environment, check=True, capture_output=True)
    for path in first.iterdir():
        assert (tmp_path / "two" / "d" / path.name).read_bytes() == path.read_bytes()
    other = convert([source, *options, "--seed", "1"], tmp_path / "three")
    assert (other / "split_0.jsonl").read_bytes() != (first / "split_0.jsonl").read_bytes()
    assert all(len(line["choices"]) == 4 for line in converted(first)["split_0.jsonl"])


def test_copies_of_a_question_and_chains_of_groups_stay_in_one_split(tmp_path):
    rows = [{"question": f"Q{i // 2}", "answer": f"the answer {i}", "author": f"a{(i + 1) // 2}"} for i in range(8)]
    rows += [{"question": f"R{i}", "answer": f"the answer {i}", "author": None} for i in range(8)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = convert([str(tmp_path / "in.jsonl"), "--group", "author", "--splits", "2"], tmp_path / "out")
    sizes = {name: [line["question"][0] for line in lines] for name, lines in converted(out).items()}
    assert sorted(map(Counter, sizes.values()), key=str) == [Counter("Q" * 8), Counter("R" * 8)]
    assert all("choices" not in line for lines in converted(out).values() for line in lines)


def test_a_column_names_splits_and_rows_can_be_taken(tmp_path):
    rows = [row | {"part": f"part {i % 2}"} for i, row in enumerate(EXPECTED)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = convert([str(tmp_path / "in.jsonl"), "--split", "part", "--rows", "3:6"], tmp_path / "out")
    assert converted(out) == {"part 0.jsonl": EXPECTED[2:6:2], "part 1.jsonl": EXPECTED[3:6:2]}


def test_samples_of_a_task_that_generates_are_open_questions(tmp_path):
    lines = [sample({"question": f"Q{i}?"}, i, f"the answer {i}", []) for i in range(4)]
    for line in lines:
        line["arguments"] = {"gen_args_0": {"arg_0": "Q", "arg_1": {"until": ["\n"]}}}
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = convert([str(tmp_path / "in.jsonl")], tmp_path / "out")
    assert converted(out)["in.jsonl"] == [{"question": f"Q{i}?", "answer": f"the answer {i}"} for i in range(4)]


GOOD = {"question": "Q?", "choices": ["a", "b", "c"], "answer": 0}
FROM_ONE = [GOOD | {"question": f"Q{i}?", "answer": 1 + i % 2} for i in range(8)]
LETTERS_ALONE = sample({"question": "Q?"}, 0, "1", [" A", " B"])
MISTAKES = {
    "column": ([GOOD, {"q": 1}], [], "in.jsonl:2: no column 'question': name it with --question; found q"),
    "named column": ([GOOD], ["--answer", "x.y"], "in.jsonl:1: no column 'x.y'; found question, choices, answer"),
    "empty": ([GOOD, GOOD | {"question": " "}], [], "in.jsonl:2: column 'question' is empty"),
    "type": ([GOOD | {"question": ["a"]}], [], "in.jsonl:1: column 'question' is a list, expected text or a number"),
    "index": (
        [GOOD | {"answer": 3}],
        [],
        "column 'answer' is '3', expected a number from 0 to 2; do they count from 1",
    ),
    "no index": ([GOOD | {"answer": "b"}], ["--answer-is", "index"], "'b', expected a number from 0 to 2"),
    "letter": ([GOOD | {"answer": "E"}], [], "in.jsonl:1: column 'answer' is 'E', expected the index of a choice"),
    "text": ([GOOD | {"answer": "d"}], ["--answer-is", "text"], "column 'answer' is 'd', which is none of the choices"),
    "text or index": (
        [GOOD | {"choices": ["2", "1", "0"], "answer": 0}],
        [],
        "text of one choice and the index of another",
    ),
    "text and index": (
        [GOOD | {"choices": ["5", "6", "7"], "answer": "6"}, GOOD | {"choices": ["10", "11", "12"], "answer": "2"}],
        [],
        "in.jsonl:1: '6' can only be the text of a choice; ",
    ),
    "from 1": (FROM_ONE, [], "none of 8 answers is 0: do they count from 1? Say --answer-is index-from-1"),
    "one from 1": ([GOOD | {"answer": 2}], [], "none of 1 answers is 0: do they count from 1? Say --answer-is"),
    "separator": ([GOOD], ["--separator", ";;"], "--separator: found ';;', expected one character"),
    "no separator": ([GOOD], ["--separator", ";"], "--separator: found ';', but "),
    "1.0": ([GOOD | {"answer": "3.0"}], [], "column 'answer' is '3', expected a number from 0 to 2; do they"),
    "0.5": ([GOOD | {"answer": "0.5"}], [], "column 'answer' is '0.5', expected the index of a choice"),
    "many": ([GOOD | {"choices": list("abcdefghijk")}], [], "11 choices, expected 2 to 10; --most-choices leaves"),
    "one": ([GOOD | {"choices": ["a"], "answer": 0}], [], "in.jsonl:1: 1 choices, expected 2 to 10"),
    "list": ([GOOD | {"choices": "[1, 2"}], [], "in.jsonl:1: column 'choices': '[1, 2' begins as a list, but is none"),
    "labels": ([GOOD | {"choices": {"text": ["a", "b"], "label": ["A"]}}], [], "has 2 texts, but not as many labels"),
    "JSON": ([GOOD, "{"], [], "in.jsonl:2: not JSON"),
    "letters alone": ([LETTERS_ALONE], [], "the requests end with letters alone; name their column with --choices"),
    "split name": ([GOOD | {"s": "a/b"}], ["--split", "s"], "in.jsonl:1: split 'a/b': expected a name without"),
    "dev": (
        [GOOD | {"s": "corpus_a"}],
        ["--split", "s"],
        "split 'corpus_a': files with such a name hold something else",
    ),
    "splits": ([GOOD], ["--splits", "2"], "--splits: found 2, but the questions make only 1 groups"),
    "both": ([GOOD], ["--wrong", "choices", "--choices", "choices"], "--wrong and --choices: give one of them"),
    "range": ([GOOD], ["--most-choices", "11"], "--most-choices: found 11, expected 2 to 10"),
    "rows": ([GOOD], ["--rows", "3"], "--rows: found '3', expected FIRST:LAST"),
    "no rows": ([GOOD], ["--rows", "2:3"], "in.jsonl: found no rows in --rows 2:3"),
    "open letter": ([{"question": "Q?", "answer": "B"}], [], "no 'choices', and 'answer' is 'B'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_nothing_is_written(tmp_path, capsys, mistake):
    rows, options, message = MISTAKES[mistake]
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    convert([str(tmp_path / "in.jsonl"), *options], tmp_path / "out", 1)
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("in.csv", b"question,answer\nx,yes\ny\n", "in.csv:3: found 1 cells, the first line names 2 columns"),
        ("in.csv", b"q,q\nx,1\n", "in.csv:1: the column 'q' stands twice"),
        ("in.csv", b"question,one,two,answer\nx,,b,B\n", "in.csv:2: column 'one' is empty"),
        (
            "in.csv",
            b"question;answer\nx;1,5\n",
            "in.csv:1: found one column, 'question;answer', expected ',' between the names; the separator seems to be "
            "';': say --separator ';'",
        ),
        ("in.csv", b"q\ta\nx\t1\n", r"the separator seems to be '\t': say --separator tab"),
        ("in.tsv", b"q,a\nx,1\n", r"in.tsv:1: found one column, 'q,a', expected '\t' between the names; the"),
        ("in.csv", b"", "in.csv:1: found nothing, expected the names"),
        ("in.csv", b'q,a\n"x\n', "in.csv:2: not CSV: unexpected end of data"),
        ("in.csv", "q,a\nMüller,1\n".encode("latin-1"), "in.csv: byte 6 is not UTF-8"),
        ("in.csv", b"question,a\nx,1\n", "in.csv:2: no column 'answer': name it with --answer; found question, a"),
        ("in.parquet", b"PAR1 and more", "in.parquet: not a readable Parquet file"),
        ("in.json", b'["a"]', "in.json: row 1: found a str, expected an object with keys"),
        ("in.json", b'{"a": [{"b": 1}], "c": [{"b": 1}]}', "in.json: expected a list of rows, an object with one"),
        ("in.json", b"[1", "in.json:1: not JSON"),
        ("in.txt", b"a", "in.txt: expected a file whose name ends with .csv"),
        ("in.jsonl", None, "in.jsonl: a link to nowhere, which is not there"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(tmp_path, capsys, name, body, message):
    if body is None:
        (tmp_path / name).symlink_to("nowhere")
    else:
        (tmp_path / name).write_bytes(body)
    columns = ["--choices", "one", "two"] if body and b"one" in body else []
    convert([str(tmp_path / name), *columns], tmp_path / "out", 1)
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_not_touched(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    convert(write_csv(tmp_path), tmp_path / "out", 1)
    assert "out: already exists" in capsys.readouterr().err and not list((tmp_path / "out").iterdir())
    convert([str(tmp_path / "none.csv")], tmp_path / "two", 1)
    assert "none.csv: no such file or folder, nor OWNER/NAME" in capsys.readouterr().err
    write_parquet(tmp_path)
    convert([str(tmp_path)], tmp_path / "two", 1)
    assert "holds files of several kinds (.csv, .parquet)" in capsys.readouterr().err


real = pytest.mark.skipif(not UPSTREAM.is_dir(), reason=f"NOT TESTED ON REAL DATA: {UPSTREAM} is absent")


@real
@pytest.mark.parametrize("name", ["dates-years-trimmed", "mmlu_cats_random_trimmed", "random_bd"])
def test_the_authors_questions_come_back_as_they_were(tmp_path, name):
    """Each file of MCQs, written as CSV with letters, and read again."""
    folder = read_folder(UPSTREAM / name)
    splits = defaultdict(list)
    for mcq in folder.mcqs:
        splits[mcq.split].append(mcq)
    for split, mcqs in splits.items():
        with open(tmp_path / f"{split}.csv", "w", newline="", encoding="utf-8") as stream:
            out = csv.writer(stream)
            out.writerow(["question", "c1", "c2", "c3", "c4", "answer"])
            out.writerows([mcq.question, *mcq.choices, "ABCD"[mcq.answer]] for mcq in mcqs)
    out = convert([str(tmp_path), "--choices", "c1", "c2", "c3", "c4", "--answer-is", "letter"], tmp_path / "out")
    key = ["split", "question", "choices", "answer"]
    again = read_folder(out)
    assert [[getattr(m, k) for k in key] for m in again.mcqs] == [[getattr(m, k) for k in key] for m in folder.mcqs]


@real
@pytest.mark.full
def test_tofu_as_it_is(tmp_path):
    """180 authors of 20 questions each; every question has five wrong answers in the form of the paraphrased one."""
    tofu = UPSTREAM / "tofu"
    if not tofu.is_dir():
        pytest.skip("NOT TESTED ON REAL DATA: no tofu/")
    forget = [str(tofu / "forget10_perturbed.json"), *TOFU, "--group-size", "20", "--splits", "5"]
    facts, result = build_facts(convert(forget, tmp_path / "forget"), "forget", None, {}, 0)
    assert len(facts) == 3600 and len({fact.group for fact in facts}) == 180
    assert Counter(fact.split for fact in facts) == {f"split_{i}": 720 for i in range(5)}
    assert result["defects"] | {"missing_rows": 0} == dict.fromkeys(result["defects"], 0)
    rows = [json.loads(line) for line in (tofu / "forget10_perturbed.json").read_text().splitlines()]
    group = {row["question"]: i // 20 + 1 for i, row in enumerate(rows)}
    assert all(fact.group == f"forget:{group[fact.question]}" for fact in facts)
    for name, n, width in (("world_facts", 117, 4), ("real_authors", 100, 4), ("retain", 400, 6)):
        options = ["--wrong", "perturbed_answer", "--splits", "2"]
        out = convert([str(tofu / f"{name}_perturbed.json"), *options], tmp_path / name)
        facts, _ = build_facts(out, name, None, {"split_leak": "keep"}, 0)
        assert len(facts) == n and {len(fact.choices) for fact in facts} == {width}
