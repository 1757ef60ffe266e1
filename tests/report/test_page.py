"""The page: one document that loads nothing, prints the report's records, escapes what it is given, says what lacks."""

import base64
import contextlib
import hashlib
import html
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_builder import audit, full_study, manifest, over_seeds, probes, recovery, recovery_row, write_study
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.figures.style import number, percent
from rtt.report.inputs import read_inputs
from rtt.report.page import page, render, report
from rtt.report.summary import summary
from rtt.stats.contrasts import COLUMNS
from rtt.stats.tables import write_table
from rtt.stats.variants import COLUMNS as VARIANT_COLUMNS

NAN = float("nan")
EVIL = '<script>alert("x")</script>'
MAIN = "letter_permuted"  # the headline probe
GOLDEN = Path(__file__).parents[1] / "data" / "report.txt"
CONTRAST = {
    **{"arm_a": "pretrained", "arm_b": "taught", "dataset_a": "people_p", "dataset_b": "people_f", "method": "GD"},
    **{"attack": "RTT", "retain_budget": 0.1, "look_choice": "nested", "probe": MAIN, "set": "counting"},
    **{"quantity": "acc_attacked", "n_seeds": 1, "per_seed": "0.3", "mean": 0.3, "low": NAN, "high": NAN},
    **{"comparable": "yes", "why": ""},
}
INCOMPARABLE = {"method": "RMU", "comparable": "no", "why": "not comparable: unlearned accuracy .20 vs .45"}
CONTRASTS = pd.DataFrame([CONTRAST, CONTRAST | INCOMPARABLE], columns=COLUMNS)


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes longer than all else; tests of the text do without."""
    monkeypatch.setattr("rtt.report.images.render_told", lambda *_, **__: (b"<svg></svg>", []))


def report_of(folder):
    """Return the report of a results folder, as records."""
    return report(read_inputs(folder, folder / "study.yaml"), folder, folder / "study.yaml")


def script_hash(page_text):
    """Return the hash of a page's script as its policy names it."""
    [code] = re.findall("<script>(.*?)</script>", page_text, re.DOTALL)
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


class Reader(HTMLParser):
    """Collects ids, addresses, images and tables' cells; fails on tags that do not close."""

    VOID = ("meta", "link", "br", "img", "input")

    def __init__(self, text):
        super().__init__()
        self.stack, self.ids, self.links, self.images, self.tags = [], [], [], [], []
        self.feed(text)
        assert not self.stack, self.stack

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("href", "src", "xlink:href") if values.get(name)]
        if tag == "svg":
            assert values["role"] == "img"
            self.images.append(values["aria-label"])
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def text_of(page_text):
    """Return what a reader reads, a line per paragraph or row of a table."""
    text = re.sub(r"<(style|svg).*?</\1>", "", page_text, flags=re.DOTALL)
    text = re.sub(r"</t[hd]>|</dt>", " | ", text)
    text = html.unescape(re.sub(r"<[^>]+>", "", text))
    return "\n".join(line for line in (re.sub(r"\s+", " ", line).strip(" |") for line in text.splitlines()) if line)


def section(page_text, name):
    """Return the text of one section of a page."""
    return text_of(re.search(rf'<section aria-labelledby="{name}">(.*?)</section>', page_text, re.DOTALL)[1])


# Columns of recovery.csv, no two alike.
NUMBERS = {
    **{"acc_before": 0.93, "acc_unlearned": 0.25, "acc_original_attacked": 0.9, "acc_control_attacked": 0.31},
    **{"acc_oracle_attacked": 0.29, "t_acc_attacked": 0.95, "t_acc_original_attacked": 0.98},
    **{"t_acc_control_attacked": 0.97, "retain_before": 0.88, "retain_unlearned": 0.83, "recovery": 0.61},
    **{"recovery_corrected": 0.53, "recovery_difference": 0.45},
}


def varied_rows():
    """Rows of three arms, probes, attacks, budgets and of each status; no two numbers of a row are equal."""
    cases = [("GD", "pretrained", "ok"), ("RMU", "pretrained", "below_floor"), ("GD", "taught", "not_unlearned")]
    cases += [("RMU", "taught", "none_within_budget"), ("RIA", "taught", "undefined")]
    cases += [("RIA", "pretrained", "not_unlearned"), ("FIF", "pretrained", "attack_failed")]
    cases += [("GD", "taught_shuffled", "not_known"), ("GD", "taught_same_data", "original_not_learned")]
    of = [("RTT", 0.1, MAIN), ("RTT", 0.1, "likelihood"), ("RTT", 1.0, MAIN), ("quantise", 0.1, MAIN)]
    of.append(("RTT_permuted", 0.1, MAIN))
    rows = []
    for attack, budget, probe in of:
        for look_choice in ("nested", "paper"):
            for method, arm, status in cases if attack == "RTT" else cases[:2]:
                n = len(rows)
                numbers = {name: round(value + 0.001 * n, 3) for name, value in NUMBERS.items()}
                numbers["acc_attacked"] = round(0.5 + 0.005 * n, 3)
                odd = {"status": status, "look_choice": look_choice, "probe": probe, "retain_budget": budget}
                rows.append(recovery_row(method, arm, attack=attack, **odd, **numbers))
    return rows


def full(folder):
    """A study with a row of everything: arms, statuses, probes, attacks, budgets, variants, audits, manifests."""
    study = {
        "faithful": ["padding"],
        "attacks": {"RTT": {}, "quantise": {}, "RTT_permuted": {}},
        "variants": {"answers": {"methods": {"GD": {"mcq_share": 1.0}}}, "x": {"faithful": ["bare_letter"]}},
    }
    table = recovery(*varied_rows())
    written = write_study(
        folder,
        table,
        CONTRASTS,
        [audit(), audit("people_f", defects={}, details=[])],
        [manifest("pretrain", 30), manifest("unlearn", 10), manifest("unlearn", 12.4)],
        study,
        probes=probes(table, collapsed=("RIA",)),
    )
    head = ("people_p", "pretrained", "miniature", "GD", "RTT", 0.1, "nested", MAIN, "recovery_corrected")
    rows = [("answers", *head, 1, "0.1", 0.1, NAN, NAN), ("x", *head, 2, "0.1;0.2", 0.15, 0.1, 0.2)]
    write_table(written / "tables" / "variants.csv", pd.DataFrame(rows, columns=VARIANT_COLUMNS))
    return written


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The report of the study with a row of everything, with figures, which its commands name by a relative path."""
    with contextlib.chdir(tmp_path_factory.mktemp("root")):
        return report_of(full(Path("results/tiny")))


@pytest.fixture(scope="module")
def drawn(found):
    """Its page."""
    return render(found)


def test_the_page_is_one_wellformed_document_that_loads_nothing(drawn):
    reader = Reader(drawn)
    assert len(reader.ids) == len(set(reader.ids))
    assert all(link.startswith(("#", "data:")) for link in reader.links), set(reader.links)
    assert not re.search(r"@import|url\((?!#)", drawn)
    assert reader.tags.count("script") == 1 and drawn.count(f"script-src 'sha256-{script_hash(drawn)}'") == 1
    assert {link[1:] for link in reader.links if link.startswith("#")} <= set(reader.ids)
    assert len(reader.images) == 10  # two of them the same one, wide and narrow
    assert '<html lang="en">' in drawn and 'name="viewport"' in drawn and "<title>Unlearning RTT: tiny</title>" in drawn
    assert reader.tags.count("main") == reader.tags.count("h1") == 1
    assert reader.tags.count("caption") == reader.tags.count("table") > 10
    levels = [int(tag[1]) for tag in reader.tags if re.fullmatch(r"h\d", tag)]
    assert all(after <= before + 1 for before, after in pairwise([0, *levels])), levels
    assert drawn.count("<th") - drawn.count("<thead") == drawn.count('<th scope="')


def test_each_figure_is_said_in_words(drawn):
    text = text_of(drawn).replace("\n", " ")
    for image in Reader(drawn).images:
        assert image.startswith("Four steps") or ("Facts taught later" in image and image in text)


def test_a_group_of_rows_is_a_tbody_as_wide_as_its_table(drawn):
    """A screen reader then says a group's heading with its rows and with no others."""
    checked = 0
    for table in re.findall("<table>(.*?)</table>", drawn, re.DOTALL):
        for body in re.findall("<tbody>(.*?)</tbody>", table, re.DOTALL):
            headings = re.findall(r'scope="rowgroup" colspan="(\d+)"', body)
            assert len(headings) <= 1 and all(int(width) == table.count('scope="col"') for width in headings)
            rows = re.findall('<tr><th scope="row">.*?</tr>', body, re.DOTALL)
            assert {row.count("<td") + 1 for row in rows} == {table.count('scope="col"')}
            checked += len(rows)
    assert checked > 50


def test_the_page_is_the_golden_page(tmp_path, drawn):
    """One page whole, so that a change of its words or numbers is seen. Figures aside; without checksums of tables."""
    without, n = re.subn(r'<span class="(spot|tip)".*?</span>', "", drawn)
    assert n > 100  # marks of figures, which hold what is told of them
    text = text_of(without) + "\n"
    text = re.sub(r"\b[0-9a-f]{64}\b", "SHA256", text)
    text = re.sub(r"unlearning-rtt \S+", "unlearning-rtt VERSION", text)
    new = tmp_path / "report.txt"
    new.write_text(text)
    assert text.splitlines() == GOLDEN.read_text().splitlines(), f"if the page should be so: cp {new} {GOLDEN}"


def test_numbers_on_the_page_are_the_report_s(found, drawn):
    """The templates print each record in its own place: a table's cells equal the fields of its rows."""
    nested, _ = found.tables
    lines = section(drawn, "recovery").splitlines()
    for group in nested.groups:
        for one in group.rows:
            values = (one.acc_unlearned, one.acc_attacked, one.acc_original_attacked, one.acc_oracle_attacked)
            values += (one.acc_control_attacked,)
            values += (one.recovery, one.recovery_corrected, one.recovery_difference)
            line = [one.method, percent(one.retain_budget), one.verdict, number(one.acc_before)]
            line += map(str, values)
            assert any(each.startswith(" | ".join(line)) for each in lines), line
    assert [table.look_choice for table in found.tables] == ["nested", "paper"]
    assert [(table.look_choice, len(table.groups)) for table in found.more_tables] == [("nested", 4), ("paper", 4)]
    assert found.commit == "c0ffee" and found.attacked_points == 0 and found.points == 18
    assert [row.stage for row in found.ledger] == ["pretrain", "unlearn", "all"]


def test_the_command_writes_the_same_page_twice_or_nothing(tmp_path, capsys, no_figures):
    study = write_study(tmp_path / "s", recovery(*varied_rows()[:4]), CONTRASTS, [audit()], [manifest()], {})
    out = tmp_path / "report.html"
    command = ["report", "--results", str(study), "--study-config", str(study / "study.yaml"), "--out", str(out)]
    assert main(command) == 0
    assert out.read_text().startswith("<!DOCTYPE html>") and out.read_text() == page(study, study / "study.yaml")
    out.unlink()
    (tmp_path / "empty").mkdir()
    assert main([*command[:2], str(tmp_path / "empty"), *command[3:]]) == 1
    assert "recovery.csv: no such file; `python -m rtt tables` writes it" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [tmp_path / "empty", study]


def test_several_seeds_get_a_table(tmp_path, no_figures):
    study = write_study(tmp_path / "s", full_study((11, 12), ("GD",)))
    found = report_of(study)
    assert (found.scope.seeds, found.scope.several_seeds, found.scope.main_seed) == ([11, 12], True, 11)
    text = section(render(found), "seeds")
    cell = found.over_seeds[0].rows[0]
    assert cell.used == 2
    assert f"{cell.method} | 2 | 0 | {cell.mean_text} | {cell.each} | {cell.criterion_holds} of 2" in text.splitlines()


def test_sections_of_the_test_and_of_probes_say_what_was_asked(drawn):
    lines = section(drawn, "unlearned").splitlines()
    assert "RIA | no | 5 of 8 | " in "\n".join(lines) and any(
        "| C in 158 of 160 (.11 bits) |" in line for line in lines
    )
    assert any(line.startswith("Oracle | (yes) | 8 of 8 | none | ") for line in lines)
    assert "a margin of .15, over all questions" in " ".join(lines)
    lines = section(drawn, "probes").splitlines()
    head = next(line for line in lines if line.startswith("Model | "))
    assert head.startswith("Model | Permuted letters | Letters | Calibrated letters | Likelihood | ")
    assert any(line.startswith("Original | .96 [.89, 1.00] | ") for line in lines)
    assert sum(line.startswith("Control | ") for line in lines) == 4  # in each arm


def test_wrong_answers_are_a_control_and_no_attack(drawn):
    text = section(drawn, "controls")
    assert "RTT, wrong answers" in text and "By the format alone, accuracy on V of the original goes from " in text
    lines = [line for line in text.splitlines() if line.startswith(("Original | ", "GD | ", "Control | "))]
    assert len(lines) == 3
    others = section(drawn, "attacks")
    assert "wrong answers" not in others and "quantisation" in others
    for name in ("claim", "recovery", "published", "formats", "caveats"):
        assert "wrong answers" not in section(drawn, name), name


def test_sections_with_nothing_to_say_are_left_out(tmp_path, no_figures):
    study = write_study(tmp_path / "s", recovery(recovery_row()))
    text = page(study, study / "study.yaml")
    left_out = ("unlearned", "probes", "controls", "attacks", "fact", "gone", "formats", "faithful", "seeds")
    for name in (*left_out, "reference", "audit", "compute"):
        assert f'id="{name}"' not in text and f'href="#{name}"' not in text, name


def test_recoveries_over_seeds_stand_with_their_components(tmp_path, no_figures):
    table = full_study((11, 12, 13), ("GD", "RIA"))
    repeats = {"repeats": {"unlearning": 2, "attack": 2}}
    study = write_study(tmp_path / "s", table, study=repeats, probes=probes(table), seeds=over_seeds(table))
    drawn = page(study, study / "study.yaml")
    assert len(Reader(drawn).images) == 10 and "figure-seeds" in drawn
    lines = section(drawn, "seeds").splitlines()
    # Seeds 11 to 13 of GD reach .81, .82, .83: (r - .27) / .68, so .794, .809, .824; t(.975; 2) = 4.302653.
    mean, half = 0.808824, 4.302653 * 0.014706 / 3**0.5
    ends = f"[{mean - half:.2f}, {mean + half:.2f}]".replace("0.", ".")
    row = f"GD | 3 of 3 | .81 {ends} (3) | .81 {ends} (3) | {half:.2f} | .38 | about the method | .79, .81, .82"
    assert row.replace("0.", ".") in lines
    # sqrt(.01), sqrt(.0025), 0, sqrt(.0004); nothing is known of persons.
    assert "Method | base | unlearning | attack | V split" in lines and "GD | .100 | .050 | .000 | .020" in lines
    claim = section(drawn, "claim")
    assert "2 of 2 methods count as unlearned" not in claim
    assert f"come back: GD .81 {ends}" in claim.replace("0.", ".")


def test_other_attacks_have_a_section_where_there_are_any(tmp_path, no_figures, drawn):
    lines = section(drawn, "attacks").splitlines()
    assert lines[0] == "What did the other attacks bring back?"
    assert any(line.startswith("GD | quantisation | yes | ") for line in lines)
    study = write_study(tmp_path / "s", recovery(recovery_row()))
    assert "Other attacks" not in page(study, study / "study.yaml")


def test_the_headline_and_the_tables_are_of_the_first_attack(tmp_path, no_figures):
    rows = [recovery_row(attack="quantise", acc_attacked=0.61), recovery_row(attack="RTT", acc_attacked=0.71)]
    text = page(study := write_study(tmp_path / "s", recovery(*rows)), study / "study.yaml")
    for name in ("claim", "recovery", "result", "caveats"):
        assert ".71" not in section(text, name), name
    assert "it is .61 [.56, .66] (GD)" in section(text, "claim")
    assert ".71 [.66, .76]" in section(text, "attacks")


def test_everything_from_data_is_escaped(tmp_path):
    rows = [recovery_row(method=EVIL, dataset=EVIL, model=EVIL), recovery_row("GD", arm=EVIL)]
    rows.append(recovery_row("GD", attack=EVIL))
    names = dict.fromkeys(("arm_a", "dataset_a", "dataset_b", "method", "why"), EVIL)
    contrast = pd.DataFrame([CONTRAST | names | {"comparable": "no"}], columns=COLUMNS)
    evil = {"defects": {EVIL: 1}, "files": EVIL, "notes": [EVIL]}
    bad = audit("x", details=[{"kind": EVIL, "path": EVIL, "line": 1, "message": EVIL}], **evil)
    run = manifest(EVIL, packages={EVIL: EVIL}, hardware={EVIL: EVIL}, git_commit=EVIL)
    table = recovery(*rows)
    looks = {name: {f"bits={EVIL}": 1.0} for name in (EVIL, "RTT")}
    study = write_study(tmp_path / "<script>", table, contrast, [bad], [run], {"faithful": [EVIL]}, looks)
    (study / "study.yaml").write_text(EVIL)
    text = page(study, study / "study.yaml")
    assert text.count("<script") == 1
    assert text.count("&lt;script&gt;") > 20
    Reader(text)


def test_missing_pieces_are_said(tmp_path, no_figures):
    untold = {"perplexity_before": NAN, "perplexity_unlearned": NAN}
    study = write_study(tmp_path / "s", recovery(recovery_row(**untold)))
    found = report_of(study)
    assert (found.audits, found.ledger, found.provenance, found.budgets) == ([], [], [], [])
    assert found.contrasts_of_arms is None
    text = render(found)
    assert "perplexity" not in section(text, "recovery")
    for name, words in (
        ("provenance", "No manifests were found"),
        ("recovery", "one retain budget, 10 %"),
        ("recovery", "A budget of 10 % lets retain accuracy by permuted letters fall by .09 from .90"),
        ("sensitivity", "No variant of this study changes the size of T"),
        ("published", "nothing to set beside theirs"),
    ):
        assert words in section(text, name).replace("\n", " "), name
    several = write_study(tmp_path / "several", recovery(*(recovery_row(seed=seed) for seed in (0, 1))))
    assert "(tables/contrasts.csv) is missing" in section(page(several, several / "study.yaml"), "seeds")
    write_table(several / "tables" / "contrasts.csv", pd.DataFrame([], columns=COLUMNS))
    assert "no two arms to compare" in section(page(several, several / "study.yaml"), "seeds")
    with pytest.raises(UserError, match="no such study file"):
        page(study, study / "absent.yaml")


def test_a_manifest_that_is_no_object_is_named(tmp_path):
    study = write_study(tmp_path / "s", recovery(recovery_row()))
    (study / "manifests").mkdir()
    (study / "manifests" / "x.json").write_text("[]")
    with pytest.raises(UserError, match=r"x.json: expected a JSON object, found list"):
        read_inputs(study, study / "study.yaml")


def test_runs_and_datasets_that_the_study_no_longer_has_are_left_out(tmp_path):
    study = write_study(tmp_path / "s", recovery(recovery_row()), None, [audit()], [manifest("unlearn")], {})
    for path in ("data/old/audit.json", "manifests/old.json"):
        (study / path).parent.mkdir(exist_ok=True)
        (study / path).write_text("{}")
    found = read_inputs(study, study / "study.yaml")
    assert ([one["folder"] for one in found.audits], [one["stage"] for one in found.manifests]) == (
        ["people_p"],
        ["unlearn"],
    )
    (study / "runs.json").unlink()
    assert len(read_inputs(study, study / "study.yaml").audits) == 2


def test_variants_stand_in_the_section_of_what_they_change(drawn):
    faithful, formats = (section(drawn, name).splitlines() for name in ("faithful", "formats"))
    end = "learned in pretraining | GD | nested | – | – | – | "
    assert any(line.startswith("x | faithful bare_letter | " + end) for line in faithful)
    assert any("+.15 [.10, .20].10, .20 | differs over 2 seeds" in line for line in faithful)
    assert any(line.startswith("answers | methods.GD.mcq_share 1.0 | " + end) for line in formats)
    assert not any(line.startswith("answers") for line in faithful)
    assert "This study itself turns on padding" in "\n".join(faithful)
    assert "ours is the variant answers" in section(drawn, "published")


def test_the_first_probe_of_the_table_is_the_main_one(tmp_path, no_figures):
    rows = [recovery_row(probe="likelihood", acc_attacked=0.61), recovery_row(probe="letter", acc_attacked=0.71)]
    study = write_study(tmp_path / "s", recovery(*rows))
    assert "probe likelihood" in summary(study) and ".61" in summary(study) and ".71" not in summary(study)
    found = report_of(study)
    assert found.verdicts[0].methods[0].result.acc_attacked.value == 0.61
    assert [table.probe for table in found.tables + found.more_tables] == ["likelihood", "letters"]


def test_end_to_end_from_evaluations(tmp_path, no_figures):
    """The real tables: what is planted in the evaluations is what the page and the summary say."""
    from evals_builder import make_evals

    planted = {
        "unlearned_attacked": 0.75,
        ("unlearned_attacked", "pretrained", "GD"): 0.25,
        "before": 1.0,
        "original_attacked": 1.0,
    }
    planted |= {"unlearned": 0.25, "control_attacked": 0.25}
    folder = tmp_path / "study"
    evals, point_choices = make_evals(
        folder, arms=("pretrained",), methods=("GD", "RMU"), per_split=32, epochs=1, lrs=(1e-3,), steps=(10,),
        accuracies={**planted, ("unlearned_attacked", "pretrained", "RMU"): 0.75},
    )  # fmt: skip
    tables = folder / "tables"
    assert main(["tables", "--evals", str(evals), "--point-choices", str(point_choices), "--out", str(tables)]) == 0
    (folder / "study.yaml").write_text("study: study\n")
    found = report_of(folder)
    (verdict,) = found.verdicts
    assert [(one.result.method, one.holds) for one in verdict.methods] == [("GD", False), ("RMU", True)]
    assert verdict.claim.startswith("In these weights, RMU hid the facts learned in pretraining")
    # 120 of 160 and 40 of 160: Wilson by hand (z = 1.959964)
    z, n = 1.959964, 160
    ends = []
    for p in (0.75, 0.25):
        centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        ends += [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
    low, high, control_low, control_high = (f"{end:.2f}"[1:] for end in ends)
    text = section(render(found), "claim")
    assert f".75 [{low}, {high}]" in text
    assert f".25 [{control_low}, {control_high}]" in text
    rows = [line.split() for line in summary(folder).splitlines() if line.startswith("pretrained ")]
    assert [row[1:6] for row in rows] == [
        ["GD", ".25", ".25", "1.00", ".25"],
        ["RMU", ".25", ".75", "1.00", ".25"],
    ]
