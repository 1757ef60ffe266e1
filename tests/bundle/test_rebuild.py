"""What is rebuilt from a bundle equals it, on other machines too, and `rtt verify` says so of each file."""

import io
import os
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
from rtt.bundle import opening, rebuild
from rtt.bundle.layout import DERIVED
from rtt.study.names import TABLES

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
    return rebuild.verdicts(folder / "given/results/tiny", folder / "results/tiny", shown=True)


def test_threads_and_cpu_features_change_no_byte(bundle, tmp_path):
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    present = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    settings = [{"OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4"}]
    settings += [{"NPY_DISABLE_CPU_FEATURES": " ".join(present), "OPENBLAS_CORETYPE": "Prescott"}] if present else []
    for i, variables in enumerate(settings):
        found = rebuilt(bundle, tmp_path / str(i), **variables)
        assert len(found) == 15 and set(found.values()) == {rebuild.EQUAL}, (variables, found)


def test_a_rebuilt_file_that_differs_is_named(bundle, tmp_path, capsys):
    opening.unpack(opening.look(bundle), tmp_path)
    made = tmp_path / "results/tiny"
    for name in DERIVED:  # as if they had been made again
        copy = shutil.copytree if (tmp_path / "given/results/tiny" / name).is_dir() else shutil.copyfile
        copy(tmp_path / "given/results/tiny" / name, made / name)
    (made / "tables/recovery.csv").write_text("another\n")
    (made / "figures/curves.svg").unlink()
    (tmp_path / "given/results/tiny/report.html").unlink()
    found = rebuild.verdicts(tmp_path / "given/results/tiny", made, shown=True)
    odd = {name: verdict for name, verdict in found.items() if verdict != rebuild.EQUAL}
    assert odd == {
        "tables/recovery.csv": rebuild.DIFFERS, "figures/curves.svg": rebuild.LOST, "report.html": rebuild.ABSENT
    }  # fmt: skip
    assert rebuild.run(type("Arguments", (), {"root": tmp_path})) == 0
    shown = capsys.readouterr().out
    assert "12 of 15 equal the bundle's" in shown and "possible reasons: another environment" in shown


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
    assert "0 of 7 equal the bundle's" in shown and "possible reasons" not in shown  # none differs
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
