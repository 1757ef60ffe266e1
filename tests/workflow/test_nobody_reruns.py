"""Nobody runs again for others: what Snakemake wants after a change of the code, on a finished smoke study."""

import re

from clones import SMOKE
from rtt.study.names import FIGURES

AFTER_TABLES = {"tables": 1, "figure": len(FIGURES), "report": 1}
METHOD = '''"""Nothing."""

from rtt.methods.base import Method


class Toy(Method):
    """loss = L(retain) (Nobody 2020)."""

    name = "Toy"
    title = "a toy"

    def loss(self, model, batch):
        """Return {"loss", "forget", "retain"}."""
        from rtt.training.losses import text_loss

        retain = text_loss(model, batch["retain"])
        return {"loss": retain, "forget": retain, "retain": retain}
'''
ATTACK = '''"""Nothing."""

from rtt.attacks.base import Attack, Cost


class Toy(Attack):
    """Look at the checkpoint as it is (Nobody 2020)."""

    name, title, colour = "toy", "toy", "#123456"
    summary = "The model is asked as it is."

    @classmethod
    def choices(cls, settings):
        """Return the only setting."""
        return [{"kind": "none"}]

    @classmethod
    def precision(cls, settings):
        """Return fp32: nothing is trained."""
        return "fp32"

    @classmethod
    def cost(cls, settings, t_facts, texts):
        """Return one look."""
        return Cost(1)

    def fit(self, checkpoint, t_facts, look):
        """Ask once."""
        look({"kind": "none"}, checkpoint.model)
'''
KEY = "    retain_coefficient: Annotated[float, Field(ge=0)] = 1.0\n"


def edit(clone, name, *changes):
    """Change a file of the clone."""
    path = clone.folder / name
    text = path.read_text()
    for old, new in changes:
        assert text.count(old) == 1, f"{name}: {old!r} stands there {text.count(old)} times; correct this test"
        text = text.replace(old, new)
    path.write_text(text)


def wanted(clone, *targets):
    """Return {rule: jobs} that Snakemake wants for the smoke study, or for some of its files."""
    return clone.plan(*targets, "--configfile", SMOKE)


def schema(clone):
    """Return the schema of studies as the clone's code has it."""
    return clone.python("-m", "rtt", "check", "--schema", PYTHONPATH="scripts").stdout


def test_another_plugin_makes_nothing_run_again(copy):
    assert wanted(copy) == {}  # else the rest says nothing
    (copy.folder / "scripts/rtt/methods/toy.py").write_text(METHOD)
    (copy.folder / "scripts/rtt/attacks/toy.py").write_text(ATTACK)
    assert '"Toy"' in schema(copy) and '"toy"' in schema(copy)
    assert wanted(copy) == {}


def test_another_key_makes_nothing_run_again(copy):
    """Of all methods, of an attack, and of the study itself."""
    ramp = "    ramp: Annotated[float, Introduced(0.0)] = 0.0\n"
    edit(copy, "scripts/rtt/study/settings.py", (KEY, KEY + ramp))
    pause = "        epochs: Epochs\n        pause: Annotated[int, Introduced(0)] = 0\n"
    from_strict = "from rtt.study.strict import Introduced\n\n\nclass RTT("
    edit(copy, "scripts/rtt/attacks/rtt.py", ("        epochs: Epochs\n", pause), ("\n\nclass RTT(", from_strict))
    shade = "    shade: Annotated[str, Introduced('red')] = 'red'\n    threads: Annotated"
    edit(copy, "scripts/rtt/study/schema.py", ("    threads: Annotated", shade))
    assert all(f'"{key}"' in schema(copy) for key in ("ramp", "pause", "shade"))
    assert wanted(copy) == {}

    # The new code reads the spec of a run from before the key, and leaves what it makes as it was.
    spec = next(copy.results().glob("specs/unlearn-pretrained-*.json"))
    target = copy.results() / f"evals/{spec.name}"
    before = spec.read_bytes(), target.read_bytes()
    done = copy.snakemake(
        str(target.relative_to(copy.folder)), "--forcerun", "unlearn", "-c2", "--scheduler", "greedy", "--notemp",
        "--configfile", SMOKE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert (spec.read_bytes(), target.read_bytes()) == before


def test_another_default_makes_run_what_it_touches(copy):
    default = '    mcq_loss: McqLoss = "QUESTION_LETTER_ANSWER"\n'
    edit(copy, "scripts/rtt/study/settings.py", (default, default.replace("QUESTION_", "")))
    assert wanted(copy) == {"unlearn": 2, "choose": 2, "attack": 4, **AFTER_TABLES}


def test_another_equation_makes_its_method_run_again_and_what_follows(copy):
    """In a study of two methods; the other one runs again where its own equation changes."""
    edit(copy, SMOKE, ("  GD:\n", "  RIA: {learning_rate: 1.0e-3, batch_size: 8, points: [2, 4]}\n  GD:\n"))
    done = copy.snakemake("-n", "-c2", "--scheduler", "greedy", "--configfile", SMOKE)
    (ria,) = sorted(set(re.findall(r"results/smoke/evals/unlearn-pretrained-\S+-RIA-\S+?\.json", done.stdout)))
    done = copy.snakemake(ria, "-c2", "--scheduler", "greedy", "--notemp", "--configfile", SMOKE)
    assert done.returncode == 0, done.stdout
    (gd,) = copy.results().glob("evals/unlearn-pretrained-*-GD-*.json")
    gd = str(gd.relative_to(copy.folder))
    assert wanted(copy, ria, gd) == {}

    edit(copy, "scripts/rtt/methods/gd.py", ('"loss": -forget + ', '"loss": -2 * forget + '))
    assert wanted(copy, ria) == {}
    assert wanted(copy, gd) == {"unlearn": 1}
    edit(copy, "scripts/rtt/methods/ria.py", ('"loss": forget + ', '"loss": 2 * forget + '))
    assert wanted(copy, ria) == {"unlearn": 1}
    edit(copy, SMOKE, ("  RIA: {learning_rate: 1.0e-3, batch_size: 8, points: [2, 4]}\n", ""))
    assert wanted(copy) == {"unlearn": 2, "choose": 2, "attack": 4, **AFTER_TABLES}


def test_another_code_of_an_attack_makes_that_attack_run_again(copy):
    """The smoke study attacks two arms, a control and an oracle with each of its two attacks."""
    edit(copy, "scripts/rtt/attacks/quantise.py", (".round()", ".floor()"))
    assert wanted(copy) == {"attack": 4, **AFTER_TABLES}
