"""Records of what steps read and made."""

from rtt import records
from rtt.files import sha256


def test_a_record_names_files_as_the_results_folder_sees_them(tmp_path):
    root = tmp_path / "results/x"
    for name in ("models/a/w.bin", "models/a/.hidden", "models/a/.cut/w.bin", "models/a/sha256.json", "evals/a.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/t.jsonl").write_text("t")
    found = records.record(root, [tmp_path / "data/t.jsonl", None], [root / "models/a", root / "evals/a.json"])
    assert found == {
        "read": {"../../data/t.jsonl": sha256(tmp_path / "data/t.jsonl")},
        "made": {name: sha256(root / name) for name in ("models/a/w.bin", "evals/a.json")},
    }
    assert records.changed(root, found["made"]) == records.changed(root, found["read"]) == []
    (root / "models/a/w.bin").write_text("models/b/w.bin")
    (root / "evals/a.json").unlink()  # what is missing is Snakemake's business
    assert records.changed(root, found["made"]) == [root / "models/a/w.bin"]


def test_an_empty_record_of_an_older_version_says_nothing(tmp_path):
    (tmp_path / "tables-0123456789").touch()
    assert records.read_record(tmp_path / "tables-0123456789") == records.read_record(tmp_path / "absent") == {}
