"""What is rebuilt from a bundle equals it, on other machines too, and `rtt verify` says so of each file."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import bundle_builder as builder
import numpy as np
import pytest
from bundle_builder import BASE, edited, index_of, pack, silent
from PIL import Image
from rtt.__main__ import main
from rtt.bundle import forged, opening, rebuild
from rtt.bundle.layout import DERIVED
from rtt.study.names import FIGURES, TABLES

MADE = len(TABLES) + 2 * len(FIGURES) + 1  # tables, figures in two forms, the report
ROOT = Path(__file__).parents[2]


def rebuilt(bundle: Path, folder: Path, **variables: str) -> dict[str, str]:
    """Unpack and rebuild in a process of its own, with variables of the environment; return the verdicts."""
    code = (
        "import sys; from pathlib import Path; from rtt.bundle import opening, rebuild; root = Path(sys.argv[2]); "
        "opening.unpack(opening.look(sys.argv[1]), root); rebuild.rebuild(root, 'tiny', True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), **variables}
    done = subprocess.run([sys.executable, "-c", code, bundle, folder], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return rebuild.verdicts(folder / "given/results/tiny", folder / "results/tiny", opening.look(bundle).index)


def test_threads_and_cpu_features_change_no_byte(bundle, tmp_path):
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    present = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    settings = [{"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4"}]
    settings += [{"NPY_DISABLE_CPU_FEATURES": " ".join(present), "OPENBLAS_CORETYPE": "Prescott"}] if present else []
    for i, variables in enumerate(settings):
        found = rebuilt(bundle, tmp_path / str(i), **variables)
        assert len(found) == MADE and set(found.values()) == {rebuild.EQUAL}, (variables, found)


def test_a_rebuilt_file_that_differs_is_named(bundle, tmp_path, capsys):
    opening.unpack(opening.look(bundle), tmp_path)
    made = tmp_path / "results/tiny"
    for name in DERIVED:  # as if they had been made again
        copy = shutil.copytree if (tmp_path / "given/results/tiny" / name).is_dir() else shutil.copyfile
        copy(tmp_path / "given/results/tiny" / name, made / name)
    (made / "tables/recovery.csv").write_text("another\n")
    (made / "figures/curves.svg").unlink()
    (tmp_path / "given/results/tiny/report.html").unlink()
    found = rebuild.verdicts(tmp_path / "given/results/tiny", made, opening.look(bundle).index)
    odd = {name: verdict for name, verdict in found.items() if verdict != rebuild.EQUAL}
    assert odd == {
        "tables/recovery.csv": rebuild.DIFFERS, "figures/curves.svg": rebuild.LOST, "report.html": rebuild.ABSENT
    }  # fmt: skip
    assert main(["verify", str(tmp_path)]) == 1
    shown, error = capsys.readouterr()
    assert f"{MADE - 3} of {MADE} equal the bundle's" in shown and "recovery.csv      FORGED: other columns" in shown
    assert "1 files are forged or damaged: tables/recovery.csv cannot come from" in error


def test_a_results_folders_report_may_show_the_reference_study(bundle, tmp_path, monkeypatch):
    """It is redrawn with the reference's section, and compared; a word more, and it differs."""
    opening.unpack(opening.look(bundle), tmp_path)
    rebuild.rebuild(tmp_path, "tiny", True)
    made, given = tmp_path / "results/tiny", tmp_path / "given/results/tiny"
    page, index = rebuild.report.page, opening.look(bundle).index

    def with_section(results, config, reference=None, texts=True):
        text = page(results, config, texts=texts)
        return text if reference is None else text.replace("</main>", '<h2 id="reference">Seeds</h2></main>')

    monkeypatch.setattr(rebuild.report, "page", with_section)
    told = (made / "report.html").read_text().replace("</main>", '<h2 id="reference">Seeds</h2></main>')
    found = {}
    for text in (told, told.replace("Seeds", "Other seeds")):
        (given / "report.html").write_text(text)
        found[text] = rebuild.verdicts(given, made, index)["report.html"]
    assert list(found.values()) == ["equal, but for the reference study's section", rebuild.DIFFERS]


def png(pixels: np.ndarray, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png", **options)
    return out.getvalue()


def test_pngs_are_compared_by_pixels(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    one, other = png(pixels, compress_level=0), png(pixels, compress_level=9)
    assert one != other and rebuild.same(one, other) == rebuild.PIXELS
    pixels[3, 4, 1] ^= 1
    assert rebuild.same(one, png(pixels)) == rebuild.DIFFERS
    assert rebuild.same(one[:100], one) == rebuild.DIFFERS
    monkeypatch.setattr(rebuild, "imread", lambda *_: pytest.fail("an image of another size is decoded"))
    huge = one[:16] + (2**31 - 1).to_bytes(4, "big") * 2 + one[24:]  # claims more pixels than any memory holds
    assert rebuild.same(huge, one) == rebuild.same(one, huge) == rebuild.DIFFERS


def test_given_files_that_nothing_rebuilds_are_named(files, tmp_path, capsys):
    forged = {BASE + name: b"forged" for name in ("figures/more.png", "report.html", "tables/extra/x.csv")}
    files = edited(files, "runs.json", builder.not_attacked) | forged
    path = pack(tmp_path / "x.zip", files, index_of(files) | {"shown": False})
    with silent():
        opening.unpack(opening.look(path), tmp_path / "out")
        rebuild.rebuild(tmp_path / "out", "tiny", shown=False)
    assert main(["verify", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert f"0 of {len(TABLES) + 3} equal the bundle's" in shown and "possible reasons" not in shown  # none differs
    for name in ("figures/more.png", "report.html", "tables/extra/x.csv"):
        assert any(line.split() == [name, "not", "rebuilt"] for line in shown.splitlines())


def test_reasons_for_differences_are_named_where_they_are_known(files, tmp_path):
    tables = files | {BASE + f"tables/{name}.csv": b"" for name in TABLES}
    index = index_of(tables)
    untold = opening.look(pack(tmp_path / "x.zip", tables, index)).index  # nothing says which code made them
    assert rebuild.reasons(untold) == []
    index["files"][BASE + "tables/recovery.csv"] |= {"step": "tables", "code": "0123456789"}
    [reason] = rebuild.reasons(opening.look(pack(tmp_path / "y.zip", tables, index)).index)
    assert reason == "the bundle was made by other code or other locked packages: tables"


@pytest.fixture(scope="module")
def drawn(bundle, tmp_path_factory):
    """Return the folder of a bundle that was unpacked and rebuilt."""
    root = tmp_path_factory.mktemp("drawn")
    with silent():
        opening.unpack(opening.look(bundle), root)
        rebuild.rebuild(root, "tiny", shown=True)
    return root


def cell(data: bytes) -> bytes:
    lines = data.decode().split("\n")
    row = lines[1].split(",")
    row[lines[0].split(",").index("acc_attacked")] = "0.987654"
    return "\n".join([lines[0], ",".join(row), *lines[2:]]).encode()


def black(data: bytes) -> bytes:
    pixels = np.array(Image.open(io.BytesIO(data)))
    pixels[: len(pixels) // 4, ..., :3] = 0
    return png(pixels)


FORGERIES = {
    "results/tiny/tables/recovery.csv": (cell, "line 2, acc_attacked: '0.987654', the scores give"),
    "results/tiny/tables/accuracy.csv": (lambda data: data[: data.rindex(b"\n", 0, -1) + 1], "rows, the scores give"),
    "results/tiny/figures/accuracy.svg": (lambda data: data.replace(b"</svg>", b"<path/></svg>"), "the scores give"),
    "results/tiny/figures/accuracy.png": (black, "% of the image is not what the scores give"),
    "results/tiny/report.html": (lambda data: data.replace(b"<h1>", b"<h1>Proof: ", 1), "Proof: "),
    "licences.tsv": (lambda data: data + b"model\tCC0\tnowhere\n", "CC', the program writes"),
    "LICENSE": (lambda data: b"All rights reserved\n", "the program writes"),
    "ro-crate-metadata.json": (lambda data: data.replace(b"Unlearning RTT", b"Learning RTT", 1), "the program writes"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_cannot_come_from_the_scores_is_forged(drawn, name, capsys):
    forge, said = FORGERIES[name]
    path = drawn / "given" / name
    before = path.read_bytes()
    assert forge(before) != before
    path.write_bytes(forge(before))
    try:
        code, (shown, error) = main(["verify", str(drawn)]), capsys.readouterr()
    finally:
        path.write_bytes(before)
    short = name.removeprefix("results/tiny/")
    [line] = [line for line in shown.splitlines() if "FORGED" in line]
    assert code == 1 and line.startswith(short) and said in line and f"forged or damaged: {short} cannot" in error


@pytest.mark.parametrize(("name", "given", "made", "found"), [
    ("report.html", "falls to .29", "falls to .25", ".29, the scores give .25"),
    ("report.html", "of 4.04 hours", "of 4 hours", "4.04, the scores give 4"),
    ("report.html", "falls to .26", "falls to .25", None),
    ("report.html", '<p id="a" title=".29">', '<p id="a" title=".25">', ".29, the scores give .25"),
    ("report.html", '<b style="left:4.29%">', '<b style="left:4.25%">', None),
    ("SVG", '<path d="M 4.29 0"/>', '<path d="M 4.25 0"/>', None),
    ("SVG", '<path d="M 4.31 0"/>', '<path d="M 4.25 0"/>', "4.31, the scores give 4.25"),
    ("SVG", "<text>.29</text>", "<text>.25</text>", ".29, the scores give .25"),
    ("SVG", "<!-- .29 --><g/>", "<!-- .25 --><g/>", ".29, the scores give .25"),
    ("SVG", '<g aria-label="to .29"/>', '<g aria-label="to .25"/>', ".29, the scores give .25"),
])  # fmt: skip
def test_a_texts_numbers_may_differ_in_the_last_digit_alone(name, given, made, found):
    if name != "SVG":
        assert forged.why(name, given.encode(), made.encode()) == found
        return
    for file, page in (("figures/a.svg", "{}"), ("report.html", "<p>of .5</p>{}<p>of .7</p>")):  # also inline
        one, other = (page.format(f'<svg width="9">{text}</svg>').encode() for text in (given, made))
        assert forged.why(file, one, other) == found


def test_last_digits_of_another_machine_are_not_forged(drawn, capsys):
    def digits(data):
        return re.sub(rb"(0\.\d{5})[0-8]\b", lambda found: found[1] + b"%d" % (int(found[0][-1:]) + 1), data)

    changed = {
        "tables/recovery.csv": digits,
        "figures/accuracy.svg": lambda data: data.replace(b"M 0 ", b"M 0.01 "),
        "figures/curves.png": lambda data: png(np.array(Image.open(io.BytesIO(data))) ^ 1),
    }
    kept = {name: (drawn / "given/results/tiny" / name).read_bytes() for name in changed}
    for name, change in changed.items():
        assert change(kept[name]) != kept[name]
        (drawn / "given/results/tiny" / name).write_bytes(change(kept[name]))
    code, (shown, _) = main(["verify", str(drawn)]), capsys.readouterr()
    for name, data in kept.items():
        (drawn / "given/results/tiny" / name).write_bytes(data)
    assert code == 0 and "FORGED" not in shown and f"{MADE - 3} of {MADE} equal" in shown, shown
    assert main(["verify", str(drawn)]) == 0 and f"{MADE} of {MADE} equal" in capsys.readouterr().out


def test_a_checksum_in_the_crate_is_compared_whichever_code_wrote_it(drawn, capsys):
    path = drawn / "given/ro-crate-metadata.json"
    before = path.read_text()
    digest = re.search(r'"sha256": "([0-9a-f]{64})"', before)[1]
    path.write_text(before.replace(digest, "0" * 64))
    assert main(["verify", str(drawn)]) == 1
    path.write_text(before)
    assert "another sha256 of " in capsys.readouterr().out
