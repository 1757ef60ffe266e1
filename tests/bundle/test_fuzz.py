"""Untrusted bundles, fuzzed with hypothesis: they are refused in plain words or drawn without harm."""

import json
import string
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import bundle_builder as builder
import pytest
from bundle_builder import BUNDLE, index_of, pack, silent, tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rtt.bundle import layout, opening, rebuild
from rtt.errors import UserError
from rtt.figures import render
from rtt.figures.draw import FIGURES
from rtt.figures.tables import load
from rtt.figures.view import make_view
from rtt.report import page as report


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6), st.integers(0, 6)), min_size=1, max_size=4
    )
)
def test_garbled_archives_are_refused_or_the_same(tmp_path_factory, spoils):
    """Bytes are replaced, inserted and deleted. What still opens is what was packed."""
    data = BUNDLE.read_bytes()
    for where, new, dropped in spoils:
        at = int(where * len(data))
        data = data[:at] + new + data[at + dropped :]
    folder = tmp_path_factory.mktemp("garbled")
    (folder / "x.zip").write_bytes(data)
    try:
        with silent():
            opening.unpack(opening.look(folder / "x.zip"), folder / "out/put")
    except UserError:
        left = {name for name in tree(folder) if not name.startswith("out/put/")}
        assert left == {"x.zip"} and not tree(folder / "out")
        return
    with zipfile.ZipFile(BUNDLE) as good:
        for name in good.namelist():
            where = folder / "out/put/given" / name
            if where.exists():
                assert where.read_bytes() == good.read(name)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(alphabet=string.ascii_letters + "./\\:~ -_\0\n" + "é", max_size=40))
def test_any_name_stays_inside(name):
    try:
        layout.check_name(name, "x")
        layout.check_place(name, "tiny", "x")
    except UserError:
        return
    assert (Path("/base") / name).resolve().is_relative_to("/base")


SCRIPT, ESC = "<script>alert(1)</script>", "\x1b[31m"
HOSTILE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20),
    st.sampled_from([SCRIPT, ESC, "\ud800", "../../x", "-->", "=1+1", 2**31, -1, 1e15, [], {}, [[]], "$\\frac$"]),
)  # fmt: skip


def places(value, path=()):
    """Every place in a JSON document, as a list of keys; of long lists the first two items."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


DRAWN = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=10, **DRAWN)
@given(st.data())
def test_a_document_with_anything_in_it_is_refused_or_can_be_drawn(tmp_path_factory, data):
    refused_or_drawn(tmp_path_factory.mktemp("document"), data)


@pytest.mark.full
@settings(max_examples=200, **DRAWN)
@given(st.data())
def test_many_documents_with_anything_in_them(tmp_path_factory, data):
    refused_or_drawn(tmp_path_factory.mktemp("document"), data)


def refused_or_drawn(folder, data):
    """Expect no error but a UserError from the archive to the report, and no markup of theirs in the page."""
    files = builder.committed()  # no fixture, since hypothesis would print it whole
    name = data.draw(st.sampled_from(sorted(files)))
    content = files[name]
    if name.endswith(".yaml"):
        at = data.draw(st.integers(0, len(content)))
        content = content[:at] + data.draw(st.one_of(st.binary(max_size=9), st.just(SCRIPT.encode()))) + content[at:]
    else:
        document = json.loads(content)
        for _ in range(data.draw(st.integers(1, 2))):
            *path, last = data.draw(st.sampled_from([path for path in places(document) if path]))
            inner = document
            for key in path:
                inner = inner[key]
            inner[last] = data.draw(HOSTILE)
        content = json.dumps(document).encode()
    changed = files | {name: content}
    pack(folder / "x.zip", changed, index_of(changed))
    try:
        with silent():
            opening.unpack(opening.look(folder / "x.zip"), folder / "out")
            rebuild.make_tables(folder / "out/results/tiny")
            page = report.page(folder / "out/results/tiny", folder / "out/results/tiny/study.yaml")
    except UserError as error:
        assert str(error).isprintable()
        return
    assert SCRIPT not in page and ESC not in page
    for table in (folder / "out/results/tiny/tables").glob("*.csv"):
        assert not layout.CONTROL.search(table.read_text()) and "=1+1" not in table.read_text()


# --- others' markup


def test_markup_in_documents_stays_text(files, tmp_path):
    files = {k: v.replace(b"split_0", f"{SCRIPT}--><b>".encode()) for k, v in files.items()}
    detail = {"path": SCRIPT, "line": 1, "kind": SCRIPT, "message": f"'\">{SCRIPT}"}
    files = builder.edited(files, "data", lambda audit: audit.update(details=[detail]))
    files = builder.edited(files, "manifests", lambda manifest: manifest.update(packages={SCRIPT: SCRIPT}))
    files |= {builder.BASE + "study.yaml": f"study: tiny # </pre>{SCRIPT}\n".encode()}
    builder.pack(tmp_path / "x.zip", files)
    with silent():
        opening.unpack(opening.look(tmp_path / "x.zip"), tmp_path / "out")
        rebuild.make_tables(tmp_path / "out/results/tiny")
    page = report.page(tmp_path / "out/results/tiny", tmp_path / "out/results/tiny/study.yaml")
    assert "&lt;script&gt;" in page and page.count("<script") == 1 and "--><b>" not in page  # its own


def test_markup_in_drawn_names_stays_text(tmp_path):
    """A bundle with such names is refused, but tables from elsewhere may hold them."""
    with silent():
        opening.unpack(opening.look(BUNDLE), tmp_path)
    rebuild.make_tables(tmp_path / "results/tiny")
    hostile = {"GD": f"{SCRIPT}--><b>", "pretrained": "<img src=x onerror=alert(2)>", "birth_years_a": "]]>&x;<!--"}
    folder = tmp_path / "results/tiny/tables"
    tables = [table.replace({"method": hostile, "arm": hostile, "dataset": hostile}) for table in load(folder)]
    view = make_view(*tables)
    drawn = ""
    for name in FIGURES:
        [svg] = render(name, view, [".svg"])
        found = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
        assert {"svg", "path"} <= found and not found & {"script", "img", "b"}, name
        drawn += svg.decode()
    assert "&lt;script&gt;" in drawn and "&lt;img src=x" in drawn  # text is drawn as outlines and repeated in a comment
