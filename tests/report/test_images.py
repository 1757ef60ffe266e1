"""Figures on the page: inline, described, and readable in light and dark."""

import re
from pathlib import Path

from report_builder import recovery_row, view_of
from rtt.report import images


def test_an_inline_svg_has_its_own_ids_and_no_style():
    svg = '<?xml version="1.0"?><!DOCTYPE svg><svg id="a"><!-- x --><metadata>m</metadata>'
    svg += '<style type="text/css">*{}</style><use xlink:href="#a" clip-path="url(#b)"/><clipPath id="b"/></svg>'
    text = str(images.inline_svg(svg, "one", 'say "hi" <b>'))
    assert text.startswith('<svg role="img" aria-label="say &#34;hi&#34; &lt;b&gt;"')
    assert 'id="one-a"' in text and 'href="#one-a"' in text and "url(#one-b)" in text and 'id="one-b"' in text
    assert not re.search(r"<!--|metadata|<style|<\?xml", text)


def test_an_image_tells_its_marks_and_how_to_draw_it_again():
    view = view_of(recovery_row("GD"), recovery_row("GD", "taught"))
    found = images.image("accuracy", 3, view, "results/x/tables")
    assert len(found.spots) == 6 and found.focus and found.number == 3 and len(found.panels) == 2
    for spot, values in zip(found.spots, (".95 [.90, 1.00]", ".28 [.23, .33]"), strict=False):
        assert values in spot.text and "learned in pretraining" in spot.text and "n = 160" in spot.text
    for spot in found.spots:
        assert 0 <= spot.left < spot.left + spot.width <= 100 and 0 <= spot.top < spot.top + spot.height <= 100
    assert [spot.left for spot in found.spots] == sorted(spot.left for spot in found.spots)
    assert found.command == "python -m rtt figure accuracy --tables results/x/tables --out accuracy.svg accuracy.png"


def test_colours_can_be_read_in_light_and_dark():
    """WCAG's contrast, 4.5 for text: every colour of text on every ground that it stands on."""

    def luminance(colour):
        parts = (
            [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            if len(colour) == 7
            else [int(c * 2, 16) / 255 for c in colour[1:]]
        )
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    css = (Path(images.__file__).parent / "templates/style.css.j2").read_text()
    themes = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", css)]
    assert len(themes) == 3
    for theme in themes:
        colours = themes[0] | theme
        for text in ("text", "soft", "link"):
            for ground in ("page", "box"):
                one, two = sorted((luminance(colours[text]), luminance(colours[ground])))
                assert (two + 0.05) / (one + 0.05) >= 4.5, (text, ground, theme)
