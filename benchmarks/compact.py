"""How large a study's compact bundle is, and how long it takes to write, to open and to draw, without training it.

    python benchmarks/compact.py config/seeds.yaml

The runs are those that the study would have, with their specs. Answers are planted at random, about as much alike over
questions, probes and looks as those of trained miniatures are. Prints a Markdown table.
"""

import argparse
import hashlib
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
from rtt.bundle import opening, rebuild, write
from rtt.bundle.layout import JOINED
from rtt.files import canonical_json, write_json, write_text
from rtt.scoring import compact, probabilities
from rtt.scoring.question_table import LetterUse, Questions
from rtt.scoring.read import AttackScores, Labels, PointScores
from rtt.scoring.write import attack_labels, source_labels, unlearn_labels
from rtt.stats.criteria import Criteria
from rtt.study import plugins
from rtt.study.expand import Runs
from rtt.study.load import load_study, to_yaml
from rtt.study.names import probes_of

PER_SPLIT, RETAIN, CHOICE = 32, 128, 32  # questions
NONE = Questions((), (), (), np.zeros(0, int), np.zeros(0, int))
ACCURACY = {"original": 0.97, "unlearned": 0.4, "control": 0.3}  # before an attack; of V after it, twice as near to 1


def sha256(*words) -> str:
    """Return a sha256 that stands for the content of a file."""
    return hashlib.sha256(repr(words).encode()).hexdigest()


class Planted:
    """Writes the results folder of a study whose answers are planted."""

    def __init__(self, study: str, results: Path):
        self.runs, self.results = Runs(load_study(study, {})), results
        self.study, self.rng = self.runs.study, np.random.default_rng(0)
        self.probes, self.asked = probes_of(self.study.scores.probes), self.study.scores.probes
        self.splits = [f"split_{i}" for i in range(self.study.data.generator.splits)]

    def questions(self, dataset: str, splits: list[str], size: int) -> Questions:
        """Return a dataset's questions, the same whenever asked for."""
        ids = tuple(f"{dataset}/{split}/{i:03d}" for split in splits for i in range(size))
        rng = np.random.default_rng(int(sha256(dataset)[:8], 16))
        named = tuple(split for split in splits for _ in range(size))
        return Questions(ids, named, ids, rng.integers(0, 4, len(ids)), np.full(len(ids), 4))

    def answers(self, accuracy: np.ndarray, looks: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Return {probe: (*looks, n)}, from accuracies (..., n)."""
        n, found = accuracy.shape[-1], {}
        level = np.log(accuracy / (1 - accuracy)) / 1.7 * 1.7**0.5  # the effects' variances add up to 1.7
        question = self.rng.normal(size=n)
        for probe in self.probes:
            if probe in ("likelihood_token", "likelihood_byte"):  # years all have as many tokens and bytes
                found[probe] = found["likelihood"]
                continue
            effects = question + 0.7 * self.rng.normal(size=n) + 0.45 * self.rng.normal(size=(*looks, n))
            found[probe] = (level + effects > 0).astype(float)
        return found

    def points(self, run: str, labels: dict, steps: list[int]) -> PointScores:
        """Return the scores of an original, or of a trajectory's points."""
        dataset, p = labels["dataset"], len(steps)
        sets = [self.questions(dataset, self.splits, PER_SPLIT), self.questions("cities", ["held_out"], RETAIN), NONE]
        if labels["target"] != "control":
            sets[2] = self.questions(f"{dataset}-choice", ["choice"], CHOICE)
        correct = []
        for one, share in zip(sets, (ACCURACY[labels["target"]], 0.95, ACCURACY[labels["target"]]), strict=True):
            correct.append(self.answers(np.full(len(one.ids), share), (p,)) if one.ids else {})
        said = self.rng.multinomial(160, [0.1, 0.2, 0.3, 0.4], size=p)
        letters = LetterUse(said, *self.rng.random((4, p)))
        return PointScores(Path(run), run, _labels(labels), tuple(steps), *sets, *correct, letters)

    def attack(self, run: str, labels: dict, plugin, settings) -> AttackScores:
        """Return the scores of an attack."""
        looks = tuple(plugin.choices(settings))
        asked = self.questions(labels["dataset"], self.splits, PER_SPLIT)
        before = ACCURACY[labels["target"]]
        after = before if labels["target"] == "control" else (1 + before) / 2
        share = np.linspace(0.3, 1, len(looks))[:, None, None]
        is_v = np.array([[split == v for split in asked.splits] for v in self.splits])
        accuracy = np.where(is_v, before + (after - before) * share, before + (0.985 - before) * share)
        size = getattr(settings, "repeats", 1), len(looks), len(self.splits)
        correct = self.answers(accuracy, size)
        if not plugin.uses_t:
            correct = {probe: np.repeat(rows[:, :, :1], len(self.splits), axis=2) for probe, rows in correct.items()}
        head = Path(run), run, _labels(labels), "ok", labels["attack"]
        return AttackScores(*head, looks, tuple(self.splits), plugin.uses_t, asked, correct)

    def write(self) -> None:
        """Write everything but what is made of the answers."""
        runs = self.runs
        for spec in runs.specs():
            write_text(self.results / f"specs/{spec.run_id}.json", canonical_json(spec.canonical()) + "\n")
        write_text(self.results / "runs.json", canonical_json(runs.plan()) + "\n")
        write_text(self.results / "study.yaml", to_yaml(self.study))
        for run, spec in runs.data.items():
            audit = {"dataset": spec.dataset, "rows": 160, "defects": {}, "dropped": {}, "details": []}
            write_json(self.results / f"data/{run}/audit.json", audit | {"facts_sha256": sha256(run)})
        for run, spec in runs.sources.items():
            if run in runs.scored():
                self._evaluation(run, self.points(run, source_labels(spec), [0]), source_labels(spec), spec)
        trajectories = {}
        for run, spec in runs.unlearn.items():
            labels = unlearn_labels(spec)
            trajectories[run] = self.points(run, labels, list(spec.settings.points))
            self._evaluation(run, trajectories[run], labels, spec)
        for run, spec in runs.choices.items():
            self._choice(run, spec, trajectories)
        for spec in runs.attacks.values():
            plugin = plugins.attacks()[spec.attack]
            for target, stem in zip(spec.targets, spec.eval_ids(), strict=True):
                labels = attack_labels(spec, target)
                scores = self.attack(stem.replace("/", "."), labels, plugin, spec.settings)
                self._evaluation(stem, scores, labels, spec)
        for run in runs.plan()["manifests"]:
            self._manifest(run)

    def _evaluation(self, stem: str, scores, labels: dict, spec) -> None:
        kind = "attacked" if "/" in stem else "unlearned" if labels["method"] else "original"
        source = getattr(spec, "source", spec)
        facts = getattr(spec, "facts", None) or source.facts
        hashes = {"spec": spec.hash, "code": "0123456789", "dataset": sha256(facts.run_id)}
        hashes["model"] = sha256(source.run_id if kind == "original" or labels["target"] == "original" else stem)
        if kind == "unlearned":
            hashes["model"] = sha256(source.run_id)
        document = {
            "schema_version": 2, "kind": kind, "run_id": scores.run_id, "labels": labels, "spec": spec.canonical(),
            "hashes": hashes, "status": "ok",
        }  # fmt: skip
        full = {"bytes": 5_000_000, "sha256": sha256("full", stem)}
        found, tables = compact.make(scores, document, full, spec.canonical())
        if labels["seed"] == self.study.seeds[0]:
            found["probabilities"] = self._probabilities(scores)
        for name, table in tables.items():
            write_text(self.results / f"questions/{name[:10]}.json", canonical_json(table) + "\n")
        write_text(self.results / f"evals/{stem}.json", canonical_json(found) + "\n")

    def _probabilities(self, scores) -> list[dict]:
        """Return those at the last point, or of each headline probe at a look for each V split and repeat."""
        if isinstance(scores, PointScores):
            wanted = [({"step": scores.steps[-1]}, (len(scores.steps) - 1,), self.asked)]
        else:
            repeats, looks, splits = next(iter(scores.correct.values())).shape[:3]
            wanted = [
                ({"setting": scores.settings[i], "v_split": scores.v_splits[s], "repeat": r}, (r, i, s), [probe])
                for r in range(repeats) for i, probe in enumerate(Criteria().headline) for s in range(splits)
                if scores.uses_t and i < looks
            ]  # fmt: skip
        questions, correct = compact.sets(scores)["forget"]
        found = []
        for look, at, probes in wanted:
            asked = []
            for i in probabilities.places(questions, look):
                given = {}
                for probe in probes:
                    values = np.round(self.rng.uniform(-4, -2, 4), 6)
                    right = correct[probe][at][i] == 1
                    values[questions.answers[i] if right else (questions.answers[i] + 1) % 4] = -0.5
                    given[probe] = {"scores": values.tolist()}
                asked.append({"id": questions.ids[i], "probes": given})
            found += probabilities.of({"looks": [look | {"questions": asked}]}, [(look, probes)], questions)
        return found

    def _choice(self, run: str, spec, trajectories: dict[str, PointScores]) -> None:
        found = [trajectories[one.run_id] for one in spec.trajectories]
        points = [
            {
                "run": one.run_id, "step": step, "at_floor": False,
                **{
                    name: {probe: round(float(rows[i].mean()), 6) for probe, rows in correct.items()}
                    for name, correct in (("forget", one.forget_correct), ("retain", one.retain_correct))
                },
            }
            for one in found for i, step in enumerate(one.steps)
        ]  # fmt: skip
        last = {"run": found[0].run_id, "step": found[0].steps[-1]}
        labels = {key: value for key, value in unlearn_labels(spec.trajectories[0]).items() if key in LABELS}
        choice = {"run_id": run, "code": "0123456789", "labels": labels, "points": points}
        choice |= {"selected": dict.fromkeys(map(str, self.study.retain_budgets), last)}
        choice |= {"read": {f"evals/{one.run_id}.json": sha256("full", one.run_id) for one in found}}
        write_json(self.results / f"point_choices/{run}.json", choice)

    def _manifest(self, run: str) -> None:
        stems = [stem for stem in self.runs.plan()["variants"]["default"]["evals"] if stem.partition("/")[0] == run]
        made = {f"evals/{stem}.json": sha256("full", stem) for stem in stems}
        manifest = {
            "run_id": run, "stage": run.split("-")[0], "code": "0123456789",
            "cpu_seconds": round(self.rng.uniform(9, 99), 2), "wall_seconds": round(self.rng.uniform(9, 99), 2),
            "peak_memory_mb": int(self.rng.integers(400, 600)), "packages": {"torch": "2.13.0+cpu", "numpy": "2.4.0"},
            "ended": "2026-11-28T17:59:27+00:00", "tokens": 100_000,
            "git_commit": "0" * 40, "read": {f"models/{run}": sha256("read", run)}, "made": made,
        }  # fmt: skip
        write_json(self.results / f"manifests/{run}.json", manifest)


LABELS = ("dataset", "arm", "model", "method", "seed", "unlearning_repeat")


def _labels(found: dict) -> Labels:
    return Labels(**{**found, "control_for": tuple(found["control_for"])})


def main() -> None:
    """Write the study, bundle it, open it, and say how large and slow each is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study")
    parser.add_argument("--sizes", action="store_true", help="only say how large the parts are, and draw nothing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, clock = Path(folder), [time.perf_counter()]

        def lap() -> float:
            clock.append(time.perf_counter())
            return clock[-1] - clock[-2]

        planted = Planted(args.study, root / "results" / load_study(args.study, {}).study)
        planted.write()
        planting, evals = lap(), len(list(planted.results.glob("evals/**/*.json")))
        if args.sizes:
            print("| folder | files | bytes | packed |\n|---|---|---|---|")
            for name in JOINED:
                paths = sorted(path for path in (planted.results / name).rglob("*") if path.is_file())
                data = b"".join(path.read_bytes() for path in paths)
                print(f"| {name} | {len(paths)} | {len(data)} | {len(zlib.compress(data, 9))} |")
            return
        rebuild.rebuild(root, planted.study.study, True)
        drawing = lap()
        bundle = write.write(planted.results, root / "dist")
        writing = lap()
        opening.unpack(opening.look(bundle), root / "out")
        print("| evaluations | bundle, MB | planted, s | drawn, s | bundled and drawn, s | opened, s |")
        print("|---|---|---|---|---|---|")
        sizes = f"{evals} | {bundle.stat().st_size / 1e6:.2f}"
        print(f"| {sizes} | {planting:.0f} | {drawing:.0f} | {writing:.0f} | {lap():.1f} |\n")
        print("| member | bytes | packed |\n|---|---|---|")
        with zipfile.ZipFile(bundle) as archive:
            for one in sorted(archive.infolist(), key=lambda one: -one.compress_size)[:12]:
                print(f"| {one.filename} | {one.file_size} | {one.compress_size} |")


if __name__ == "__main__":
    main()
