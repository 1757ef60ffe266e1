"""What the project's texts refer to is there: links, headings, files, modules and tests."""

import pytest
import rtt
from docs_markdown import FILES, anchors, inline, target
from places import ROOT
from references import dangling, files, texts

# Files that a reader writes, or must not have, or that a bundle has; a name in capitals stands for any name.
EXAMPLES = {
    "scripts/rtt/methods/simnpo.py",
    "rtt.methods.simnpo",
    "profiles/slurm/site.yaml",
    "profiles/default",
    "config/models/NAME.yaml",
    "TABLES.md",
}


@pytest.mark.parametrize("file", FILES)
def test_links_lead_somewhere(file):
    wrong = []
    for token in [*inline(file, "link_open"), *inline(file, "image")]:
        link = token.attrs.get("href") or token.attrs["src"]
        if "://" in link:
            continue
        path, anchor = target(file, link)
        if not path.exists() or ROOT not in [path, *path.parents]:
            wrong.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(str(path.relative_to(ROOT))):
            wrong.append(f"{link}: no such heading")
    assert not wrong


def test_what_texts_name_exists():
    """Files, modules and tests that are named in Markdown, comments, docstrings and messages are the project's."""
    wrong = [
        f"{file}:{line}: {name}" for file in files() for line, text in texts(file) for name in dangling(text, EXAMPLES)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see docs/no-such.md", ["docs/no-such.md"]),
        ("the settings (scripts/rtt/study/settings.py), and config/.", []),
        ("of tests/test_*.py and `tests/nothing.py`.", ["tests/nothing.py"]),
        ("kept in PAPER.md", ["PAPER.md"]),
        ("statistics.md has more", []),
        ("`rtt.errors.UserError`, `rtt.stats`, rtt.study.settings.Model.tokenizer", []),
        ("`rtt.errors.NoSuchError` and `rtt.nothing`", ["rtt.errors.NoSuchError", "rtt.nothing"]),
        ("`data/test_facts::test_no_such_test`", ["data/test_facts::test_no_such_test"]),
        ("results/demo/report.html, my/docs/own.md", []),
    ],
)
def test_a_text_that_names_nothing_is_seen(text, expected):
    assert dangling(text) == expected


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
