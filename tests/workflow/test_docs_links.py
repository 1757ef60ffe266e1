"""Links, anchors and paths in the project's Markdown lead somewhere."""

import re

import pytest
import rtt
from docs_markdown import FILES, anchors, inline, target
from places import ROOT

# Not below data/, which runs fill; a word in capitals stands for a name.
PATH = re.compile(r"(benchmarks|config|docs|envs|profiles|rules|scripts|tests)/(?!.*[A-Z]{4})[\w./-]+")
# What a reader writes, or must not.
EXAMPLES = {"scripts/rtt/methods/simnpo.py", "profiles/slurm/site.yaml", "profiles/default"}


@pytest.mark.parametrize("file", FILES)
def test_links_lead_somewhere(file):
    wrong = []
    for token in inline(file, "link_open"):
        link = token.attrs["href"]
        if "://" in link:
            continue
        path, anchor = target(file, link)
        if not path.exists() or ROOT not in [path, *path.parents]:
            wrong.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(str(path.relative_to(ROOT))):
            wrong.append(f"{link}: no such heading")
    assert not wrong


@pytest.mark.parametrize("file", FILES)
def test_paths_named_in_code_exist(file):
    """`scripts/rtt/x.py` or `config/x.yaml` in a text is a file of the project."""
    paths = {token.content for token in inline(file, "code_inline") if PATH.fullmatch(token.content)} - EXAMPLES
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_a_broken_link_and_a_missing_heading_are_seen():
    assert not target("README.md", "docs/no-such.md")[0].exists()
    assert "demo-step-by-step" not in anchors("README.md") and "running-a-study" in anchors("README.md")


def test_every_page_is_in_the_index():
    listed = {target("docs/README.md", token.attrs["href"])[0] for token in inline("docs/README.md", "link_open")}
    pages = {ROOT / file for file in FILES if file.startswith("docs/")} - {ROOT / "docs/README.md"}
    assert not sorted(str(page.relative_to(ROOT)) for page in pages - listed)


def test_the_version_is_the_same_everywhere():
    assert f"\nversion: {rtt.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert rtt.__version__ in (ROOT / "CHANGELOG.md").read_text()
