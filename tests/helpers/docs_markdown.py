"""The project's Markdown files: their code blocks, inline code, headings and links."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from places import ROOT

FILES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "data/*.md")
    for path in ROOT.glob(pattern)
)
NOT_RUN = re.compile(r"<!-- *not run: *(?P<reason>.*?) *-->")


@dataclass(frozen=True)
class Block:
    """One block of code, fenced or indented. `reason`: what stands above it as `<!-- not run: REASON -->`, or None."""

    file: str
    line: int
    language: str
    text: str
    reason: str | None = None

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@cache
def tokens(file: str) -> tuple[Token, ...]:
    return tuple(MarkdownIt("commonmark").enable("table").parse((ROOT / file).read_text(encoding="utf-8")))


def blocks(file: str) -> list[Block]:
    """Return a file's code blocks, in order."""
    found, reason = [], None
    for token in tokens(file):
        if token.type in ("fence", "code_block"):
            found.append(Block(file, token.map[0] + 1, token.info.strip(), token.content, reason))
        comment = NOT_RUN.search(token.content) if token.type == "html_block" else None
        reason = comment["reason"] if comment else None
    return found


def comments(file: str) -> list[str]:
    """Return all reasons that stand in a file, whether or not a block follows."""
    found = [token.content for token in tokens(file) if token.type == "html_block"]
    return [match["reason"] for text in found for match in NOT_RUN.finditer(text)]


def inline(file: str, kind: str) -> list[Token]:
    """Return a file's inline tokens of one kind, such as `code_inline` or `link_open`, in order."""
    return [child for token in tokens(file) for child in token.children or [] if child.type == kind]


def anchors(file: str) -> set[str]:
    """Return the anchors of a file's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    names = set()
    before = None
    for token in tokens(file):
        if before is not None and before.type == "heading_open":
            text = "".join(child.content for child in token.children if child.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            names.add(f"{slug}-{found[slug]}" if slug in found else slug)
            found[slug] = found.get(slug, 0) + 1
        before = token
    return names


def target(file: str, link: str) -> tuple[Path, str]:
    """Return (path, anchor) that a relative link leads to."""
    path, _, anchor = link.partition("#")
    return ((ROOT / file).parent / path).resolve() if path else ROOT / file, anchor
