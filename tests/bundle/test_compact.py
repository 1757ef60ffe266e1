"""Compact bundles: the same tables and figures from answers alone, and every check that other bundles have."""

import dataclasses
import json
import shutil
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest
from bundle_builder import BASE, BUNDLE, silent, tree
from evals_builder import SMALL, make_evals, tables
from rtt.__main__ import main
from rtt.bundle import compacting, opening, rebuild, write
from rtt.bundle.layout import INDEX, JOINED
from rtt.errors import UserError
from rtt.files import sha256, write_json
from rtt.scoring.evidence import Evidence, check_chain
from rtt.scoring.read import read_eval
from rtt.study.names import TABLES


@pytest.fixture(scope="module")
def compact(made, tmp_path_factory) -> Path:
    """The compact bundle of the finished study."""
    return write.write(made, tmp_path_factory.mktemp("compact"), compact=True)


@pytest.fixture(scope="module")
def drawn(compact, tmp_path_factory) -> Path:
    """The folder in which it was unpacked and drawn again."""
    root = tmp_path_factory.mktemp("drawn")
    opening.unpack(opening.look(compact), root)
    with silent():
        rebuild.rebuild(root, "tiny", shown=True)
    return root


def test_everything_drawn_from_it_is_what_the_scores_gave(compact, bundle, made, drawn, capsys):
    assert main(["verify", str(drawn), "--full", str(made)]) == 0
    said = capsys.readouterr().out
    lines = dict(line.split(maxsplit=1) for line in said.splitlines() if "equal, by" in line)
    n = len(rebuild.contents.derived_files(True))
    assert f"{n} of {n} equal the bundle's" in said and len(lines) == n
    sums = {name for name, verdict in lines.items() if "sha256" in verdict}
    assert sums == {
        "tables/accuracy.csv",
        "tables/questions.csv",
        "report.html",
        *(name for name in lines if name.endswith(".png")),
    }
    assert "10 compact evaluations are what the full ones in" in said
    for name in lines:
        if name != "report.html":  # the bundle's leaves out the texts that audits quote
            assert (drawn / "results/tiny" / name).read_bytes() == (made / name).read_bytes(), name
    assert compact.stat().st_size < bundle.stat().st_size / 3


def test_tables_of_compact_evaluations_are_those_of_full_ones(tmp_path):
    make_evals(tmp_path / "a", **SMALL | {"methods": ("GD", "RMU")}, repeats=2, seeds=(3, 4))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    write_json(tmp_path / "b/runs.json", {"study": {"seeds": [3, 4]}})
    stems = [path.stem for path in (tmp_path / "b/evals").iterdir()]
    compacting.compacted(tmp_path / "b", stems)
    sizes = [sum(path.stat().st_size for path in (tmp_path / one).rglob("*.json")) for one in ("a", "b")]
    assert sizes[1] < sizes[0] / 10
    for one in ("a", "b"):
        with silent():
            assert tables(tmp_path / one) == 0
    for name in TABLES:
        one, other = ((tmp_path / folder / f"tables/{name}.csv").read_bytes() for folder in ("a", "b"))
        assert one == other and one.count(b"\n"), name
    held = [path.name for path in sorted((tmp_path / "b/evals").iterdir()) if '"probabilities"' in path.read_text()]
    assert held and all("-s3" in name for name in held)  # of one seed


def test_its_files_lie_together_and_large_ones_are_left_out(compact, made):
    with zipfile.ZipFile(compact) as archive:
        names, index = set(archive.namelist()), json.loads(archive.read(INDEX))
        evals = archive.read(f"{BASE}evals.joined")
    assert {f"{BASE}{folder}.joined" for folder in JOINED} <= names and "ro-crate-metadata.json" not in names
    assert not [
        name for name in names if name.endswith(("png", "html", "accuracy.csv", "questions.csv")) or "/evals/" in name
    ]
    assert index["version"] == 3 and set(index["left_out"]).isdisjoint(index["files"])
    assert index["left_out"][f"{BASE}tables/accuracy.csv"]["sha256"] == sha256(made / "tables/accuracy.csv")
    stems = json.loads((made / "runs.json").read_text())["variants"]["default"]["evals"]
    assert {f"{BASE}evals/{stem}.json" for stem in stems} <= set(index["files"])
    assert [json.loads(line)["compact"] for line in evals.splitlines()] == [1] * len(stems)
    for line in evals.splitlines():
        full = json.loads(line)["full"]
        assert full["sha256"] in {sha256(path) for path in made.glob("evals/**/*.json")}


def test_a_rebuilt_folder_gives_the_same_bundle_again(compact, drawn, tmp_path, monkeypatch):
    """So analysis code may change, and the bundle be made anew, without the full evaluations."""

    def copy(root, study, shown):  # drawing takes seconds and has no part in this
        for name, _ in rebuild.contents.derived_files(shown):
            (root / BASE / name).parent.mkdir(exist_ok=True)
            shutil.copy(drawn / BASE / name, root / BASE / name)

    monkeypatch.setattr(rebuild, "rebuild", copy)
    again = write.write(drawn / "results/tiny", tmp_path)
    assert again.name == compact.name and again.read_bytes() == compact.read_bytes()
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(compact) as archive:
        archive.extractall(folder)
    opening.unpack(opening.look(folder), tmp_path / "out")
    assert tree(tmp_path / "out/results/tiny/evals") == tree(drawn / "results/tiny/evals")


def test_a_folder_that_holds_one_bundle_stands_for_it(compact, tmp_path):
    folder = tmp_path / "reference"
    folder.mkdir()
    with pytest.raises(UserError, match=r"neither bundle\.json nor runs\.json"):
        opening.look(folder)
    shutil.copy(compact, folder)
    assert opening.look(folder).path == folder / compact.name
    shutil.copy(BUNDLE, folder)
    with pytest.raises(UserError, match=r"2 bundles in it, .* name one of them"):
        opening.look(folder)


def changed(compact: Path, target: Path, member: str, change, index=lambda found: None) -> Path:
    """Copy a bundle with one of its members, or its index, changed."""
    with zipfile.ZipFile(compact) as good, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in good.namelist():
            data = good.read(name)
            if name == INDEX:
                found = json.loads(data)
                index(found)
                data = json.dumps(found).encode()
            if name != BASE + member or change is not None:
                archive.writestr(name, change(data) if name == BASE + member else data)
    return target


EVALS = "evals.joined"
LEFT = "left_out"


def nothing(data: bytes) -> bytes:
    return data


def leave_out(name: str):
    """Return a change of the index by which a file is left out."""
    return lambda found: found[LEFT].update({BASE + name: next(iter(found[LEFT].values()))})


# The member that is changed, how, the change of the index, and what is said.
HOSTILE = {
    "a byte": (EVALS, lambda data: data.replace(b"true", b"TRUE", 1), None, "is not what bundle.json"),
    "longer": (EVALS, lambda data: data + b" ", None, "evals.joined has"),
    "shorter": (EVALS, lambda data: data[:-1], None, "evals.joined has"),
    "absent": (EVALS, None, None, "evals.joined is missing"),
    "turned": ("manifests.joined", lambda data: data[9:] + data[:9], None, "is not what bundle.json"),
    "left out, but there": (EVALS, nothing, leave_out("tables/recovery.csv"), "left_out names"),
    "left out elsewhere": (EVALS, nothing, leave_out("../x.png"), "is refused"),
    "scores left out": (EVALS, nothing, leave_out("evals/x.json"), "left_out names"),
    "no left_out": (EVALS, nothing, lambda found: found.pop(LEFT), LEFT),
    "left_out a list": (EVALS, nothing, lambda found: found.update(left_out=[]), "left_out is an object"),
    "joined, and a file": (
        EVALS, nothing, lambda found: found["files"].update({BASE + EVALS: next(iter(found["files"].values()))}),
        "no place in a bundle",
    ),
    "too much in one": (
        EVALS, nothing, lambda found: [
            found["files"][name].update(bytes=200 << 20) for name in [*found["files"]] if "/evals/" in name
        ],
        "has more than",
    ),
    "of version 2": (EVALS, nothing, lambda found: found.update(version=2), LEFT),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_compact_bundles_are_refused(compact, tmp_path, refused, name):
    member, change, index, said = HOSTILE[name]
    refused(changed(compact, tmp_path / "x.zip", member, change, index or (lambda found: None)), said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(probes=["=cmd"]), "probes.0"),
        (lambda d: d.update(compact=2), "compact"),
        (lambda d: d["answers"]["forget"].update(bits="<script>"), "answers.forget.bits"),
        (lambda d: d["full"].update(sha256="x"), "full.sha256"),
        (lambda d: d["questions"].update(forget="../../etc"), "questions.forget"),
        (lambda d: d["labels"].update(arm="=cmd"), "labels.arm"),
    ],
)
def test_a_document_of_another_shape_is_refused(drawn, tmp_path, change, said):
    """In a results folder, too, which has no checksums."""
    results = Path(shutil.copytree(drawn / "results/tiny", tmp_path / "tiny"))
    path = next(results.glob("evals/*/original.json"))
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(UserError) as caught:
        opening.unpack(opening.look(results), tmp_path / "out")
    assert f"original.json: '{said}" in str(caught.value)


def test_a_manifest_s_sha256_is_compared_with_that_of_the_full_evaluation(drawn, tmp_path):
    results = Path(shutil.copytree(drawn / "results/tiny", tmp_path / "tiny"))
    path = next(results.glob("evals/*/original.json"))
    full, manifest = json.loads(path.read_text())["full"]["sha256"], results / f"manifests/{path.parent.name}.json"
    evidence = Evidence(spec="0" * 64, full=full)  # as of an evaluation that has its spec
    said = json.loads(manifest.read_text())
    for value in (full, "0" * 64):
        manifest.write_text(json.dumps(said | {"made": {f"evals/{path.parent.name}/original.json": value}}))
        found = dataclasses.replace(read_eval(path), evidence=evidence)
        with nullcontext() if value == full else pytest.raises(UserError, match="its sha256 is not the one in"):
            check_chain([found], results)


def test_other_full_evaluations_than_it_came_from_are_named(drawn, made, tmp_path, capsys):
    full = Path(shutil.copytree(made, tmp_path / "full"))
    path = next(full.glob("evals/*/original.json"))
    path.write_text(path.read_text() + " ")
    assert main(["verify", str(drawn), "--full", str(full)]) == 1
    assert "this was made from another file" in capsys.readouterr().err
    path.unlink()
    assert main(["verify", str(drawn), "--full", str(full)]) == 1
    assert "original.json: no such file; expected the full evaluation" in capsys.readouterr().err


def test_a_table_that_its_answers_do_not_give_is_forged(drawn, tmp_path, capsys):
    root = Path(shutil.copytree(drawn, tmp_path / "forged"))
    table = root / "given/results/tiny/tables/recovery.csv"
    table.write_text(table.read_text().replace("0.37", "0.39", 1))
    assert main(["verify", str(root)]) == 1
    assert "recovery.csv      FORGED" in capsys.readouterr().out
    made = root / "results/tiny/tables/accuracy.csv"  # known by its sha256 alone, it may differ in its last digits
    made.write_text(made.read_text().replace("0.37", "0.39", 1))
    capsys.readouterr()
    main(["verify", str(root)])
    assert "accuracy.csv      differs" in capsys.readouterr().out


def test_full_and_compact_bundles_are_compared(compact, bundle, capsys):
    assert main(["compare", str(bundle), str(compact)]) == 0
    assert "0 of" in capsys.readouterr().out


def test_the_python_interface_gives_its_answers(drawn, made):
    import rtt

    small, full = (rtt.load_study(folder) for folder in (drawn / "results/tiny", made))
    for one, other in zip(small.evaluations(), full.evaluations(), strict=True):
        assert one.run == other.run and one.kind == other.kind
        looks, expected = one.looks(), other.looks()
        keys = [name for name in looks.columns if name != "attack"]
        assert sorted(map(str, looks[keys].to_dict("records"))) == sorted(map(str, expected[keys].to_dict("records")))
        answers, scores = one.questions(), other.questions()
        if len(looks):
            keys = ["setting", "v_split", "repeat", "step", "id", "role", "answer", "probe"]
            right = [
                {
                    tuple(map(str, row[:-1])): float(row[-1])
                    for row in joined[[*keys, "correct"]].itertuples(index=False)
                }
                for joined in (table.join(heads, on="look") for table, heads in ((answers, looks), (scores, expected)))
            ]
            assert right[1].items() <= right[0].items() and answers["scores"].isna().all()
