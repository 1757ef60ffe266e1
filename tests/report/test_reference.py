"""The project's own results are read from their bundle, or not at all."""

import hashlib
import json
import zipfile

import pytest
from rtt.code_version import code_version
from rtt.report import reference

STUDY = {
    "study": "seeds", "seeds": [21, 22], "arms": ["pretrained", "taught"], "data": {"splits": 5}, "faithful": [],
    "methods": {"GD": {"rate": 1}, "RMU": {"rate": 2}, "FIF": None}, "attacks": {"RTT": {"epochs": 3}},
}  # fmt: skip
RECOVERY = "seed,method,recovery,status\n21,GD,0.500000,ok\n22,GD,,undefined\n"


@pytest.fixture
def write(tmp_path):
    """Write a bundle with these tables; return its folder."""

    def call(name="seeds-0123456789", code=None, table=RECOVERY, stated=RECOVERY, unlearn="unlearn"):
        files = {"tables/recovery.csv": (table, "tables", code or code_version("tables"))}
        files["runs.json"] = json.dumps({"study": STUDY}), None, None
        files["manifests/unlearn-gd.json"] = "{}", unlearn, "0123456789"
        index, path = {}, tmp_path / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file, (text, step, made_by) in files.items():
                data = (stated if file.startswith("tables") else text).encode()
                one = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "step": step, "code": made_by}
                index[f"results/seeds/{file}"] = one | {"plugin": None}
                if not file.startswith("manifests"):  # which lie joined
                    archive.writestr(f"results/seeds/{file}", text)
            archive.writestr("bundle.json", json.dumps({"study": "seeds", "files": index}))
        return tmp_path

    return call


def test_its_tables_and_study_are_read_once(write):
    folder = write()
    found = reference.read(folder=folder)
    assert found.name == "seeds-0123456789" and found.study == STUDY and list(found.tables) == ["recovery"]
    assert found.tables["recovery"]["recovery"].tolist()[0] == 0.5 and len(found.tables["recovery"]) == 2
    assert found.changed == ("unlearn",)  # no code of ours has the hash 0123456789
    assert reference.read(folder=folder) is found


def test_there_is_none_where_nothing_or_something_else_lies(write, tmp_path):
    assert reference.read(folder=tmp_path) is None and reference.read(folder=tmp_path / "absent") is None
    (tmp_path / "x.zip").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert reference.read(folder=tmp_path) is None
    (tmp_path / "x.zip").unlink()
    write()
    assert reference.read(folder=tmp_path) is not None
    write("another-0123456789")  # two of them
    assert reference.read(folder=tmp_path) is None


def test_other_code_s_tables_and_damaged_ones_are_not_read(write):
    assert reference.read(folder=write("a-0123456789", code="0123456789")) is None
    (write("a-0123456789") / "a-0123456789.zip").unlink()
    assert reference.read(folder=write("b-0123456789", table=RECOVERY.replace("0.5", "0.9"))) is None


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({"study": "demo", "seeds": [0], "arms": ["pretrained"], "threads": 4}, True),
        ({"methods": {"GD": {"rate": 1}}}, True),  # a part of the methods
        ({"methods": {"GD": {"rate": 1}, "FIF": {"rate": 3}}}, True),  # one that the reference has not
        ({"methods": {"GD": {"rate": 3}}}, False),
        ({"attacks": {"RTT": {"epochs": 4}}}, False),
        ({"data": {"splits": 4}}, False),
        ({"faithful": ["fixed_choices"]}, False),
        ({"methods": {"FIF": {"rate": 1}}}, False),  # nothing in common
    ],
)
def test_it_fits_a_study_of_the_same_settings(write, change, fits):
    assert (reference.read(STUDY | change, write()) is not None) == fits
