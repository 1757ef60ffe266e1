"""Parts of the report: rows of its tables, costs, figures, the summary for a terminal."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from report_builder import accuracy, full_study, manifest, recovery, recovery_row, view_of, write_study
from rtt.figures.view import make_view
from rtt.report import changed, cost, published, strength
from rtt.report.captions import described, labels
from rtt.report.cost import ledger, provenance
from rtt.report.images import image, inline_svg
from rtt.report.recovered import contrast_rows
from rtt.report.summary import summary
from rtt.stats.contrasts import COLUMNS
from rtt.stats.tables import write_table
from rtt.study.load import load_study

NAN = float("nan")


def test_inline_svg_has_its_own_ids_and_no_style():
    svg = '<?xml version="1.0"?><!DOCTYPE svg><svg id="a"><!-- x --><metadata>m</metadata>'
    svg += '<style type="text/css">*{}</style><use xlink:href="#a" clip-path="url(#b)"/><clipPath id="b"/></svg>'
    text = str(inline_svg(svg, "one", 'say "hi" <b>'))
    assert text.startswith('<svg role="img" aria-label="say &#34;hi&#34; &lt;b&gt;"')
    assert 'id="one-a"' in text and 'href="#one-a"' in text and "url(#one-b)" in text and 'id="one-b"' in text
    assert not re.search(r"<!--|metadata|<style|<\?xml", text)


def test_contrast_verdicts(tmp_path):
    def row(n, low, high, comparable="yes", why=""):
        return (
            "a",
            "b",
            "d",
            "e",
            "GD",
            0.1,
            "nested",
            "letter",
            "acc_attacked",
            n,
            "0.1;0.2",
            0.15,
            low,
            high,
            comparable,
            why,
        )

    rows = [row(2, 0.1, 0.2), row(2, -0.1, 0.2), row(1, NAN, NAN), row(2, 0.1, 0.2, "no", "not comparable: x")]
    rows += [
        (*row(2, 0.1, 0.2)[:5], 0.3, *row(2, 0.1, 0.2)[6:]),
        ("a", "a", "d", "d", "GD - RMU", *row(2, -0.2, -0.1)[5:]),
    ]
    write_table(tmp_path / "contrasts.csv", pd.DataFrame(rows, columns=COLUMNS))
    found = contrast_rows(tmp_path / "contrasts.csv", view_of(recovery_row()))
    assert [r["verdict"] for r in found["arms"]] == [
        "differs over 2 seeds",
        "no difference shown over 2 seeds",
        "one seed cannot support a statement",
        "not comparable: x",
    ]
    assert [(r["verdict"], r["points"]) for r in found["methods"]] == [("differs over 2 seeds", [".10", ".20"])]


def test_ledger_orders_stages_and_counts_what_is_unknown():
    rows = ledger(
        [manifest("attack", 5), manifest("zeta", 1), manifest("pretrain", 7), manifest("attack", None, wall_seconds=2)]
    )
    assert [(r["stage"], r["runs"], r["cpu_seconds"], r["unknown"]) for r in rows] == [
        ("pretrain", 1, 7, 0), ("attack", 2, 5, 1), ("zeta", 1, 1, 0), ("all", 4, 13, 1),
    ]  # fmt: skip
    assert ledger([]) == []


def test_provenance_lists_each_value_once():
    found = dict(provenance([manifest(), manifest(git_dirty=True), manifest(git_commit=None)]))
    assert found["git commit"] == ["c0ffee", "c0ffee (with changes not committed)", "unknown"]
    assert found["hardware"] == ["cpus 2, machine x86_64"]


def test_summary_is_aligned_and_fits_a_terminal(tmp_path):
    study = write_study(tmp_path / "s", full_study((0, 11)), manifests=[manifest("pretrain", 30)])
    text = summary(study)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    head, first = lines[1:3]
    assert first.split()[:8] == ["pretrained", "GD", "0", ".97", ".28", ".80", ".95", ".30"]
    for name, value in (("recovery", ".78 ["), ("status", "ok")):
        assert first[head.index(name) :].startswith(value)
    assert any(line.split() == ["pretrain", "1", "30", "60"] for line in lines)
    assert lines[-1] == f"report: {study}/report.html (not written yet)"
    assert "none_within_budget" in text


def test_summary_shortens_long_names(tmp_path):
    rows = [recovery_row(dataset=f"dataset-{i}-" + "x" * 60, status="none_within_budget") for i in (1, 2)]
    text = summary(write_study(tmp_path / "s", recovery(*rows)))
    assert max(map(len, text.splitlines()[1:4])) <= 120
    assert "pretrained (dataset-1-" in text
    assert "CPU seconds: no manifests found" in text


def test_contrasts_name_arms_as_the_figures_do(tmp_path):
    """With the dataset where an arm has several; without the model, over which a contrast is pooled."""
    cell = (0.1, "nested", "letter", "acc_attacked", 1, "0.1", 0.1, NAN, NAN, "yes", "")
    several = view_of(recovery_row(dataset="mmlu"), recovery_row(dataset="years"))
    one = view_of(recovery_row(), recovery_row(arm="taught"))
    models = view_of(*(recovery_row(model=model, arm=arm) for model in "ab" for arm in ("pretrained", "taught")))
    for view, datasets, names in (
        (several, ("mmlu", "mmlu"), ["learned in pretraining (MMLU)", "taught later (MMLU)"]),
        (one, ("people_p", "people_f"), ["learned in pretraining", "taught later"]),
        (models, ("people_p", "people_f"), ["learned in pretraining (people_p)", "taught later (people_f)"]),
    ):
        rows = [("pretrained", "taught", *datasets, "GD", *cell)]
        write_table(tmp_path / "contrasts.csv", pd.DataFrame(rows, columns=COLUMNS))
        (row,) = contrast_rows(tmp_path / "contrasts.csv", view)["arms"]
        assert [row["arm_a_name"], row["arm_b_name"]] == names


# ---- variants


@pytest.mark.parametrize(
    ("patch", "kind", "text"),
    [
        ({"faithful": ["padding"]}, changed.FAITHFUL, "faithful padding"),
        (
            {"methods": {"GD": {"mcq_share": 1.0, "points": [1, 2]}, "RMU": None}},
            changed.FORMAT,
            "methods.GD.mcq_share 1.0; methods.GD.points 1, 2; without RMU",
        ),
        ({"attacks": {"RTT": {"loss": "LETTER"}}}, changed.FORMAT, "rtt.loss LETTER"),
        ({"methods": {"GD": {"sentence_loss": "NUMBER"}}}, changed.HIDING, "methods.GD.sentence_loss NUMBER"),
        ({"attacks": {"RTT": {"samples": 10}}}, changed.T_SIZE, "rtt.samples 10"),
        ({"attacks": {"RTT": {"epochs": 20}}}, changed.RTT, "rtt.epochs 20"),
        ({"retain_budgets": [0.3]}, changed.OTHER, "retain_budgets 0.3"),
        (
            {"tasks": [{"dataset": "x"}], "attacks": {}, "methods": "x"},
            changed.OTHER,
            "tasks (changed); rtt None; methods x",
        ),
        ({"x": "y" * 400}, changed.OTHER, "x " + "y" * 298 + " ..."),
    ],
)
def test_a_variant_is_named_by_what_it_changes(patch, kind, text):
    assert (changed.kind_of(patch), changed.changes(patch)) == (kind, text)


def test_sizes_of_t():
    rows = [
        recovery_row("GD"),
        recovery_row("GD", variant="half", acc_attacked=0.5),
        recovery_row("GD", variant="other"),
    ]
    table = recovery(*rows)
    looks = accuracy(table)
    t_rows = looks[(looks["stage"] == "unlearned_attacked") & (looks["set"] == "T")].assign(
        v_split="split_0", n_questions=128
    )
    view = make_view(table, pd.concat([looks, t_rows]))
    study = {
        "attacks": {"RTT": {"samples": None}},
        "variants": {"half": {"attacks": {"RTT": {"samples": 64}}}, "other": {"faithful": []}},
    }
    found = [(cell["variant"], cell["size"], cell["acc_attacked"]) for cell in changed.t_sizes(view, study)]
    assert found == [("default", 128, ".85 [.80, .90]"), ("half", 64, ".50 [.45, .55]")]
    assert changed.t_sizes(view, {"variants": {"other": {"faithful": []}}}) == []
    study["variants"]["half"]["rtt"]["samples"] = 1000  # more than there are
    assert [cell["size"] for cell in changed.t_sizes(view, study)] == [128, 128]


# ---- what others published


def test_the_paper_s_figures_stand_beside_ours_where_it_has_any():
    rows = [
        recovery_row(method, arm, look_choice="paper", recovery=value)
        for arm, method, value in (
            ("pretrained", "GD", 0.95),
            ("pretrained", "RMU", 0.9),
            ("pretrained", "FIF", 0.9),
            ("taught", "GD", 0.2),
            ("taught", "RIA", 0.6),
            ("taught", "RMU", 0.6),
            ("taught_same_data", "GD", 0.6),
        )
    ]
    view = view_of(*rows, *(row | {"look_choice": "nested", "recovery": 0.1} for row in rows))
    found = [
        (row["panel"].arm, row["method"], row["ours"], row["theirs"], row["verdict"]) for row in published.beside(view)
    ]
    assert found == [
        ("pretrained", "GD", ".95 [.90, 1.00]", "> .88 (sec. 5.1)", "ours lies above .88, as theirs"),
        ("pretrained", "RMU", ".90 [.85, .95]", "> .88 (sec. 5.1)", "our interval holds .88"),
        ("pretrained", "FIF", ".90 [.85, .95]", "not published", "nothing to compare"),
        ("taught", "GD", ".20 [.15, .25]", "< .35 (sec. 5.2)", "ours lies below .35, as theirs"),
        ("taught", "RMU", ".60 [.55, .65]", "not published", "nothing to compare"),
        ("taught", "RIA", ".60 [.55, .65]", "< .35 (sec. 5.2)", "ours lies above .35"),
        ("taught_same_data", "GD", ".60 [.55, .65]", "not published", "nothing to compare"),
    ]
    assert all(row["other"] == (row["theirs"] != "not published") for row in published.beside(view))
    assert [row["ours"] for row in published.controls(view)] == [".30 [.25, .35]"] * 3


def test_a_dataset_of_the_paper_is_compared_with_itself_alone():
    kinds = (
        ("years", "pretrained"),
        ("random_birthdays", "taught"),
        ("years", "taught"),
        ("random_birthdays", "pretrained"),
    )
    rows = [recovery_row("GD", arm, dataset=dataset, look_choice="paper") for dataset, arm in kinds]
    view = view_of(*rows, *(row | {"look_choice": "nested"} for row in rows))
    found = {(row["panel"].dataset, row["panel"].arm): (row["theirs"], row["other"]) for row in published.beside(view)}
    assert found == {
        ("years", "pretrained"): ("> .88 (sec. 5.1)", False),
        ("random_birthdays", "taught"): ("< .35 (sec. 5.2)", False),
        ("years", "taught"): ("not published", False),
        ("random_birthdays", "pretrained"): ("not published", False),
    }
    ours = {(row["facts"], row["method"]): row["ours"] for row in published.others(view)}
    assert ours["Years", "GD"] == ".28 to .85; .28 to .85" and ours["Years", "NPO"] == "not in this study"


def test_the_hiding_model_is_found_in_the_study_or_its_variants():
    rows = [recovery_row("GD"), recovery_row("GD", variant="hiding", acc_unlearned=0.35, acc_attacked=0.8)]
    number = {"GD": {"sentence_loss": "NUMBER"}}
    [found] = published.hiding(view_of(*rows), {"variants": {"hiding": {"methods": number}}, "faithful": []})
    assert (found["unlearned"], found["rtt"]) == (".35 [.30, .40]", ".80 [.75, .85]")
    [found] = published.hiding(view_of(*rows), {"variants": {}, "methods": number, "faithful": ["padding"]})
    assert found["variant"] == "default"
    assert published.hiding(view_of(*rows), {}) == []


# ---- strength


def test_a_grid_s_edge_is_a_caveat_where_more_is_still_brought_back():
    rising = view_of(recovery_row("GD"))  # each look higher than the one before
    assert [text.split(",")[0] for text in strength.edges(rising)] == [
        "Accuracy on V still rises in RTT's last epoch",
        "RTT's largest learning rate brings back the most",
    ]
    assert "GD, learned in pretraining .64 to .85" in strength.edges(rising)[0]
    table = recovery(recovery_row("GD"))
    flat = accuracy(table)
    flat.loc[flat["stage"] == "unlearned_attacked", "accuracy"] = 0.85
    assert strength.edges(make_view(table, flat)) == []


def test_unlearning_runs_are_told_apart_by_what_differs(tmp_path):
    table = recovery(recovery_row("GD"))
    looks = accuracy(table)
    first = looks["run"] == "unlearn-GD"
    other = looks[first].assign(run="unlearn-GD-2", accuracy=0.5)
    chosen = looks[first & (looks["step"] == 20)].assign(retain_budget=0.1)
    view = make_view(table, pd.concat([looks, other, chosen], ignore_index=True))
    (tmp_path / "specs").mkdir()
    for run, value in (("unlearn-GD", 2.0), ("unlearn-GD-2", 8.0)):
        settings = {"retain_coefficient": value, "learning_rate": 1e-3, "grid": {"retain_coefficient": [2.0, 8.0]}}
        (tmp_path / "specs" / f"{run}.json").write_text(json.dumps({"settings": settings}))
    found = strength.trajectories(view, tmp_path)
    assert [(one["settings"], one["points"], one["last"], one["forget"], one["chosen"]) for one in found] == [
        ("retain_coefficient 2.0", 2, 20, ".28", "10 %"),
        ("retain_coefficient 8.0", 2, 20, ".50", "none"),
    ]
    assert strength.attacked_share(view) == (1, 4)
    assert [one["settings"] for one in strength.trajectories(view, tmp_path / "none")] == ["", ""]


# ---- cost


def test_gpu_hours_and_the_energy_that_they_can_have_taken():
    h100 = manifest("attack", 10, wall_seconds=3600, world_size=2, tokens=5, hardware={"gpu": "NVIDIA H100 80GB HBM3"})
    strange = manifest("attack", 10, wall_seconds=60, hardware={"gpu": "Some GPU"})
    attack, every = cost.ledger([h100, strange])
    assert (attack["gpu_seconds"], attack["tokens"], every["gpu_seconds"]) == (7260, 5, 7260)
    text = cost.energy([h100, strange])
    assert text.startswith("Energy: at most 1.4 kWh on GPUs")  # 2 h of 700 W
    assert "Not known of Some GPU." in text
    assert cost.energy([manifest()]).startswith("Energy: not known. What CPUs took")
    assert (cost.span(7199), cost.span(7200), cost.span(36e6)) == ("7 199 s", "2.0 h", "10 000.0 h")


def test_the_commit_to_check_out_is_the_one_that_made_all_of_it():
    assert cost.commit([manifest(), manifest()]) == "c0ffee"
    for other in ({"git_commit": "b"}, {"git_commit": None}, {"git_dirty": True}):
        assert cost.commit([manifest(), manifest(**other)]) is None


# ---- figures


def test_an_image_tells_its_marks_and_how_to_draw_it_again():
    found = image("accuracy", view_of(recovery_row("GD"), recovery_row("GD", "taught")), "results/x/tables")
    assert [spot.text for spot in found.spots[:2]] == [
        "original, learned in pretraining: after RTT .95 [.90, 1.00]; n = 160",
        "GD, learned in pretraining: unlearned .28 [.23, .33], after RTT .85 [.80, .90]; n = 160",
    ]
    assert len(found.spots) == 6 and found.focus
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

    css = (Path(cost.__file__).parent / "templates/style.css.j2").read_text()
    themes = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", css)]
    assert len(themes) == 3
    for theme in themes:
        colours = themes[0] | theme
        for text in ("text", "soft", "link"):
            for ground in ("page", "box"):
                one, two = sorted((luminance(colours[text]), luminance(colours[ground])))
                assert (two + 0.05) / (one + 0.05) >= 4.5, (text, ground, theme)


# ---- Snakemake's own report


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "config/config.yaml",
            {
                "facts": "pretrained, taught, taught same data",
                "methods": "GD, RMU, RIA, FIF",
                "budgets": "10 %",
                "rtt": "learning rates 0.001, 0.002, 8 epochs",
                "variants": "none",
            },
        ),
        (
            "config/paper.yaml",
            {
                "facts": "years (pretrained), mmlu (pretrained), wmdp (pretrained), random_birthdays (taught)",
                "model": "llama-3-8b",
                "probes": "letter, likelihood",
                "variants": "format_mcq, format_answer, hiding",
            },
        ),
        ("config/modes/just_eval.yaml", {"rtt": "none"}),
    ],
)
def test_captions_are_made_of_the_study(path, words):
    study = load_study(Path(__file__).parents[2] / path)
    found = described(study)
    assert found | words == found
    assert labels(found, figure="x") == {"figure": "x"} | {name: found[name] for name in ("facts", "methods", "seeds")}
