"""Read how a verdict's models were named, as folders or as repositories on the hub, and check that they fit."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from rtt.errors import UserError, one_line
from rtt.study import plugins
from rtt.study.model_file import COMMIT, HUB_ID
from rtt.study.model_folder import check_folder, check_unlearned, count_weights, shape
from rtt.study.names import NONE

NO_CONTEXT = 10_000_000  # weights, below which no model uses examples that stand before a question


@dataclass(frozen=True)
class Given:
    """A model that was named on the command line.

    folder: where it lies, None for one on the hub; then `repository` and `commit` say which it is (no commit: what the
    first fetch finds). parameters: how many weights it has, None where nobody asked.
    """

    name: str
    folder: str | None = None
    repository: str | None = None
    commit: str | None = None
    parameters: int | None = None

    @property
    def text(self) -> str:
        """What was named, for messages and pages."""
        return self.folder or f"{self.repository}{f'@{self.commit}' if self.commit else ''}"

    @property
    def model_type(self) -> str | None:
        """The type that a folder's config.json gives, such as llama; None for a model on the hub."""
        return shape(self.folder).get("model_type") if self.folder else None

    def hub(self) -> dict[str, str]:
        """Return the `hub` part of a study."""
        return {"id": self.repository, **({"revision": self.commit} if self.commit else {})}


def original(text: str) -> Given:
    """Return the model before unlearning, without asking the hub.

    Raises UserError where the text names no folder and can name no repository, or where a folder cannot be used.
    """
    found = _given("--original", text)
    if found.folder is not None:
        check_folder(found.folder)
    return found


def unlearned(text: str, before: Given) -> Given:
    """Return the unlearned model. Raises UserError as `original`, and where it cannot be `before` after unlearning."""
    found = _given("--unlearned", text)
    taken = {name.casefold() for name in plugins.methods()} | {NONE}
    name = found.name if found.name[0].isalpha() else f"model-{found.name}"
    name = (f"{name}-model" if name.casefold() in taken else name)[:60]
    if found.folder is None and found.commit is None:
        raise UserError(
            f"--unlearned {text}: no folder has this name, and a model on the hub may change: name its commit, as "
            f"{text}@COMMIT with 40 hex digits (the hub's page shows it under Files, History)"
        )
    check_differ(found, before)
    if found.folder is not None:
        check_unlearned(found.folder, shape(before.folder) if before.folder else {})
    return Given(name, found.folder, found.repository, found.commit)


def counted(before: Given, after: Given) -> Given:
    """Return the model before unlearning with the number of its weights, and its commit, for which the hub is asked.

    Raises UserError where the hub does not answer, or where this commit is that of the unlearned model.
    """
    if before.folder is not None:
        return replace(before, parameters=count_weights(before.folder))
    found = _looked_up(before)
    check_differ(after, found)
    return found


def check_differ(after: Given, before: Given) -> None:
    """Raise UserError where the unlearned model is the original."""
    if same(after, before):
        raise UserError(
            f"--unlearned {after.text}: it is the model that --original names; name the one after unlearning"
        )


def same(one: Given, other: Given) -> bool:
    """Return whether two models are one: the same folder, or the same commit of the same repository."""
    if one.folder and other.folder:
        return Path(one.folder).resolve() == Path(other.folder).resolve()
    return one.repository is not None and (one.repository, one.commit) == (other.repository, other.commit)


def _given(option: str, text: str) -> Given:
    if Path(text).is_dir():
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", Path(text).resolve().name).strip("-.") or "model"
        return Given(name, folder=text)
    repository, _, commit = text.partition("@")
    if not re.match(HUB_ID, repository) or Path(text).exists():
        raise UserError(
            f"{option} {text}: no such folder; expected a folder with config.json and safetensors, as save_pretrained "
            "writes, or a repository on the hub, as org/name@COMMIT"
        )
    if commit and not re.match(COMMIT, commit):
        raise UserError(f"{option} {text}: found the revision {commit!r}, expected a commit of 40 hex digits")
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", repository.split("/")[1]).strip("-.") or "model"
    return Given(name, repository=repository, commit=commit or None)


def _looked_up(found: Given) -> Given:
    """Return a model on the hub with its commit and the number of its weights, as the hub says."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(found.repository, revision=found.commit)
        weights = getattr(info, "safetensors", None)
    except Exception as error:  # the hub's library raises dozens of types, which change with each release
        raise UserError(
            f"--original {found.text}: no folder has this name, and the hub was asked for it: {one_line(error)}; "
            "download the model where there is a network, and name its folder"
        ) from None
    if weights is None:
        raise UserError(f"--original {found.text}: the hub lists no safetensors there; pickled weights are not read")
    return Given(found.name, repository=found.repository, commit=info.sha, parameters=int(weights.total))


def refused(before: Given) -> dict[str, str]:
    """Return {attack: why it cannot work} of those that refuse the original's type of model, or a model of its size."""
    kind, found = before.model_type, {}
    for name, attack in plugins.attacks().items():
        if kind in attack.refused:
            found[name] = attack.refused[kind]
        elif attack.needs_context and before.parameters < NO_CONTEXT:
            found[name] = (
                f"with fewer than {NO_CONTEXT / 1e6:.0f} million weights it cannot use examples in its context"
            )
    return found
