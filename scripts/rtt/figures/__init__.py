"""`python -m rtt figure NAME`: draw a figure from tables as SVG and PNG (docs/figures.md)."""

import argparse
from pathlib import Path
from typing import Any

from rtt import records
from rtt.errors import UserError
from rtt.figures.draw import FIGURES
from rtt.figures.parts import Spot, spots
from rtt.figures.style import PROBES, png_bytes, settings, svg_bytes
from rtt.figures.tables import FILES, load
from rtt.figures.view import View, make_view
from rtt.files import atomic_path

WRITERS = {".svg": svg_bytes, ".png": png_bytes}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("name", choices=FIGURES, help="figure to draw")
    parser.add_argument(
        "--tables", required=True, type=Path, help="folder with recovery.csv, accuracy.csv and the other tables"
    )
    parser.add_argument("--out", required=True, type=Path, nargs="+", metavar="FILE", help="files to write: .svg, .png")
    parser.add_argument("--probe", choices=PROBES, help="default: the study's headline, the first in recovery.csv")
    parser.add_argument("--look-choice", default="nested", choices=("nested", "paper"), help="default: %(default)s")
    parser.add_argument("--attack", help="default: the first in recovery.csv that is no control")
    records.configure(parser)
    parser.add_argument("--budget", type=float, help="retain budget (default: 0.1 where it was run, else the smallest)")


def run(args: argparse.Namespace) -> int:
    """Draw the figure and write each file."""
    for path in args.out:
        if path.suffix not in WRITERS:
            raise UserError(
                f"--out {path}: a figure is written as .svg or .png, not {path.suffix or 'without a suffix'!r}"
            )
    asked = {name: getattr(args, name) for name in ("look_choice", "probe", "budget", "attack")}
    view = make_view(*load(args.tables), **asked)
    images = render(args.name, view, [path.suffix for path in args.out])
    for path, image in zip(args.out, images, strict=True):
        with atomic_path(path) as temporary:
            temporary.write_bytes(image)
        print(path)
    if args.record:
        read = [args.tables / f"{name}.csv" for name in FILES.values()]
        records.write(args.record, [path for path in read if path.is_file()], args.out)
    return 0


def render(name: str, view: View, kinds: list[str]) -> list[bytes]:
    """Return the bytes of figure `name` (a key of FIGURES) for each kind (`.svg`, `.png`)."""
    with settings():
        figure = FIGURES[name](view)
        return [WRITERS[kind](figure) for kind in kinds]


def render_told(name: str, view: View, **more: Any) -> tuple[bytes, list[Spot]]:
    """Return figure `name` as SVG without its title, and what each part shows; `more`: what it takes beside."""
    with settings():
        figure = FIGURES[name](view, **more)
        figure.suptitle("").set_in_layout(False)
        return svg_bytes(figure), spots(figure)
