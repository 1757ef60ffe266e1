"""Build the documentation as a site that needs no network and no server to read: `make docs`.

The pages are README.md, docs/ and the other Markdown files that these refer to, as they stand in the repository. The
site has the same folders, so every relative link leads where it leads in a clone, and files that a page links to go
along. Order and groups of the pages are those of docs/README.md. Any warning of Sphinx (a link, heading or image that
is not there, a page that docs/README.md does not name) is a mistake, and then no site is made.

This runs in an environment of its own (requirements-docs.lock), without the project's own packages.
"""

import argparse
import io
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/**/*.md", "benchmarks/*.md", "data/*.md")
HOME, INDEX = "README.md", "docs/README.md"
NAMED = re.compile(r"\[[\w./-]+\.md\]\(([^)\s]+\.md(#[^)\s]*)?)\)")  # a link that shows its page's file
LINK = re.compile(r"\]\(<?([^)>\s#]+)")  # [text](path#anchor) and ![text](path)
HTML = re.compile(r'<[^>]*\b(?:src|srcset|href)="([^"#?]+)"')
CODE = re.compile(r"^(```+|~~~+).*?^\1[^\n]*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
SETTINGS = {
    "project": "Unlearning RTT",
    "copyright": "the Unlearning RTT contributors",
    "root_doc": Path(HOME).stem,
    "language": "en",
    "smartquotes": False,
    "extensions": ["myst_parser"],
    # The pages are GitHub's Markdown: anchors as there, and none of MyST's own signs.
    "myst_heading_anchors": 6,
    "myst_disable_syntax": ["myst_role", "myst_target", "myst_line_comment", "myst_block_break"],
    "html_theme": "furo",
    "html_title": "Unlearning RTT",
    "html_show_sphinx": False,
    "html_copy_source": False,
    "html_show_sourcelink": False,
    "html_use_index": False,
    "html_show_search_summary": False,  # it would be fetched, which browsers refuse for files
    "html_css_files": ["site.css"],
}
# On a phone, a title of one long word fits its line.
STYLE = """.content th { text-align: left }
@media (max-width: 46em) { h1 { font-size: 1.9em } h2 { font-size: 1.6em } h3 { font-size: 1.3em } }
"""


def main() -> int:
    """Build the site; return 1, and leave an older site as it is, where a page has a mistake."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist/site", help="folder of the site (default: dist/site)")
    out = parser.parse_args().out
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "source"), Path(folder, "site")
        pages, mistakes = stage(source)
        mistakes += build(source, made, Path(folder, "doctrees"))
        if mistakes:
            print(*(f"error: {one}" for one in mistakes), sep="\n", file=sys.stderr)
            print(f"make docs: {len(mistakes)} mistakes in the pages, so no site was made", file=sys.stderr)
            return 1
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, out)
    place = out.relative_to(Path.cwd()) if out.is_relative_to(Path.cwd()) else out
    print(f"{len(pages)} pages in {time.monotonic() - started:.0f} s; every link within the project leads somewhere")
    print(f"open {place / 'index.html'} in a browser; it needs no network and no server")
    return 0


def stage(source: Path) -> tuple[list[Path], list[str]]:
    """Copy the pages, and the files that they refer to, into `source`; return the pages, and what is missing.

    Sphinx looks for the targets of Markdown's links itself. Those of HTML within a page it leaves alone.
    """
    pages = sorted(path for pattern in PAGES for path in ROOT.glob(pattern))
    mistakes = []
    for page in pages:
        text = CODE.sub("", page.read_text(encoding="utf-8"))
        files = {page}
        for pattern in (LINK, HTML):
            for link in pattern.findall(text):
                path = (page.parent / link).resolve()
                if path.is_file() and path.is_relative_to(ROOT):
                    files |= {path} if path.suffix != ".md" else set()
                elif pattern is HTML and "://" not in link:
                    mistakes.append(
                        f"{page.relative_to(ROOT)}: {link}: no such file; mend this link in the page's HTML"
                    )
        for path in files:
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return pages, mistakes


def build(source: Path, made: Path, doctrees: Path) -> list[str]:
    """Build the site of what lies in `source` into `made`; return Sphinx's warnings, each with file and line."""
    said, static = io.StringIO(), doctrees.parent / "static"
    static.mkdir()
    (static / "site.css").write_text(STYLE, encoding="utf-8")
    settings = {**SETTINGS, "html_static_path": [str(static)]}
    app = Sphinx(source, None, made, doctrees, "html", settings, status=None, warning=said)
    app.connect("source-read", prepare)
    app.build()
    shutil.copyfile(made / Path(HOME).with_suffix(".html"), made / "index.html")
    for path in source.rglob("*"):  # what a page's HTML refers to is found beside the page
        if path.is_file() and path.suffix != ".md":
            target = made / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    shutil.rmtree(made / "_sources", ignore_errors=True)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue()).replace(f"{source}/", "")
    return [line.replace("WARNING: ", "") for line in plain.splitlines() if line.strip()]


def prepare(app: Sphinx, name: str, content: list[str]) -> None:
    """Let links show titles in the place of file names; add the site's contents, unseen, to the home page."""
    content[0] = NAMED.sub(r"[](\1)", content[0])
    if name != app.config.root_doc:
        return
    groups = {"": [INDEX], **contents((Path(app.srcdir) / INDEX).read_text(encoding="utf-8"))}
    for caption, pages in groups.items():
        lines = ["```{toctree}", ":hidden:", *[f":caption: {caption}"] * bool(caption), *pages, "```"]
        content[0] += "\n\n" + "\n".join(lines) + "\n"


def contents(index: str) -> dict[str, list[str]]:
    """Return {heading: pages} of docs/README.md: each page once, where it is first named as a whole."""
    groups: dict[str, list[str]] = {}
    seen = {HOME, INDEX}
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        caption, _, text = section.partition("\n")
        for link in re.findall(r"\]\(([^)#]+\.md)\)", text):
            page = str((ROOT / INDEX).parent.joinpath(link).resolve().relative_to(ROOT))
            if page not in seen:
                groups.setdefault(caption.strip(), []).append(page)
                seen.add(page)
    return groups


if __name__ == "__main__":
    sys.exit(main())
