"""recovery.csv, runs.csv and probes.csv of one study, against plain loops over its JSON.

The study has repeats of unlearning and of RTT, pairs of questions about one person, an oracle and a control without
pairs, and answers drawn at random around the accuracies, so that looks and probes differ. Only the two halves of the
questions come from the program.
"""

import itertools
import json
import math
from functools import cache

import numpy as np
import pytest
from evals_builder import make_evals, planted, tables
from rtt.scoring.halves import halves
from rtt.stats.tables import read_table
from scipy.stats import norm, t

ASKED = ("letter", "letter_permuted", "likelihood", "cloze")
PROBES = (
    "letter_permuted",
    "letter",
    "letter_calibrated",
    "likelihood",
    "likelihood_token",
    "likelihood_byte",
    "cloze",
)
HEADLINE = ("letter_permuted", "likelihood")
LEVELS = {"model": 0.7, "unlearn": 0.3, "original": 0.85, "gd": 0.6, "control": 0.3, "oracle": 0.3}
UNLEARNED, REPEATS = (0, 1), (0, 1)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("brute")
    make_evals(
        folder, arms=("pretrained",), methods=("GD",), splits=3, per_split=12, retain=8, lrs=(1e-3,), epochs=3,
        steps=(10,), probes=ASKED, repeats=2, unlearning_repeats=2, oracle=True,
    )  # fmt: skip
    rng = np.random.default_rng(11)
    for path in sorted((folder / "evals").iterdir()):
        document = json.loads(path.read_text())
        name = path.stem.partition(".")[2] or path.stem  # of an attack its target
        kind = "oracle" if "oracle" in path.stem else name.split("-")[0]
        for look in document["looks"]:
            for place, question in enumerate(look["questions"]):
                redraw(rng, question, 0.95 if question["role"] == "T" else LEVELS[kind])
                if question["role"] == "retain":
                    question["text"] = {"nats": round(rng.uniform(20, 40), 6), "tokens": 10 + place % 3}
                if "control-people_f" not in path.stem and question["role"] != "retain":
                    question["group"] = f"person {place // 2}"
        path.write_text(json.dumps(document))
    assert tables(folder) == 0
    return folder


def redraw(rng, question, level):
    """Answer by every probe at random; tokens and bytes of the choices differ, and stay those of the fact."""
    lengths = np.random.default_rng(sum(question["id"].encode())).integers(1, 4, 4)
    for probe, found in question["probes"].items():
        scores = rng.normal(0, 1, 4) + np.array([1.5, 0, 0, 0.5])  # a favourite letter
        scores[question["answer"]] += norm.ppf(level) * 1.5 + 1
        found["scores"] = [round(float(score) - 6, 3) for score in scores]
        if probe == "likelihood":
            found["tokens"], found["bytes"] = lengths.tolist(), (lengths * 5 + [0, 3, 1, 2]).tolist()
    if rng.random() < 0.2:  # a model that says one letter scores all choices alike
        question["probes"]["letter_permuted"]["scores"] = [-1.5, -1.5, -1.5, -1.5]


# ---- by hand


@cache
def load(folder, name):
    return json.loads((folder / "evals" / f"{name}.json").read_text())


def split_number(question):
    return int(question["split"].removeprefix("split_"))


def forget_of(look):
    return [q for q in look["questions"] if q["role"] in ("V", "T")]


def first_halves(questions):
    return halves(np.array([split_number(q) for q in questions]), [q["group"] for q in questions]).tolist()


def normalised(scores):
    total = math.log(sum(math.exp(score) for score in scores))
    return [score - total for score in scores]


def right(questions, i, probe, together):
    """How far question i is answered right. `together(j)`: whether letters of j are calibrated with those of i."""
    question = questions[i]
    answer, given = question["answer"], question["probes"]
    if probe == "letter_calibrated":
        first = first_halves(questions)
        others = [j for j in range(len(questions)) if together(j) and first[j] != first[i]]
        own = normalised(given["letter"]["scores"])
        means = [np.mean([normalised(questions[j]["probes"]["letter"]["scores"])[k] for j in others]) for k in range(4)]
        scores = [a - b for a, b in zip(own, means, strict=True)]
    elif probe in ("likelihood_token", "likelihood_byte"):
        per = given["likelihood"][probe.removeprefix("likelihood_") + "s"]
        scores = [a / b for a, b in zip(given["likelihood"]["scores"], per, strict=True)]
    else:
        scores = given[probe]["scores"]
    if probe == "letter_permuted":
        return (scores[answer] == max(scores)) / scores.count(max(scores))
    return float(scores.index(max(scores)) == answer)


def guess(questions, i, probe, together):
    """What a guesser scores on question i, and whether that guesser must beat chance to be the floor."""
    answer = questions[i]["answer"]
    if probe == "letter":
        key = [q["answer"] for q in questions if q["split"] != questions[i]["split"]]
        return commonest(key) == answer
    if probe == "letter_calibrated":
        first = first_halves(questions)
        key = [q["answer"] for j, q in enumerate(questions) if together(j) and first[j] != first[i]]
        return commonest(key) == answer
    if probe == "likelihood":
        tokens = questions[i]["probes"]["likelihood"]["tokens"]
        return (tokens[answer] == min(tokens)) / tokens.count(min(tokens))
    return 0.25


def commonest(key):
    return min(range(4), key=lambda letter: (-key.count(letter), letter))


def guesses(questions, probe, attacked):
    found = []
    for i in range(len(questions)):

        def together(j, i=i):
            return not attacked or questions[j]["split"] == questions[i]["split"]

        found.append(float(guess(questions, i, probe, together)))
    if probe in ("letter", "letter_calibrated", "likelihood") and sum(found) / len(found) <= 0.25:
        return [0.25] * len(found)
    return found


@cache
def point(folder, name):
    """{probe: (answers, guesses)} of a model before any attack, and its questions."""
    questions = forget_of(load(folder, name)["looks"][-1])
    return questions, {
        probe: ([right(questions, i, probe, lambda j: True) for i in range(len(questions))],
                guesses(questions, probe, False))
        for probe in PROBES
    }  # fmt: skip


@cache
def attacked(folder, name):
    """{(probe, repeat, look): V answers}, {probe: guesses}, the questions, and {(repeat, look): {probe: T}}."""
    document = load(folder, name)
    epochs = sorted({look["setting"]["epoch"] for look in document["looks"]})
    answers, learned = {}, {}
    for repeat, (number, epoch) in itertools.product(REPEATS, enumerate(epochs)):
        looks = [x for x in document["looks"] if x["repeat"] == repeat and x["setting"]["epoch"] == epoch]
        looks.sort(key=lambda look: look["v_split"])
        t_right = {probe: [] for probe in HEADLINE}
        for look in looks:
            questions = forget_of(look)
            for i, question in enumerate(questions):
                for probe in PROBES if question["role"] == "V" else HEADLINE:

                    def together(j, questions=questions):
                        return questions[j]["role"] == "V"

                    value = right(questions, i, probe, together)
                    if question["role"] == "V":
                        answers.setdefault((probe, repeat, number), []).append(value)
                    else:
                        t_right[probe].append(value)
        learned[repeat, number] = {probe: sum(found) / len(found) for probe, found in t_right.items()}
    return answers, {probe: guesses(questions, probe, True) for probe in PROBES}, questions, learned


@cache
def chosen(folder, name, probe, repeat, look_choice):
    """(V answers, guesses) of one repeat at the looks of a look choice."""
    answers, floors, questions, _ = attacked(folder, name)
    n, first = len(questions), first_halves(questions)
    options = [(p, look) for p in (PROBES if probe == "strongest" else [probe]) for look in range(3)]
    got, guessed = [None] * n, [None] * n
    units = [[i for i in range(n) if split_number(questions[i]) == s] for s in range(3)]
    pairs = [(unit, unit) for unit in units]
    if look_choice == "nested":
        a, b = ([i for i in range(n) if first[i] == half] for half in (True, False))
        pairs = [(a, b), (b, a)]
    for decide, told in pairs:

        def height(option, decide=decide):
            p, look = option
            under = sum(floors[p][i] for i in decide) if probe == "strongest" else 0
            return round(sum(answers[p, repeat, look][i] for i in decide) - under, 9)

        best = max(options, key=lambda option: (height(option), -options.index(option)))
        for i in told:
            got[i], guessed[i] = answers[best[0], repeat, best[1]][i], floors[best[0]][i]
    return got, guessed


@cache
def strongest_before(folder, name):
    questions, found = point(folder, name)
    first, got, guessed = first_halves(questions), [None] * len(questions), [None] * len(questions)
    for half in (True, False):
        decide = [i for i in range(len(first)) if first[i] == half]
        best = max(
            PROBES, key=lambda p: (round(sum(found[p][0][i] - found[p][1][i] for i in decide), 9), -PROBES.index(p))
        )
        for i in range(len(first)):
            if first[i] != half:
                got[i], guessed[i] = found[best][0][i], found[best][1][i]
    return got


def limit(values, groups, quantile_of, side):
    """An end of Wilson's interval with the effective number of questions: a root of its quadratic equation."""
    n, p, names = len(values), sum(values) / len(values), sorted(set(groups))
    g = len(names)
    sums = [sum(v - p for v, group in zip(values, groups, strict=True) if group == name) for name in names]
    effect = max(1, (sum(x * x for x in sums) * g / (g - 1) / n**2) / (p * (1 - p) / (n - 1)))
    z, size = quantile_of(g, n), n / effect
    roots = np.roots([1 + z * z / size, -(2 * p + z * z / size), p * p]).real
    return max(roots) if side == "high" else min(roots)


def quantile(probability):
    return lambda g, n: norm.ppf(probability) if g == n else t.ppf(probability, g - 1)


def mean(values):
    return sum(values) / len(values)


# ---- what the tables say


MODELS = {("original", 0): "model-pretrained-s0", ("unlearned", 0): "unlearn-pretrained-gd-s0",
          ("unlearned", 1): "unlearn-pretrained-gd-r1-s0", ("oracle", 0): "oracle-people_p-s0",
          ("control", 0): "control-people_f-s0"}  # fmt: skip


@pytest.mark.parametrize("key", MODELS, ids=MODELS.values())
def test_probes(study, key):
    table = read_table(study / "tables" / "probes.csv")
    rows = table[(table.stage == key[0]) & (table.unlearning_repeat == key[1])].set_index("probe")
    assert list(rows.index) == list(PROBES)
    questions, expected = point(study, MODELS[key])
    groups = [q["group"] for q in questions]
    assert set(rows.dataset) == {"people_f" if key[0] == "control" else "people_p"}
    for probe, (values, guessed) in expected.items():
        row, floor = rows.loc[probe], mean(guessed)
        assert row[["n_questions", "n_groups"]].tolist() == [36, 36 if key[0] == "control" else 18]
        upper = {
            name: limit(values, groups, quantile(p), "high") for name, p in (("upper_95", 0.95), ("upper_99", 0.99))
        }
        ends = {side: limit(values, groups, quantile(0.975), side) for side in ("low", "high")}
        numbers = {"accuracy": mean(values), "floor": floor, "margin": 0.15, **upper, **ends}
        assert {name: row[name] for name in numbers} == pytest.approx(numbers, abs=1e-6), probe
        assert row.at_floor == (upper["upper_95"] <= floor + 0.15) and row.below_floor == (upper["upper_99"] < floor)
    letters = [max(range(4), key=lambda k, s=q["probes"]["letter"]["scores"]: (s[k], -k)) for q in questions]
    said = {letter: letters.count(i) for i, letter in enumerate("ABCD")}
    assert rows.said["letter"] == ";".join(f"{letter}:{n}" for letter, n in said.items())
    shares = [n / 36 for n in said.values() if n]
    assert rows.entropy["letter"] == pytest.approx(-sum(x * math.log2(x) for x in shares), abs=1e-6)
    mass = mean([sum(map(math.exp, q["probes"]["letter"]["scores"])) for q in questions])
    assert rows.mass["letter"] == pytest.approx(mass, abs=1e-6)
    turns = [q["probes"]["letter_permuted"]["right"] for q in questions]
    assert rows.rotations["letter_permuted"] == pytest.approx(mean(turns) / 4, abs=1e-6)
    assert rows.all_rotations["letter_permuted"] == pytest.approx(turns.count(4) / 36, abs=1e-6)


def perplexity(study, name):
    """e to all nats over all tokens, not a mean over sentences."""
    texts = [q["text"] for q in load(study, name)["looks"][0]["questions"] if q["role"] == "retain"]
    assert len(texts) == 8
    return math.exp(sum(one["nats"] for one in texts) / sum(one["tokens"] for one in texts))


def target(repeat):
    return f"attack-pretrained-s0.gd-0.1{'-r1' if repeat else ''}"


VIEWS = [*itertools.product(("paper", "nested"), PROBES), ("nested", "strongest")]


@pytest.mark.parametrize(("look_choice", "probe"), VIEWS)
def test_runs_and_recovery(study, look_choice, probe):
    table = read_table(study / "tables" / "runs.csv")
    table = table[(table.look_choice == look_choice) & (table.probe == probe)]
    [(_, row)] = planted(study, look_choice=look_choice, probe=probe).iterrows()
    questions = forget_of(load(study, "model-pretrained-s0")["looks"][0])
    splits = [q["split"] for q in questions]
    names = ["all", "split_0", "split_1", "split_2"] if probe in (*HEADLINE, "strongest") else ["all"]
    assert len(table) == 4 * len(names)
    sums = {name: [] for name in ("unlearned", "attacked", "original", "floor")}
    for u, a in itertools.product(UNLEARNED, REPEATS):
        got, guessed = chosen(study, target(u), probe, a, look_choice)
        beside, under = chosen(study, "attack-pretrained-s0.original", probe, a, look_choice)
        name = MODELS["unlearned", u]
        gone = strongest_before(study, name) if probe == "strongest" else point(study, name)[1][probe][0]
        for key, values in zip(sums, (gone, got, beside, guessed), strict=True):
            sums[key].append(values)
        for split in names:
            mask = [i for i in range(36) if split in ("all", splits[i])]
            expected = {
                "n_questions": len(mask), "acc_unlearned": mean([gone[i] for i in mask]),
                "acc_attacked": mean([got[i] for i in mask]), "floor": mean([guessed[i] for i in mask]),
                "acc_original_attacked": mean([beside[i] for i in mask]),
                "original_floor": mean([under[i] for i in mask]),
                "perplexity_before": perplexity(study, "model-pretrained-s0"),
                "perplexity_unlearned": perplexity(study, name),
            }  # fmt: skip
            own = table[(table.unlearning_repeat == u) & (table.attack_repeat == a) & (table.v_split == split)]
            assert own[[*expected]].to_dict("records") == [pytest.approx(expected, abs=1e-6)]
        learned = attacked(study, target(u))[3]
        best = max(max(found.values()) for (repeat, _), found in learned.items() if repeat == a)
        own = table[(table.unlearning_repeat == u) & (table.attack_repeat == a) & (table.v_split == "all")]
        assert own.t_acc_attacked.tolist() == [pytest.approx(best, abs=1e-6)]
    r, o, f = (mean([mean(values) for values in sums[key]]) for key in ("attacked", "original", "floor"))
    under = mean([mean(chosen(study, "attack-pretrained-s0.original", probe, a, look_choice)[1]) for a in REPEATS])
    low = limit([mean(column) for column in zip(*sums["original"], strict=True)], [q["group"] for q in questions],
                quantile(0.975), "low")  # fmt: skip
    assert low > under  # so that there is a rate
    numbers = {
        "n_runs": 4, "n_groups": 18, "acc_attacked": r, "acc_original_attacked": o, "floor": f,
        "acc_unlearned": mean([mean(values) for values in sums["unlearned"]]), "recovery": r / o,
        "recovery_corrected": (r - f) / (o - under), "acc_original_attacked_low": low,
    }  # fmt: skip
    before, *after = (
        perplexity(study, name) for name in ("model-pretrained-s0", *(MODELS["unlearned", u] for u in UNLEARNED))
    )
    assert before != after[0] != after[1]
    numbers |= {"perplexity_before": before, "perplexity_unlearned": mean(after)}
    for name, file in (
        ("control", "attack-control-people_f-s0.control"),
        ("oracle", "attack-oracle-people_p-s0.control"),
    ):
        found = [chosen(study, file, probe, a, look_choice)[0] for a in REPEATS]
        numbers[f"acc_{name}_attacked"] = mean([mean(values) for values in found])
        learned = attacked(study, file)[3]
        numbers[f"t_acc_{name}_attacked"] = min(
            max(max(t.values()) for (repeat, _), t in learned.items() if repeat == a) for a in REPEATS
        )
    assert row[[*numbers]].to_dict() == pytest.approx(numbers, abs=1e-6)
