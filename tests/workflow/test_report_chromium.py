"""The report in a real browser: Debian's Chromium, headless, with a profile of its own and no network."""

import json
import os
import re
import shutil
import struct
import subprocess
import warnings

import axe
import pandas as pd
import pytest
import verdict_builder
from report_builder import PLANTED, audit, full_study, manifest, over_seeds, probes, write_questions, write_study
from rtt.judging.page import write as write_verdict
from rtt.report.page import page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr --v=0"
PROBE = """<script>
addEventListener("load", () => {
  const root = document.documentElement, box = e => e.getBoundingClientRect();
  document.querySelectorAll("details").forEach(fold => { fold.open = true; });
  const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .card, pre, nav")
    && box(e).right > innerWidth + 0.5).map(e => e.tagName + " " + e.textContent.slice(0, 40));
  const spots = [...document.querySelectorAll("#figure-accuracy .spot")].map(e => {
    e.focus();
    const tip = e.nextElementSibling, plot = box(e.closest(".plot")), card = box(e.closest(".card"));
    const own = box(e), told = box(tip);
    return {shown: getComputedStyle(tip).display, text: tip.textContent, label: e.getAttribute("aria-label"),
      inside: [own, told].every(b => b.left >= plot.left - 1 && b.right <= plot.right + 1
        && b.top >= card.top - 1 && b.bottom <= card.bottom + 1),
      width: own.width, height: own.height};
  });
  document.activeElement.blur();
  const images = [...document.querySelectorAll("svg")].map(e => ({role: e.getAttribute("role"),
    alt: e.getAttribute("aria-label"), width: box(e).width, height: box(e).height}));
  parent.postMessage(JSON.stringify({inner: innerWidth, scroll: root.scrollWidth, wide, images, spots,
    tips: [...document.querySelectorAll(".tip")].filter(e => getComputedStyle(e).display != "none").length,
    filter: getComputedStyle(document.querySelector(".plot > svg")).filter,
    background: getComputedStyle(document.body).backgroundColor, color: getComputedStyle(document.body).color,
    requests: performance.getEntriesByType("resource").map(e => e.name)}), "*");
});
</script>"""
# The rules for paper, in a frame as wide as an A4 page within its margins: what leaves it, is cut, or stays folded.
PAPER_PROBE = """<script>
addEventListener("load", () => {
  for (const rule of document.styleSheets[0].cssRules)
    if (rule.media && rule.media.mediaText == "print") rule.media.mediaText = "all";
  const told = found => found.map(e => e.tagName + " " + e.textContent.slice(0, 40));
  const shown = [...document.querySelectorAll("body *:not(svg *)")].filter(e => e.checkVisibility());
  parent.postMessage(JSON.stringify({inner: innerWidth,
    wide: told(shown.filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)),
    cut: told(shown.filter(e => e.clientWidth && e.scrollWidth > e.clientWidth)),
    folded: told([...document.querySelectorAll("details:not(.finder) > *")].filter(e => !e.checkVisibility())),
    details: document.querySelectorAll("details").length,
    marks: shown.filter(e => e.matches(".spot, .tip, .hint, nav")).length}), "*");
});
</script>"""
POLICY = '<meta http-equiv="Content-Security-Policy"'
# A window of headless Chromium is at least 500 px wide; a frame can be as narrow as a phone.
FRAME = """<!DOCTYPE html><meta name="color-scheme" content="light dark"><script>
addEventListener("message", e => {
  const out = document.createElement("pre"); out.id = "probe"; out.textContent = e.data; document.body.append(out);
});
</script><body><iframe src="PAGE.html" width="WIDTH" height="900" style="border:0"></iframe></body>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    if CHROMIUM is None:
        text = "chromium is not installed (apt-get install chromium): THE REPORT WAS NOT LOOKED AT IN A BROWSER"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(text)
        warnings.warn(text, stacklevel=1)
        pytest.skip(text)
    folder = tmp_path_factory.mktemp("chromium")
    audits = [audit(), audit("people_with_a_name_that_is_long_and_has_no_break_" * 2, details=[])]
    table = full_study((0, 11))
    table = pd.concat([table, table.assign(retain_budget=1.0)])  # with seeds and budgets tables are at their widest
    runs, more = [manifest(git_commit="c0ffee" * 7)], {"probes": probes(table), "seeds": over_seeds(table)}
    study = write_study(folder / "study", table, None, audits, runs, **more)
    write_questions(study, table)
    html = page(study, study / "study.yaml")
    (study / "report.html").write_text(html)
    assert html.count(POLICY) == 1  # it would keep the probe from running
    for name, script in (("probe", PROBE), ("paper", PAPER_PROBE)):
        (study / f"{name}.html").write_text(html.replace(POLICY, "<meta").replace("</body>", script + "</body>"))
    return study


def chromium(report, name, width, *flags):
    """Open a page; return (the process's stdout, its console messages and failed requests)."""
    profile = report / f"profile-{name}-{width}"
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={width},900", *flags]
    done = subprocess.run([*command, (report / name).as_uri()], capture_output=True, text=True, timeout=120)
    shutil.rmtree(profile, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def probe(report, width, *flags, page="probe"):
    (report / "frame.html").write_text(FRAME.replace("WIDTH", str(width)).replace("PAGE", page))
    dom, console = chromium(report, "frame.html", width + 100, "--dump-dom", *flags)
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    assert found, "the probe did not run"
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")), console


LIGHT = {"background": "rgb(255, 255, 255)", "color": "rgb(27, 27, 27)", "filter": "none"}
DARK = {
    "background": "rgb(22, 24, 28)",
    "color": "rgb(231, 231, 231)",
    "filter": "invert(0.905) hue-rotate(180deg)",
}


@pytest.mark.parametrize(
    ("width", "look", "flags"), [(1280, LIGHT, []), (390, DARK, ["--blink-settings=preferredColorScheme=0"])]
)
def test_page_fits_shows_its_figures_and_is_silent(report, width, look, flags):
    found, console = probe(report, width, *flags)
    assert found["inner"] == width
    assert found["scroll"] <= width, found["wide"]
    assert not found["wide"]
    assert console == []
    assert found["requests"] == []
    assert {key: found[key] for key in look} == look
    assert [image["role"] for image in found["images"]] == ["img"] * 10
    for image in found["images"]:
        assert "Facts learned in pretraining: " in image["alt"]
    wide, narrow, *others = [(image["width"], image["height"]) for image in found["images"]]
    assert (min(wide) > 200, min(narrow) > 200) == (width > 1000, width < 1000)  # one of the two is shown
    assert all(width >= 500 and height >= 150 for width, height in others)
    # Each mark tells its numbers to who tabs to it: original, four methods, control, in three arms; and then no more.
    assert len(found["spots"]) == 18 and found["tips"] == 0
    for spot in found["spots"]:
        assert spot["shown"] == "block" and spot["inside"] and spot["text"] == spot["label"]
        assert spot["width"] > 10 and spot["height"] > 50
        assert re.search(r"n = 160, mean of 2 seeds$", spot["text"]), spot["text"]


def test_on_paper_nothing_is_cut_and_nothing_stays_folded(report):
    found, _ = probe(report, 717, page="paper")
    assert found["inner"] == 717 and found["details"] > 10
    assert [found[key] for key in ("wide", "cut", "folded", "marks")] == [[], [], [], 0]


def pages_of(report, name):
    """How many pages a print of it has."""
    pdf = report / f"{name}.pdf"
    chromium(report, name, 1280, f"--print-to-pdf={pdf}")
    return len(re.findall(rb"/Type /Page\b", pdf.read_bytes()))


def test_a_print_is_the_same_whether_or_not_parts_are_folded(report):
    (report / "unfolded.html").write_text((report / "report.html").read_text().replace("<details>", "<details open>"))
    assert pages_of(report, "report.html") == pages_of(report, "unfolded.html") > 10


def requests(report, name, *flags):
    """Addresses that a page asked for. Chromium asks for some of its own: those have no page as their initiator."""
    log = report / f"{name}.net.json"
    chromium(report, name, 1280, f"--log-net-log={log}", "--host-resolver-rules=MAP * ~NOTFOUND", *flags)
    return set(re.findall(r'"initiator":"(?!not an origin)[^\n]*"url":"((?:https?|wss?)://[^"]+)', log.read_text()))


def test_screenshot_and_no_request_leaves_the_page(report):
    picture = report / "shot.png"
    # The page says itself that nothing may be loaded; here it is without this, so that there is nothing but its words.
    html = (report / "report.html").read_text().replace(POLICY, "<meta")
    (report / "open.html").write_text(html)
    assert requests(report, "open.html", f"--screenshot={picture}") == set()
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1280, 900)
    assert picture.stat().st_size > 20_000  # a blank page of this size takes about 5 kB
    planted = '<img src="http://planted.invalid/x.png"></body>'
    (report / "planted.html").write_text(html.replace("</body>", planted))
    assert requests(report, "planted.html", "--dump-dom") == {"http://planted.invalid/x.png"}


def test_the_page_s_policy_lets_nothing_load_and_nothing_run(report):
    planted = '<img src="http://planted.invalid/x.png"><script>document.title = "ran"</script></body>'
    (report / "evil.html").write_text((report / "report.html").read_text().replace("</body>", planted))
    dom, console = chromium(report, "evil.html", 1280, "--dump-dom")
    assert "<title>Unlearning RTT: study</title>" in dom
    assert sum("Content Security Policy" in line for line in console) == 2, console
    _, console = chromium(report, "report.html", 1280, "--dump-dom")
    assert console == []


# What a reader does, in the page itself: folds closed, a link to a folded part, a step of the figure, a search, a word.
STORY = """<script>
addEventListener("load", async () => {
  const at = name => document.getElementById(name), seen = {}, wait = () => new Promise(go => setTimeout(go, 50));
  const opacity = step => getComputedStyle(document.querySelector(`.steps svg [id*="-step${step}-"]`)).opacity;
  seen.divide = document.querySelector(".divide").getBoundingClientRect().top + scrollY;
  seen.open = document.querySelectorAll("details[open]").length;
  seen.all = [1, 2, 3, 4].map(opacity);
  at("step-2").click();
  seen.second = [1, 2, 3, 4].map(opacity);
  seen.nav = getComputedStyle(document.querySelector("nav")).position;
  location.hash = "#caveats";
  await wait();
  seen.caveats = at("caveats").closest("details").open;
  const find = at("find");
  for (let fold = find; fold; fold = fold.parentElement) if (fold.tagName === "DETAILS") fold.open = true;
  find.value = "7b";
  find.dispatchEvent(new Event("input"));
  seen.found = at("found").textContent;
  at("hits").querySelector("button").click();
  seen.shown = at("shown-question").innerText;
  find.value = "";
  find.dispatchEvent(new Event("input"));
  seen.every = [at("found").textContent, at("hits").children.length, at("hits").children[0].textContent];
  seen.planted = document.getElementById("planted") === null;
  const word = document.querySelector(".lede .term, .box .term");
  word.focus();
  const line = at(word.getAttribute("aria-describedby")).textContent;
  seen.word = [word.textContent, getComputedStyle(word, "::after").content, line];
  document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
  seen.escaped = document.activeElement === document.body;
  parent.postMessage(JSON.stringify(seen), "*");
});
</script>"""


def planted(report, name, script):
    """Write the report with a script that its policy would not let run."""
    html = (report / "report.html").read_text().replace(POLICY, "<meta").replace("</body>", script + "</body>")
    (report / f"{name}.html").write_text(html)


@pytest.mark.parametrize(("width", "height", "screens"), [(1280, 800, 6), (390, 844, 10)])
def test_a_reader_steps_searches_and_asks_for_words(report, width, height, screens):
    planted(report, "story", STORY)
    found, console = probe(report, width, "--virtual-time-budget=60000", page="story")
    assert console == []
    assert found["divide"] <= screens * height and found["open"] == 0
    assert found["all"] == ["1"] * 4 and found["second"] == ["1", "1", "0.06", "0.06"]
    assert found["nav"] == "sticky" and found["caveats"]
    assert found["found"] == "1 of 12 questions:"
    assert "Question 7?" in found["shown"] and "7d (right)" in found["shown"] and "73 %" in found["shown"]  # .8 - .07
    assert found["every"] == ["12 of 12 questions, the first 10:", 10, f"Question {PLANTED}?"] and found["planted"]
    name, tip, line = found["word"]
    assert name and tip.strip('"') == line and found["escaped"]


AXE = """<script>
addEventListener("load", async () => {
  document.querySelectorAll("details").forEach(fold => { fold.open = OPEN; });
  const {violations, passes} = await axe.run(document, {resultTypes: ["violations"]});
  const told = violations.map(one => [one.id, one.help, ...one.nodes.map(node => node.html.slice(0, 200))]);
  parent.postMessage(JSON.stringify({told, passes: passes.length}), "*");
});
</script>"""


@pytest.fixture(scope="module")
def axe_source():
    try:
        return axe.source()
    except OSError as error:
        text = f"axe-core could not be fetched ({error}): THE REPORT'S ACCESSIBILITY WAS NOT CHECKED"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(text)
        warnings.warn(text, stacklevel=1)
        pytest.skip(text)


# With parts folded there is less to find; that it holds then, too, is seen in the long run.
@pytest.mark.parametrize("folds", ["true", pytest.param("false", marks=pytest.mark.full)])
@pytest.mark.parametrize(("width", "flags"), [(1280, []), (390, ["--blink-settings=preferredColorScheme=0"])])
def test_axe_finds_no_violation(report, axe_source, width, flags, folds):
    planted(report, "axe", f"<script>{axe_source}</script>{AXE.replace('OPEN', folds)}")
    found, _ = probe(report, width, "--virtual-time-budget=120000", *flags, page="axe")
    assert found["told"] == [] and found["passes"] > 30


@pytest.fixture(scope="module")
def verdict(report, tmp_path_factory):
    """Return the folder of a verdict, whose page is looked at as the report is."""
    prepared = verdict_builder.prepared(tmp_path_factory.mktemp("verdict"), whole=True)
    write_verdict(prepared)
    shutil.copy(prepared.out / "verdict.html", prepared.out / "report.html")
    return prepared.out


@pytest.mark.parametrize(
    ("width", "look", "flags"), [(1280, LIGHT, []), (390, DARK, ["--blink-settings=preferredColorScheme=0"])]
)
def test_the_page_of_a_verdict_fits_and_axe_finds_no_violation(verdict, axe_source, width, look, flags):
    more = """passes: passes.length, scroll: document.documentElement.scrollWidth,
      requests: performance.getEntriesByType("resource").length,
      look: {background: getComputedStyle(document.body).backgroundColor, color: getComputedStyle(document.body).color,
        filter: getComputedStyle(document.querySelector(".plot > svg")).filter}"""
    planted(
        verdict,
        "axe",
        f"<script>{axe_source}</script>{AXE.replace('passes: passes.length', more)}".replace("OPEN", "true"),
    )
    found, console = probe(verdict, width, "--virtual-time-budget=120000", *flags, page="axe")
    assert found["told"] == [] and found["passes"] > 20 and console == []
    assert found["scroll"] <= width and found["requests"] == 0 and found["look"] == look


def test_axe_finds_a_planted_violation(report, axe_source):
    text = f"<!DOCTYPE html><body><script>{axe_source}</script>{AXE.replace('OPEN', 'false')}<img src='data:,'></body>"
    (report / "bad.html").write_text(text)
    found, _ = probe(report, 1280, "--virtual-time-budget=120000", page="bad")
    assert "image-alt" in [one[0] for one in found["told"]]
