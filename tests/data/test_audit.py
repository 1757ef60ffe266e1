"""The audit on synthetic folders with planted defects, through the command line and as a library."""

import json
import shutil
import tempfile
from fractions import Fraction
from pathlib import Path

import pytest
from data_builder import dataset, dump, write
from hypothesis import given, settings
from hypothesis import strategies as st
from rtt.__main__ import main
from rtt.data.audit import KINDS, audit_folder, binomial_tail
from rtt.data.reader import KINDS as SENTENCE_KINDS
from rtt.data.reader import read_folder
from scipy.stats import binom

STYLES = ["question", "names", "pairs"]


def found(folder: Path) -> dict[str, list[dict]]:
    """The details of the audit, by kind."""
    details = audit_folder(folder)["details"]
    return {kind: [d for d in details if d["kind"] == kind] for kind in {d["kind"] for d in details}}


def json_of(capsys, *argv: str) -> tuple[int, dict]:
    code = main(["audit", *map(str, argv), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("style", STYLES)
def test_a_clean_folder_has_no_defect(tmp_path, capsys, style):
    folder = write(tmp_path / "clean", dataset(style))
    code, result = json_of(capsys, folder, "--strict")
    assert code == 0
    assert result["details"] == []
    assert result["defects"] == dict.fromkeys(KINDS, 0)
    files = 15 if style == "pairs" else 12
    assert (result["files"], result["rows"], result["questions"], result["facts"]) == (files, 24, 24, 24)
    assert result["texts"] == {"sentences": 72, "ria_sentences": 72, "fif_sentences": 72}
    assert result["texts_in_another_split"] == (216 if style == "pairs" else 0)
    assert result["letter_counts"]["split_1"] == [2, 2, 2, 2]
    assert result["majority_letter_accuracy"]["split_1"] == 0.25
    assert sorted(result["sha256"]) == sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("style", STYLES)
def test_every_sentence_is_joined_to_the_person_it_names(tmp_path, style):
    folder = read_folder(write(tmp_path / "d", dataset(style)))
    assert len(folder.sentences) == 216
    for sentence in folder.sentences:
        name = folder.mcqs[sentence.mcq].question.removeprefix("When was ").removesuffix(" born?")
        assert name in sentence.text


def plant_leak(files):  # the person of split_0, line 2, again in split_2, line 5, with the same answer; its texts too
    files["split_2.jsonl"][4] = files["split_0.jsonl"][1]
    for prefix in SENTENCE_KINDS:
        files[f"{prefix}split_2.jsonl"][12:15] = [
            row | {"split": "split_2"} for row in files[f"{prefix}split_0.jsonl"][3:6]
        ]


def plant_conflict(files):
    row = dict(files["split_0.jsonl"][1])
    files["split_0.jsonl"].append(row | {"answer": (row["answer"] + 1) % 4})


def plant_repeat(files):
    files["split_1.jsonl"].append(dict(files["split_1.jsonl"][0]))


def plant_few_shot(files):
    files["dev.jsonl"] = [dict(files["split_1.jsonl"][3])]


def plant_ambiguous(files):
    row = files["split_1.jsonl"][2]
    row["choices"][(row["answer"] + 1) % 4] = str(row["choices"][row["answer"]])


def plant_wrong_twice(files):
    row = files["split_1.jsonl"][2]
    row["choices"][(row["answer"] + 1) % 4] = row["choices"][(row["answer"] + 2) % 4]


def plant_orphan(files):
    files["corpus_split_1.jsonl"].append({"text": "Nobody Known was born in 1950.", "split": "split_1"})


def plant_textless(files):
    for prefix in SENTENCE_KINDS:
        del files[f"{prefix}split_1.jsonl"][6:9]


def plant_lost_row(files):
    del files["whp_corpus_split_1.jsonl"][7]


def plant_future(files):
    row = files["split_2.jsonl"][0]
    old, row["choices"][row["answer"]] = row["choices"][row["answer"]], 2031
    for prefix in SENTENCE_KINDS:
        for text in files[f"{prefix}split_2.jsonl"][:3]:
            text["text"] = text["text"].replace(str(old), "2031")
            text["correct_answer"] = 2031


def plant_letter(files):  # 8 of 8 answers are C; permuting the choices leaves the correct ones
    for row in files["split_0.jsonl"]:
        row["choices"].insert(2, row["choices"].pop(row["answer"]))
        row["answer"] = 2


def plant_true_ria(files):
    row = files["whp_corpus_split_0.jsonl"][4]
    row["text"] = "In what year was Boris Abbas born?"


# plant, {kind: (file, line, facts concerned)} of every defect that must be found, and nothing else
PLANTS = [
    (
        plant_leak,
        {
            "split_leak": ("split_0.jsonl", 2, ["d/split_0/002", "d/split_2/005"]),
            "duplicate_question": ("split_0.jsonl", 2, ["d/split_2/005"]),
        },
    ),
    (
        plant_conflict,
        {
            "conflicting_answer": ("split_0.jsonl", 2, ["d/split_0/002", "d/split_0/009"]),
            "duplicate_question": ("split_0.jsonl", 2, ["d/split_0/009"]),
            "missing_text": ("split_0.jsonl", 9, ["d/split_0/009"]),
        },
    ),
    (plant_repeat, {"duplicate_question": ("split_1.jsonl", 1, ["d/split_1/009"])}),
    (plant_few_shot, {"duplicate_question": ("split_1.jsonl", 4, [])}),
    (plant_ambiguous, {"duplicate_choice": ("split_1.jsonl", 3, ["d/split_1/003"])}),
    (plant_wrong_twice, {"duplicate_wrong_choice": ("split_1.jsonl", 3, ["d/split_1/003"])}),
    (
        plant_orphan,
        {
            "missing_mcq": ("corpus_split_1.jsonl", 25, None),
            "missing_rows": None,  # the true sentences are one more: RIA and FIF files are short of it
        },
    ),
    (plant_textless, {"missing_text": ("split_1.jsonl", 3, ["d/split_1/003"])}),
    (plant_lost_row, {"missing_rows": ("whp_corpus_split_1.jsonl", 23, ["d/split_1/003"])}),
    (plant_future, {"future_year": ("split_2.jsonl", 1, ["d/split_2/001"])}),
    (plant_letter, {"letter_prior": ("split_0.jsonl", 1, None)}),
    (plant_true_ria, {"wrong_text": ("whp_corpus_split_0.jsonl", 5, ["d/split_0/002"])}),
]


@pytest.mark.parametrize(("plant", "expected"), PLANTS, ids=[plant.__name__ for plant, _ in PLANTS])
def test_a_planted_defect_is_found_at_its_line_and_nothing_else_is(tmp_path, capsys, plant, expected):
    files = dataset()
    plant(files)
    folder = write(tmp_path / "d", files)
    details = found(folder)
    assert set(details) == set(expected)
    for kind, place in expected.items():
        if place is not None:
            (detail,) = details[kind]
            assert (detail["path"], detail["line"], detail.get("fact_ids")) == place
    assert main(["audit", str(folder)]) == 0
    text = capsys.readouterr().out
    for kind, place in expected.items():
        if place is not None:
            assert f"{place[0]}:{place[1]}: {kind}: " in text
    assert main(["audit", str(folder), "--strict"]) == 1


def test_a_leak_and_a_conflict_name_all_places_and_facts(tmp_path):
    files = dataset()
    row = files["split_0.jsonl"][1]
    files["split_1.jsonl"].append(row | {"answer": (row["answer"] + 1) % 4})
    files["split_2.jsonl"].append(
        row | {"question": row["question"].upper() + " "}
    )  # same but for case and white space
    details = found(write(tmp_path / "d", files))
    places = ["split_0.jsonl:2", "split_1.jsonl:9", "split_2.jsonl:9"]
    for kind in ("split_leak", "conflicting_answer"):
        (detail,) = details[kind]
        assert detail["places"] == places
        assert detail["fact_ids"] == ["d/split_0/002", "d/split_1/009", "d/split_2/009"]
        assert all(place in detail["message"] for place in places)


def test_with_tf_files_an_event_without_an_mcq_and_an_mcq_without_text_are_found(tmp_path):
    files = dataset("pairs")
    files["split_1.jsonl"].pop(3)  # its texts stand in the files of split_2, rows 10 to 12
    details = found(write(tmp_path / "d", files))
    (event,) = details["missing_mcq"]
    assert (event["path"], event["line"]) == ("corpus_split_2.jsonl", 10)
    rows = {f"{prefix}split_2.jsonl:{line}" for prefix in SENTENCE_KINDS for line in (10, 11, 12)}
    assert set(event["places"]) == {*rows, "tf_split_2.jsonl:4"}

    files = dataset("pairs")
    for name in ["corpus_", "whp_corpus_", "fwf_corpus_"]:
        del files[f"{name}split_0.jsonl"][9:12]
    del files["tf_split_0.jsonl"][3]
    details = found(write(tmp_path / "e", files))
    assert set(details) == {"missing_text"}
    assert [(d["path"], d["line"]) for d in details["missing_text"]] == [("split_2.jsonl", 4)]


@pytest.mark.parametrize("lost", [[0], [5], [23], [0, 1, 2], [3, 10, 17], [21, 22]])
def test_lost_rows_do_not_shift_the_pairing(tmp_path, lost):
    files = dataset("pairs", n=8)
    for row in reversed(lost):
        del files["whp_corpus_split_1.jsonl"][row]
    folder = read_folder(write(tmp_path / "d", files))
    kept = [row for row in range(24) if row not in lost]
    events = [sentence.event for sentence in folder.sentences if sentence.file == "whp_corpus_split_1.jsonl"]
    assert events == [row // 3 for row in kept]


def test_copies_of_a_fact_share_its_sentences(tmp_path):
    files = dataset()
    files["split_0.jsonl"].insert(1, dict(files["split_0.jsonl"][0]))
    for prefix in SENTENCE_KINDS:
        files[f"{prefix}split_0.jsonl"][3:3] = [dict(row) for row in files[f"{prefix}split_0.jsonl"][:3]]
    folder = read_folder(write(tmp_path / "d", files))
    for mcq in (0, 1):
        lines = [s.line for s in folder.sentences if s.mcq == mcq and s.kind == "sentences"]
        assert lines == [3 * mcq + 1, 3 * mcq + 2, 3 * mcq + 3]


MCQ = {"question": "When was Zoe Quist born?", "choices": ["1", "2", "3", "4"], "answer": 0}
BAD_MCQS = {
    "not JSON": b"{'question': 1}",
    "cut off": dump(MCQ)[:-1],
    "two objects": dump(MCQ) + dump(MCQ),
    "not JSON: NaN": b'{"question": "Q", "choices": ["1", "2", "3", "4"], "answer": NaN}',
    "found a list": b"[1, 2]",
    "stands twice": b'{"question": "Q", "choices": ["1", "2", "3", "4"], "answer": 0, "answer": 1}',
    "wrong encoding": "{'question': 'Müller'}".encode("latin-1"),
    "escape": b'{"question": "\\ud800", "choices": ["1", "2", "3", "4"], "answer": 0}',
    "the control character '\\x1b' in 'Zoe\\x1b[2J'": dump(MCQ | {"question": "Zoe\x1b[2J"}),
    "the control character '\\r'": dump(MCQ | {"choices": ["1", "2\r\n", "3", "4"]}),
    "the control character '\\x7f'": dump(MCQ | {"note": [{"\x7f": 1}]}),
    "not JSON that can be read": b'{"answer": ' + b"9" * 5000 + b"}",
    "cannot nest": b"[" * 100_000,
    "no 'question'": dump({k: v for k, v in MCQ.items() if k != "question"}),
    "'question' is empty text": dump(MCQ | {"question": " \t"}),
    "'question' is a int": dump(MCQ | {"question": 7}),
    "no 'answer'": dump({k: v for k, v in MCQ.items() if k != "answer"}),
    "'answer' is out of range": dump(MCQ | {"answer": 4}),
    "out of range, expected 0 to 3": dump(MCQ | {"answer": -1}),
    "'answer' is a NoneType": dump(MCQ | {"answer": None}),
    "'answer' is '0', expected the index": dump(MCQ | {"answer": "0"}),
    "'answer' is 'E', expected": dump(MCQ | {"answer": "E"}),
    "the text of one choice and the letter of another": dump(MCQ | {"choices": ["O", "A", "B"], "answer": "B"}),
    "'answer' is a bool": dump(MCQ | {"answer": True}),
    "'answer' is a float": dump(MCQ | {"answer": 1.0}),
    "1 choices, expected 2 to 10": dump(MCQ | {"choices": ["1"]}),
    "11 choices, expected 2 to 10": dump(MCQ | {"choices": list("abcdefghijk")}),
    "0 choices, expected 2 to 10": dump(MCQ | {"choices": []}),
    "no 'choices', and 'answer' is 0": dump({k: v for k, v in MCQ.items() if k != "choices"}),
    "no 'choices', and 'answer' is 'B'": b'{"question": "Q", "answer": "B"}',
    "'group' is a float": dump(MCQ | {"group": 1.5}),
    "'choices' is a str": dump(MCQ | {"choices": "1234"}),
    "choices[2] is empty text": dump(MCQ | {"choices": ["1", "2", "", "4"]}),
    "choices[0] is a float": dump(MCQ | {"choices": [1.5, "2", "3", "4"]}),
    "choices[1] is a NoneType": dump(MCQ | {"choices": ["1", None, "3", "4"]}),
}
BAD_SENTENCES = {
    "no 'text'": b'{"split": "split_0"}',
    "'text' is empty text": b'{"text": ""}',
    "'text' is a NoneType": b'{"text": null}',
    "'original_question' is a int": b'{"text": "a", "original_question": 3}',
    "'correct_answer' is a list": b'{"text": "a", "correct_answer": []}',
    "'wrong_answers' is a int": b'{"text": "a", "wrong_answers": 3}',
}
BAD_FILES = {
    "split_1.jsonl": BAD_MCQS,
    "corpus_split_1.jsonl": BAD_SENTENCES,
    "dev.jsonl": {"out of range": dump(MCQ | {"answer": 9})},
    "tf_split_1.jsonl": {"no 'question'": b'{"text": "a"}'},
    "mcq_split_1.jsonl": {"expected 0 to 1": dump(MCQ | {"choices": [1, 2], "answer": 2})},
    "corpus_dev.jsonl": {"no 'text'": b"{}"},
}


def test_every_malformed_line_is_listed_with_its_reason_and_the_rest_is_audited(tmp_path, capsys):
    files = dataset()
    plant_ambiguous(files)
    expected = {}
    for file, bad in BAD_FILES.items():
        rows = files.setdefault(file, [])
        first = min(2, len(rows))
        rows[first:first] = [b"", *bad.values()]
        expected |= {(file, line): why for line, why in enumerate(bad, first + 2)}
    folder = write(tmp_path / "d", files)
    code, result = json_of(capsys, folder)
    malformed = {(d["path"], d["line"]): d["message"] for d in result["details"] if d["kind"] == "malformed"}
    assert code == 1 and result["defects"]["malformed"] == len(malformed) == len(expected)
    for place, why in expected.items():
        assert why in malformed[place] or why in ("cut off", "two objects", "cannot nest"), place
    (ambiguous,) = [d for d in result["details"] if d["kind"] == "duplicate_choice"]
    assert (ambiguous["path"], ambiguous["line"]) == ("split_1.jsonl", 4 + len(BAD_MCQS))
    assert (result["rows"], result["facts"]) == (24 + len(BAD_MCQS), 24)
    main(["audit", str(folder)])
    assert "split_1.jsonl:10: malformed: wrong encoding" in capsys.readouterr().out


def test_utf16_an_empty_split_and_the_lack_of_splits_are_malformed(tmp_path, capsys):
    files = dataset()
    folder = write(tmp_path / "d", files)
    (folder / "split_0.jsonl").write_bytes((folder / "split_0.jsonl").read_text().encode("utf-16"))
    (folder / "split_1.jsonl").write_bytes(b"\n \n")
    messages = [(d["path"], d["line"], d["message"]) for d in found(folder)["malformed"]]
    assert messages[0] == ("split_0.jsonl", 1, "wrong encoding: UTF-16; save the file as UTF-8")
    assert messages[1] == ("split_1.jsonl", 1, "found no rows; a split needs questions")
    only = write(tmp_path / "e", {"corpus_split_0.jsonl": files["corpus_split_0.jsonl"]})
    assert main(["audit", str(only)]) == 1
    assert "no MCQ file" in capsys.readouterr().out


def test_a_byte_order_mark_crlf_blank_lines_and_trailing_space_change_nothing(tmp_path):
    folder = write(tmp_path / "d", dataset())
    plain = audit_folder(folder)
    path = folder / "split_0.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b" \t\r\n\r\n"))
    other = audit_folder(folder)
    assert other["sha256"].pop("split_0.jsonl") != plain["sha256"].pop("split_0.jsonl")
    assert other == plain
    assert [mcq.line for mcq in read_folder(folder).mcqs[:3]] == [1, 3, 5]  # blank lines count as lines, not as rows


def test_a_last_line_without_newline_and_a_space_in_a_file_name_are_read(tmp_path):
    files = dataset(splits=1)
    files = {name.replace("split_0", "mmlu_social sciences"): rows for name, rows in files.items()}
    folder = write(tmp_path / "d", files)
    path = folder / "mmlu_social sciences.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    result = audit_folder(folder)
    assert result["rows"] == 8 and result["details"] == [] and list(result["letter_counts"]) == ["mmlu_social sciences"]


def test_usage_errors_exit_with_2(tmp_path, capsys):
    for path in (tmp_path / "absent", tmp_path):
        assert main(["audit", str(path)]) == 2
        assert str(path) in capsys.readouterr().err
    for argv in (["audit"], ["audit", "x", "--year", "soon"], ["audit", "x", "--nope"]):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 2


def test_a_folder_of_datasets_is_audited_dataset_by_dataset(tmp_path, capsys):
    write(tmp_path / "all" / "one", dataset())
    files = dataset("pairs")
    files["split_0.jsonl"][0] = b"?"
    write(tmp_path / "all" / "two", files)
    (tmp_path / "all" / "README.md").write_text("no data")
    code, value = json_of(capsys, tmp_path / "all")
    assert code == 1
    assert [(d["dataset"], d["defects"]["malformed"]) for d in value["datasets"]] == [("one", 0), ("two", 1)]


def test_the_audit_of_a_copied_folder_has_the_same_bytes(tmp_path, capsys):
    files = dataset()
    plant_leak(files)
    one = write(tmp_path / "here" / "d", files)
    two = shutil.copytree(one, tmp_path / "there" / "deep" / "d")
    texts = []
    for folder in (one, two):
        main(["audit", str(folder), "--json"])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and str(tmp_path) not in texts[0]


def test_the_year_option_moves_the_future(tmp_path, capsys):
    folder = write(tmp_path / "d", dataset())  # the years 1900 to 1995
    assert json_of(capsys, folder, "--year", "1990")[1]["defects"]["future_year"] == 1  # 1995 alone
    assert json_of(capsys, folder)[1]["defects"]["future_year"] == 0


def test_the_binomial_tail_is_that_of_scipy():
    for n, k in [(1, 1), (8, 5), (157, 50), (157, 54), (40, 0)]:
        assert float(binomial_tail(k, n, Fraction(1, 4))) == pytest.approx(binom.sf(k - 1, n, 0.25), rel=1e-12)


def test_a_letter_prior_is_reported_from_the_corrected_level_on(tmp_path):
    n = 100
    first = next(k for k in range(n) if 4 * binom.sf(k - 1, n, 0.25) <= 0.05)
    for most, expected in [(first - 1, 0), (first, 1)]:
        answers = [2] * most + [(0, 1, 3)[i % 3] for i in range(n - most)]
        rows = [
            {"question": f"Question {i}?", "choices": [f"{i}a", f"{i}b", f"{i}c", f"{i}d"], "answer": a}
            for i, a in enumerate(answers)
        ]
        result = audit_folder(write(tmp_path / str(most), {"split_0.jsonl": rows}))
        assert result["defects"]["letter_prior"] == expected
        assert result["majority_letter_accuracy"] == {"split_0": most / n}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_arbitrary_bytes_never_give_a_traceback(data):
    lines = st.one_of(st.binary(max_size=60), st.sampled_from([*BAD_MCQS.values(), *BAD_SENTENCES.values(), dump(MCQ)]))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("split_0.jsonl", "corpus_split_0.jsonl", "tf_split_0.jsonl", "dev.jsonl"):
            raw = b"\n".join(data.draw(st.lists(lines, max_size=4)))
            Path(folder, name).write_bytes(data.draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe"])) + raw)
        code = main(["audit", folder])
        assert code == int(audit_folder(folder)["defects"]["malformed"] > 0)
        assert main(["facts", folder, "--dataset", "d", "--out", f"{folder}/o/f", "--audit", f"{folder}/o/a"]) in (0, 1)


def test_a_file_name_that_cannot_be_printed_is_refused(tmp_path, capsys):
    folder = write(tmp_path / "d", dataset())
    (folder / "split\n9.jsonl").write_bytes(b"{}\n")
    assert main(["audit", str(folder)]) == 1
    assert "cannot be printed" in capsys.readouterr().err
