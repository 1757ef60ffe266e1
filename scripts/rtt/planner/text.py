"""Show the plan of a study on a terminal, in lines of at most 98 columns."""

import textwrap
from itertools import groupby

from rtt.planner import costs
from rtt.planner import lora as with_lora
from rtt.planner import memory as bytes_of
from rtt.planner.saves import DISK

WIDTH = 98
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
HEAD = ("stage", "jobs", "runs", "tokens trained", "tokens scored", "FLOPs", "hours")


def count(value: float) -> str:
    """Return a number of things as text: 0 as -, 1234567 as 1.2 M."""
    if not value:
        return "-"
    for size, unit in UNITS:
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Return bytes as text in decimal units, in which disks and GPUs are sold."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if value >= unit:
            return f"{value / unit:.1f} {name}"
    return f"{value / 1e3:.1f} kB"


def hours(value: float) -> str:
    """Return a time as text in hours, minutes or seconds."""
    if not value:
        return "-"
    if value >= 1:
        return f"{value:,.1f} h"
    return f"{value * 60:.1f} min" if value * 60 >= 1 else f"{value * 3600:.2g} s"


def flops(value: float) -> str:
    """Return FLOPs as text."""
    return f"{value:.1e}" if value else "-"


def table(head: tuple, rows: list[tuple]) -> list[str]:
    """Return the lines of a table whose first column is aligned left and whose others are aligned right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    aligned = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]
    return [line.rstrip() for line in (aligned[0], "-" * len(aligned[0]), *aligned[1:])]


def paragraph(text: str, bullet: str = "") -> list[str]:
    """Return the lines of running text."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=bullet, subsequent_indent=" " * len(bullet), break_on_hyphens=False
    )


def stage_table(plan: dict) -> list[str]:
    """Return the table of jobs, runs, tokens, FLOPs and hours by stage."""
    rows = [(name, plan["stages"][name]) for name in plan["stages"]] + [("total, with all", plan["total"])]
    return table(
        HEAD,
        [
            (
                name, f"{bill['jobs']:,}", f"{bill['runs']:,}" if bill["runs"] and "total" not in name else "-",
                count(bill["train_tokens"]), count(bill["score_tokens"]), flops(bill["flops"]), hours(bill["hours"]),
            )
            for name, bill in rows
        ],
    )  # fmt: skip


def breakdown(plan: dict) -> list[str]:
    """Return what the hours consist of."""
    total = plan["total"]
    parts = {"probe": total["score_hours"], "the optimizer's reads and writes": total["optimizer_hours"]}
    told = ", ".join(f"{name} {hours(value)}" for name, value in parts.items())
    rest = hours(total["hours"] - sum(parts.values()))
    faster, hint = plan["device"]["bf16"] / plan["device"]["fp32"], ""
    if plan["fp32_scoring"] and faster > 1 and total["score_hours"] > total["hours"] / 10:
        hint = f" Probe is in fp32; scores.precision: bf16 would take down to a {faster:.0f}th of its time."
    return paragraph(f"Of the {hours(total['hours'])}: training's products {rest}, {told}.{hint}")


def schedule(plan: dict) -> list[str]:
    """Return how long the study takes on this machine; nothing where its jobs have GPUs, or another device is asked."""
    found = plan["schedule"]
    if found is None or plan["device"]["name"] != "cpu":
        return []
    wall = ", ".join(f"{hours(value)} with --cores {n}" for n, value in found["wall"].items())
    told = (
        f"On this machine: about {wall} (`rtt run` has 2). That is {hours(found['hours'])} of one core: the "
        f"{hours(plan['total']['hours'])} above, the start of {found['processes']} processes that train or score "
        f"({found['start']:g} s each, assumed) and {found['others']} other jobs ({found['other']:g} s each, assumed)."
    )
    return ["", *paragraph(told)]


def point_choice(plan: dict) -> list[str]:
    """Return what point choice saves."""
    found = plan["point_choice"]
    least, most, whole = (found[name] for name in ("at_least", "at_most", "whole_grid"))
    if not whole["runs"]:
        return ["No unlearned model is attacked: there is nothing to choose."]
    lines = table(
        ("RTT on unlearned models", "runs", "FLOPs", "hours"),
        [
            (name, f"{b['runs']:,}", flops(b["flops"]), hours(b["hours"]))
            for name, b in (
                ("every point", whole),
                ("selected points, at most", most),
                ("selected points, at least", least),
            )
        ],
    )
    saved, time = 1 - most["runs"] / whole["runs"], hours(whole["hours"] - most["hours"]).replace("-", "no time")
    told = (
        f"Selection saves at least {whole['runs'] - most['runs']:,} of {whole['runs']:,} runs ({saved:.0%}) and "
        f"{time}. Retain budgets that choose the same point are attacked once: at least, where all of a method do (a "
        "budget that no point keeps within is not attacked at all). The stages above count the most."
    )
    lines += ["", *paragraph(told)]
    return lines


HEADS = {
    "weights": "weights", "gradients": "grads", "optimizer": "states", "autocast": "casts", "engine": "engine",
    "work": "work",
}  # fmt: skip


def launch(plan: dict) -> str:
    """Return how a job is spread, in the words of one line."""
    how, engine = plan["launch"], plan["launch"]["engine"]
    n = how["devices"]
    told = "one device" if n == 1 else f"{n} devices"
    told += f" on {how['nodes']} nodes" if how["nodes"] > 1 else ""
    told += f", ZeRO-{engine['stage']}" if engine["stage"] else ", no DeepSpeed"
    told += " with offload" if engine["offload"] else ""
    told += f", micro batches of {how['micro_batch']}" if how["micro_batch"] else ""
    return told + (", gradient checkpointing" if how["checkpointing"] else "")


def trained_in(row: dict) -> str:
    """Return the precision of a phase, or of a row of what fits where, and whether gradients are released."""
    return row["precision"] + " + release" * row["gradient_release"]


def memory(plan: dict) -> list[str]:
    """Return the memory of each phase, and whether it fits."""
    device, phases = plan["device"], plan["memory"]
    if not phases:
        return ["Memory of a device in training", "Nothing is trained."]
    unit, name = (1e9, "GB") if phases[0]["total"] >= 1e9 else (1e6, "MB")

    def short(value: float) -> str:
        return f"{value / unit:,.1f}" if value else "-"

    rows = [
        (
            f"{p['stage']}, {p['optimizer']} {trained_in(p)}",
            *(short(p["bytes"][kind]) for kind in HEADS), short(p["total"]), short(p["host"]),
        )
        for p in phases
    ]  # fmt: skip
    lines = [f"Memory of a device in training, in {name} ({launch(plan)})"]
    lines += table(("phase", *HEADS.values(), "sum", "host"), rows)
    if device["memory"] is not None:
        worst = [p["stage"] for p in phases if p["needed"] > device["memory"]]
        most, told = size(phases[0]["needed"]), f"{device['name']} ({size(device['memory'])})"
        if worst:
            says = f"Does not fit on {told}: {', '.join(worst)}. The largest needs {most}; what fits where: below."
        else:
            says = f"Fits on {told}: the largest needs {most}."
        lines += ["", *paragraph(f"{says} In that, 5 % and 2 GB for the allocator and the device's context.")]
    return lines


def writing(plan: dict) -> list[str]:
    """Return how long training waits for the disk."""
    found = plan["writing"]
    lines = [
        f"Checkpoints of a training, at {found['rate'] / 1e9:g} GB/s (--disk{'; assumed' * (found['rate'] == DISK)})"
    ]
    rows = [
        (
            stage, size(one["state"]), hours(one["seconds"] / 3600), hours(one["hours"]),
            str(one["count"]) if one["count"] else "none", f"{one['lost']:.1%}" if one["lost"] else "-",
        )
        for stage, one in found["saves"].items()
    ]  # fmt: skip
    lines += table(("phase", "a state", "to write", "longest training", "in it", "time lost"), rows)
    told = (
        f"A training writes a state every {found['minutes']:g} minutes (checkpoint_minutes), and waits meanwhile, "
        "about as long as to write takes. When it is told to stop it writes one, too, and waits until that is hashed. "
        "Where none is in it, the training ends before, and a kill costs at most all of it."
    )
    if found["point"]:
        told += f" A point that may be chosen is written, too: {size(found['point'])}."
    if found["hours"]:
        told += f" With every point, that is {hours(found['hours'])} in all, which the hours above leave out."
    return [*lines, "", *paragraph(told)]


def fits(plan: dict) -> list[str]:
    """Return the smallest setting that fits, for each precision, optimizer and set of devices."""
    if all(row["setting"] == "none" for row in plan["fits"]):
        most = size(max(row["bytes"] for row in plan["fits"]))
        return paragraph(f"Everything, without DeepSpeed, on one device of 24 GB: at most {most} of it are needed.")
    lines = paragraph(
        "The first setting with which every phase above fits, from the least to the most: none, zero1, zero2, zero3, "
        "zero3-offload; checkpointing: gradient_checkpointing. Bytes of a device with 5 % and 2 GB for the allocator "
        "and the context; host memory of a node."
        + " 2 x 8 x 80 GB: nodes: 2 with devices: 8."
        * any(row["nodes"] > 1 for row in plan["fits"])
    )
    for (precision, optimizer), found in groupby(plan["fits"], lambda row: (trained_in(row), row["optimizer"])):
        rows = [
            (
                f"{row['nodes']} x " * (row["nodes"] > 1)
                + f"{row['devices'] // row['nodes']} x {row['memory'] / 1e9:.0f} GB",
                row["setting"] or "no",
                size(row["bytes"]) if row["setting"] else "-", size(row["host"]) if row["setting"] else "-",
            )
            for row in found
        ]  # fmt: skip
        lines += ["", *table((f"{precision}, {optimizer}".ljust(18), "setting", "a device", "host"), rows)]
    return lines + fits_with_adapters(plan)


def fits_with_adapters(plan: dict) -> list[str]:
    """Return what fits on one device where adapters are trained in the place of weights."""
    lora, trained = with_lora.ADAPTERS, with_lora.TRAINED
    rows = [
        (
            f"1 x {row['memory'] / 1e9:.0f} GB", row["setting"] or "no",
            size(row["bytes"]) if row["setting"] else "-", size(row["host"]) if row["setting"] else "-",
        )
        for row in plan["fits_with_adapters"]
    ]  # fmt: skip
    if not rows:
        return []
    told = (
        f"Unlearning and RTT by adapters (lora, RTT_LoRA), of rank {lora.rank} where the study says nothing, in fp32 "
        "beside frozen weights in bf16. What else is trained is not in it."
    )
    head = (f"{trained['precision']}, {trained['optimizer']}, LoRA", "setting", "a device", "host")
    return ["", *paragraph(told), "", *table(head, rows)]


def intervals(plan: dict) -> list[str]:
    """Return the expected half-widths."""
    found = plan["intervals"]
    if not found["rows"]:
        return ["No RTT: no intervals."]
    names = ("accuracy_at_0.5", "accuracy_at_0.3", "recovery", "recovery_corrected", "recovery_difference")
    lines = table(
        ("V questions", "accuracy .5", "accuracy .3", "recovery", "corrected", "difference"),
        [(str(row["n"]), *(f"+-{row[name]:.3f}" for name in names)) for row in found["rows"]],
    )
    lines += [""] + [
        line for row in found["rows"] for line in paragraph(f"{row['n']}: {', '.join(row['datasets'])}", "  ")
    ]
    wide = sorted({name for row in found["rows"] for name in names[2:] if row[name] > found["too_wide"]})
    floors = " or ".join(f"{floor:.3g}".lstrip("0") for floor in sorted({row["floor"] for row in found["rows"]}))
    told = f"wider than .25 either way, so that cells would say cannot tell: {', '.join(wide)}" if wide else (
        "all narrow enough to tell (.25 either way)"
    )  # fmt: skip
    return [*lines, "", *paragraph(
        f"One seed, 95 %; original + RTT at {found['original']:g}, unlearned + RTT at {found['attacked']:g}, "
        f"floor {floors} (--at changes them). Expected: {told}."
    )]  # fmt: skip


def over_seeds(plan: dict) -> list[str]:
    """Return the expected half-width over the study's seeds, and how many seeds a narrow interval takes."""
    found = plan["seeds"]
    seeds, runs = found["seeds"], f"{found['unlearning']} x {found['attack']} runs"
    shown = f"{seeds} seed{'s' * (seeds > 1)}, {runs}"
    lines = table(
        ("arms", "sd of bases", "unlearning", "RTT", shown, f"seeds for +-{found['target']:g}"),
        [
            (
                ", ".join(row["arms"]),
                *(f"{row[name]:.3f}" for name in ("base", "unlearning", "attack")),
                "none" if row["half_width"] is None else f"+-{row['half_width']:.3f}",
                f"{row['needed']:,}" if row["needed"] < found["most"] else f"over {row['needed']:,}",
            )
            for row in found["rows"]
        ],
    )
    one = "One seed has no interval over seeds: it tells about these weights, not about a method. " * (seeds == 1)
    return [*lines, "", *paragraph(
        f"{one}Runs: orders of unlearning x orders of RTT in each. Half of a 95 % t interval with seeds - 1 degrees of "
        f"freedom, which repeats do not raise. Standard deviations: {found['source']}."
    )]  # fmt: skip


def assumptions(plan: dict) -> list[str]:
    """Return the assumptions behind the figures."""
    device, lengths = plan["device"], plan["lengths"]
    n = plan["model"]["parameters"]
    points = [
        f"{plan['model']['name']} has {n:,} parameters. Training takes 6 FLOPs per parameter and token, scoring 2; "
        "frozen layers have no weight gradients, and no gradients pass below the lowest trained one; RMU runs the "
        "layers up to the one it reads, and its frozen copy of them on retain texts. Attention's square term is not "
        "counted.",
    ]
    if device["source"] == "--flops":
        rate = f"{device['name']} at {device['bf16']:.3g} FLOP/s, as given"
        points.append(f"Device: {rate}; the optimizer's memory traffic is in it.")
    elif device["name"] == "cpu":
        points.append(
            f"Device: this machine's CPU, {device['bf16'] / 1e9:,.0f} GFLOP/s and {device['bandwidth'] / 1e9:.0f} GB/s "
            f"({device['source']}), of which {device['mfu']:.0%} of the FLOP/s are reached (--mfu; what the demo "
            "reached where it was measured, docs/plan.md). Other programs at work make it slower."
        )
    else:
        passes = f"{costs.PASSES['lion']} (Lion) or {costs.PASSES['adamw']} (AdamW)"
        points.append(
            f"Device: {device['name']}, bf16 {device['bf16'] / 1e12:.0f} and fp32 {device['fp32'] / 1e12:.1f} TFLOP/s "
            f"({device['source']}), of which {device['mfu']:.0%} is reached (--mfu; a guess, not a measurement: "
            f"batches of a few short texts may reach less). Each optimizer step also reads or writes {passes} values "
            f"per trained parameter, at {device['bandwidth'] / 1e12:.2f} TB/s."
        )
        if any(phase["precision"] == "bf16_kahan" for phase in plan["memory"]):
            lion, adamw = (costs.KAHAN_PASSES[name] for name in ("lion", "adamw"))
            whole, released = costs.WHOLE_GRADIENT, costs.RELEASED_GRADIENT
            points.append(
                f"bf16_kahan: {lion + whole} (Lion) or {adamw + whole} (AdamW) values of two bytes, with released "
                f"gradients {lion + released} or {adamw + released}, as if the fp32 copies of a slice of "
                f"{bytes_of.SLICE / 1e6:.1f} M weights stayed in the device's cache: no GPU has shown that yet."
            )
    points += [
        "Probe: weights of fp32 and bf16_mixed training in fp32, without TF32, unless scores.precision is bf16.",
        "Hours are of one device at work. Padding, loading, saving, fetching and waiting are not in them.",
    ]
    if lengths["typical"]:
        points.append(
            f"{', '.join(lengths['typical'])}: no facts.jsonl here yet, so texts have the mean tokens of the authors' "
            "files by SmolLM2's tokenizer (wmdp: MMLU's; generated birthdays: Random Birthdays'), and a split "
            f"{costs.AUTHORS_PER_SPLIT} facts where the study says nothing. A facts.jsonl counts with its own texts."
        )
    if not plan["shape"]["known"]:
        points.append(
            f"Shape, in part assumed (memory): {plan['shape']['layers']} layers of {plan['shape']['hidden']}, an MLP "
            f"of {plan['shape']['mlp']}, {plan['shape']['vocabulary']:,} tokens."
        )
    if lengths["texts"]:
        told = ", ".join(f"{group} {tokens:.0f}" for group, tokens in lengths["texts"].items())
        points.append(
            f"Mean tokens of plain texts, assumed: {told} (whole texts, or {costs.CHARACTERS:g} characters of "
            "max_characters each). They weigh much in unlearning."
        )
    points += [
        "Memory: casts are autocast's bf16 copies of the weights; engine: DeepSpeed's or DistributedDataParallel's "
        "partitions, buckets and gathered weights; work: the larger of activations with logits and the optimizer's "
        f"temporary tensors. Texts up to {bytes_of.LONGEST} times a dataset's mean MCQ, attention without its square "
        "(SDPA, flash). Host: every process loads all weights; RTT keeps its starting weights there. The scorer's "
        "cache is not counted. What fits where: of all phases, trained with that precision and optimizer.",
        "Disk: of each method's points the best per retain budget and the one being written. At least: every method is "
        "attacked before the next is unlearned, which Snakemake does not promise (docs/plan.md); at "
        "most: all groups at once. State: of one job; as much again for each that runs beside it. A hub's model lies "
        "in the hub's cache. Fetched datasets are not counted.",
        "Intervals: Wilson for an accuracy; the delta method for the others, with checkpoints taken as independent "
        "(rtt.stats pairs questions, so that most are narrower).",
    ]
    return [line for point in points for line in paragraph(point, "- ")]


def show(plan: dict, study: str) -> str:
    """Return the plan as text."""
    disk = plan["disk"]
    disk_rows = [
        ("imported models", size(disk["imports"])), ("pretrained and taught models", size(disk["sources"])),
        ("unlearned points, largest group", size(disk["largest_group"])), ("evaluations", size(disk["evals"])),
        ("resumable state of one job, twice", size(2 * disk["state"])),
        ("peak, at least (one group at a time)", size(disk["at_least"])),
        (f"peak, at most ({disk['groups']} groups)", size(disk["at_most"])),
    ]  # fmt: skip
    parts = [
        [f"Plan of {study} (study {plan['study']}) on {plan['device']['name']}"],
        [*stage_table(plan), "", *breakdown(plan), *schedule(plan)],
        point_choice(plan),
        table(("disk", "bytes"), disk_rows),
        memory(plan),
        *([writing(plan)] if plan["writing"]["saves"] else []),
        *([["What fits where", *fits(plan)]] if plan["fits"] else []),
        ["Expected 95 % intervals over questions, half-widths: these weights", *intervals(plan)],
        ["Expected 95 % interval over seeds, half-width of corrected recovery", *over_seeds(plan)],
        ["Assumptions", *assumptions(plan)],
    ]
    return "\n\n".join("\n".join(part) for part in parts)
