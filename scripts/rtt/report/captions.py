"""What `snakemake --report` says of a result: computed from the study. Read by the Snakefile, so it imports little."""

from rtt.study import plugins
from rtt.study.schema import Study


def described(study: Study) -> dict[str, str]:
    """Return what a study is made of, in words, by name: facts, methods, seeds, budgets, probes, attacks, variants."""
    if study.tasks:
        facts = ", ".join(f"{task.dataset} ({task.arm})" for task in study.tasks)
    else:
        facts = ", ".join(arm.replace("_", " ") for arm in study.arms or [])
    known = plugins.attacks()
    settings = {name: len(known[name].choices(own)) for name, own in study.attacks.named.items()}
    attacks = [f"{name} ({n} setting{'s' * (n != 1)})" for name, n in settings.items()]
    return {
        "facts": facts or "none",
        "model": study.model.name,
        "methods": ", ".join([*study.methods.named, *study.external_models]) or "none",
        "seeds": ", ".join(map(str, study.seeds)),
        "budgets": ", ".join(f"{100 * budget:g} %" for budget in study.retain_budgets),
        "probe": study.headline[0],
        "probes": ", ".join(study.scores.probes),
        "attacks": ", ".join(attacks) or "none",
        "variants": ", ".join(study.variants) or "none",
    }


def labels(about: dict[str, str], **result: str) -> dict[str, str]:
    """Return the labels of a result: what it is, then what distinguishes its study (see `described`) from others."""
    return result | {name: about[name] for name in ("facts", "methods", "seeds") if name in about}
