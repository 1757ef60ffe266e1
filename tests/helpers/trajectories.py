"""Looks of trajectories, with as many right answers as asked for."""

from evals_builder import NOTHING, questions, write_eval

PROBES = ("letter", "likelihood")


def asked(hits, kept, n=40, dataset="d"):
    """Return `n` forget questions of two splits with `hits` right, and `n` retain questions with `kept` right.

    Letters are balanced, so the floor is one in four.
    """
    ids = [f"{dataset}/split_{i % 2}/{i:03d}" for i in range(n)] + [f"r/held_out/{i:03d}" for i in range(n)]
    splits = [f"split_{i % 2}" for i in range(n)] + ["held_out"] * n
    right = [i < hits for i in range(n)] + [i < kept for i in range(n)]
    answers = [i // 2 % 4 for i in range(n)] * 2
    return questions(ids, splits, ["V"] * n + ["retain"] * n, answers, dict.fromkeys(PROBES, right))


def trajectory(folder, name, hits, kept, n=40):
    """Write the evaluation of a trajectory, `before` for its original; one look per pair of `hits` and `kept`."""
    labels = {
        "dataset": "d", "arm": "pretrained", "model": "m", "method": "GD", "seed": 0, "retain_budget": None,
        "target": "unlearned", "control_for": [], "attack": None,
    }  # fmt: skip
    looks = [
        {**NOTHING, "step": step, "questions": asked(*pair, n)}
        for step, pair in enumerate(zip(hits, kept, strict=True), 1)
    ]
    kind = "unlearned"
    if name == "before":
        kind = "original"
        labels |= {"method": None, "target": "original"}
        looks = [{key: value for key, value in look.items() if key != "step"} for look in looks]
    write_eval(folder, name, kind, labels, looks)
    return folder / "evals" / f"{name}.json"
