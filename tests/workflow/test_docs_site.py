"""`make docs`: the documentation as a site in which every link leads somewhere, and which loads nothing from outside.

The environment for it is .venv-docs, which `make test` and `make docs` make.
"""

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from docs_markdown import FILES
from places import ROOT

PYTHON = ROOT / ".venv-docs/bin/python"
# What a browser fetches by itself, and where its address stands.
LOADED = {
    "script": ("src",), "link": ("href",), "img": ("src", "srcset"), "source": ("src", "srcset"), "iframe": ("src",),
    "video": ("src", "poster"), "audio": ("src",), "embed": ("src",), "object": ("data",), "use": ("href",),
    "image": ("href",), "input": ("src",), "track": ("src",),
}  # fmt: skip


class Page(HTMLParser):
    """A page's anchors, its links, and what a browser loads for it."""

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        self.links += [found["href"]] if tag == "a" and found.get("href") else []
        self.loaded += [found[name] for name in LOADED.get(tag, ()) if found.get(name)]


def build(folder: Path, out: Path) -> subprocess.CompletedProcess:
    command = [PYTHON, folder / "scripts/docs_site.py", "--out", out]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def environment():
    if not (ROOT / ".venv-docs/.complete").is_file():
        assert not os.environ.get("CI"), ".venv-docs is missing, which `make test` makes first"
        pytest.skip("no .venv-docs; `make docs` makes it")


@pytest.fixture(scope="module")
def site(environment, tmp_path_factory) -> dict[str, Page]:
    """Return {path below the site: page}, and the site's folder as `site["folder"]`."""
    out = tmp_path_factory.mktemp("docs") / "site's"
    done = build(ROOT, out)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert f"{len(FILES)} pages" in done.stdout and "index.html" in done.stdout
    pages = {str(path.relative_to(out)): Page(path.read_text()) for path in out.rglob("*.html")}
    return {"folder": out, **pages}


def pages(site) -> dict[str, Page]:
    return {name: page for name, page in site.items() if name != "folder"}


def test_every_page_of_the_documentation_is_there_and_in_the_contents(site):
    assert {str(Path(file).with_suffix(".html")) for file in FILES} | {"index.html"} <= set(pages(site))
    index = {unquote(link) for link in site["index.html"].links}
    assert {str(Path(file).with_suffix(".html")) for file in FILES} - {"README.html"} <= index


def test_every_link_leads_to_a_page_and_an_anchor_that_are_there(site):
    wrong, followed = [], 0
    for name, page in pages(site).items():
        for link in page.links + page.loaded:
            if "://" in link or link.startswith("data:"):
                continue
            path, _, anchor = unquote(link).partition("#")
            path = os.path.normpath(Path(name).parent / path.partition("?")[0]) if path else name
            followed += 1
            if not (site["folder"] / path).is_file():
                wrong.append(f"{name}: {link}: no such file")
            elif anchor and path.endswith(".html") and anchor not in site[path].ids:
                wrong.append(f"{name}: {link}: no such anchor")
    assert not wrong and followed > 1000


def test_nothing_is_loaded_from_another_host(site):
    outside = re.compile(r"^(https?:)?//")
    for name, page in pages(site).items():
        assert page.loaded and not [one for one in page.loaded if outside.match(one)], name
    for path in site["folder"].rglob("*.css"):
        asked = re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s;]+)""", path.read_text())
        assert not [one for one in asked if outside.match(one)], path
    for path in site["folder"].rglob("*.js"):
        code = re.sub(r"/\*.*?\*/|^\s*//.*$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
        assert not set(re.findall(r"https?://[^\"'\s`]+", code)) - {"http://www.w3.org/2000/svg"}, path


def test_the_search_finds_a_word_in_a_site_without_a_server(site):
    chromium = shutil.which("chromium")
    if not chromium:
        assert not os.environ.get("CI")
        pytest.skip("chromium is not installed")
    for word, expected in (("quantise", True), ("zeppelin", False)):
        address = f"{(site['folder'] / 'search.html').as_uri()}?q={word}"
        command = [chromium, "--headless", "--no-sandbox", "--virtual-time-budget=4000", "--dump-dom", address]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
        found = re.findall(r'<li class="kind-\w+"><a href="([^"?#]+)', shown)
        assert ("docs/attacks.html" in found) is expected and bool(found) is expected, shown


MISTAKES = {
    "docs/api.md": ("[a](no-such-page.md)", "no-such-page.md"),
    "docs/own.md": ("[a](api.md#no-such-heading)", "no-such-heading"),
    "docs/report.md": ("[a](#no-such-heading-here)", "no-such-heading-here"),
    "docs/plan.md": ("![a](no-such-image.svg)", "no-such-image.svg"),
    "docs/config.md": ("[a](../config/no-such.yaml)", "../config/no-such.yaml"),
    "docs/data.md": ('<img alt="a" src="no-such-drawing.svg">', "no-such-drawing.svg"),
    "docs/not-listed.md": ("# A page that docs/README.md does not name", "toctree"),
}


@pytest.mark.full
def test_what_is_broken_fails_the_build_by_file_and_line_and_an_older_site_stays(environment, fresh):
    out = fresh.folder / "dist/site"
    out.mkdir(parents=True)
    (out / "index.html").write_text("older")
    lines = {}
    for name, (text, _) in MISTAKES.items():
        path = fresh.folder / name
        before = path.read_text().rstrip() + "\n\n" if path.exists() else ""
        path.write_text(f"{before}{text}\n")
        lines[name] = before.count("\n") + 1
    done = build(fresh.folder, out)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "no site was made" in done.stderr
    for name, (_, said) in MISTAKES.items():
        [line] = [line for line in done.stderr.splitlines() if line.startswith(f"error: {name}:")]
        assert said in line and (said in ("toctree", "no-such-drawing.svg") or f":{lines[name]}:" in line), line
    assert len(done.stderr.splitlines()) == len(MISTAKES) + 1
    assert [path.name for path in out.iterdir()] == ["index.html"] and (out / "index.html").read_text() == "older"
