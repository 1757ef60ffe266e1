"""Expand a study to the specs of all its runs; variants whose specs are equal share their runs."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rtt.depth import layer_number
from rtt.errors import UserError
from rtt.files import canonical_json, disk_errors
from rtt.listing import jsonl_files
from rtt.study import digests as inputs
from rtt.study import plugins
from rtt.study.deepspeed import engine_of, not_released, not_under_deepspeed
from rtt.study.model_file import Hub, HubModel, ModelFile
from rtt.study.model_folder import check_folder, check_unlearned, depth, shape
from rtt.study.names import DEFAULT, MOST_RUN_ID, target_name
from rtt.study.schema import AnyModel, Study
from rtt.study.sentences import check_sentences
from rtt.study.settings import Dataset, Model, RetainFacts, RetainTexts, Task, Unlearning
from rtt.study.specs import (
    AttackSpec,
    DataSpec,
    External,
    Files,
    ImportSpec,
    OriginalSpec,
    PointChoiceSpec,
    PretrainSpec,
    RawSpec,
    Retain,
    Source,
    Spec,
    Target,
    TeachSpec,
    TextsSpec,
    Trajectories,
    UnlearnSpec,
)


class Runs:
    """All specs of a study, by kind and by id. `root` is the folder that the study's relative paths start from."""

    def __init__(self, study: Study, root: str | Path = "."):
        self.study, self.root = study, Path(root)
        self.raw: dict[str, RawSpec] = {}
        self.data: dict[str, DataSpec] = {}
        self.texts: dict[str, TextsSpec] = {}
        self.imports: dict[str, ImportSpec] = {}
        self.sources: dict[str, Source] = {}
        self.unlearn: dict[str, UnlearnSpec] = {}
        self.choices: dict[str, PointChoiceSpec] = {}
        self.attacks: dict[str, AttackSpec] = {}  # on originals, unlearned models and controls
        self.variants: dict[str, dict] = {}
        self._depths: dict[str, int | None] = {}
        for name in (DEFAULT, *study.variants):
            with disk_errors(f"study {study.study}"):  # of the folders that it names
                self._expand(name, study.variant(name))
        check_sentences(self.specs(), self.root)
        self._launch_can()

    def _launch_can(self) -> None:
        """Raise UserError for a precision in which DeepSpeed would give other numbers, and for gradients that are
        released before they are whole.
        """
        study, engine = self.study, engine_of(self.study.deepspeed)
        for spec in self.specs():
            trained = next((getattr(spec, key) for key in ("training", "settings") if hasattr(spec, key)), None)
            precision = getattr(trained, "precision", None)
            merged = engine.stage == 3 and isinstance(spec, UnlearnSpec) and bool(getattr(trained, "lora", None))
            if study.deepspeed and (why := not_under_deepspeed(precision, engine.offload, merged)):
                raise UserError(f"deepspeed: {study.deepspeed} for {spec.run_id}: {why}")
            if not getattr(trained, "gradient_release", False):
                continue
            method = plugins.methods().get(getattr(spec, "method", None))
            if why := method and method.needs_whole_gradient:
                raise UserError(f"study {study.study}: methods.{method.name}: gradient_release: {why}")
            if why := not_released(trained.batch_size, study.micro_batch, study.launcher != "none"):
                raise UserError(f"study {study.study}: {spec.run_id}: {why}")

    def _expand(self, name: str, study: Study) -> None:
        reported = "paper" if "select_on_v" in study.faithful else "nested"
        self.study_now = study
        self.controls: dict[tuple, OriginalSpec] = {}  # of this variant: the models of controls before any attack
        self.now = {"evals": [], "point_choices": [], "reported": reported}
        for seed in study.seeds:
            if study.tasks:
                self._tasks(seed)
            else:
                self._arms(seed)
        # Two tasks may share a control, and two variants anything.
        self.variants[name] = {key: list(dict.fromkeys(v)) if key != "reported" else v for key, v in self.now.items()}

    def _put(self, where: dict, spec: Spec):
        if len(spec.run_id) > MOST_RUN_ID:
            raise UserError(
                f"study {self.study.study}: the run {spec.run_id} has a name of {len(spec.run_id)} letters, and files "
                f"that are called so have at most {MOST_RUN_ID}: shorten the names of the model, the datasets or the "
                "external models"
            )
        where[spec.run_id] = spec
        return spec

    # The miniature on generated facts

    def _arms(self, seed: int) -> None:
        study = self.study_now
        self._attacks_work()
        a, b = self._people("birth_years_a", seed), self._people("birth_years_b", seed)
        base = self._pretrain(a, seed)
        for arm in study.arms:
            source: Source = base
            if arm != "pretrained":
                source = TeachSpec(
                    seed=seed, arm=arm, base=base, facts=b, retain=base.retain, training=study.taught(arm),
                    scores=study.scores, choice_splits=study.point_choice.splits,
                )  # fmt: skip
            self._arm(self._put(self.sources, source))
        if not study.attacks.named:
            return
        self._control(base, b, list(study.arms), base.retain, seed)  # taught arms have their oracle in it
        if study.has_oracle and "pretrained" in study.arms:
            self._control(self._put(self.sources, self._pretrain(b, seed)), a, ["pretrained"], base.retain, seed)

    def _people(self, name: str, seed: int) -> DataSpec:
        data = self.study_now.data
        raw = self._put(self.raw, RawSpec(seed=seed, dataset=name, people=data.generator))
        return self._put(self.data, DataSpec(seed=seed, raw=raw, policy=data.policy))

    def _pretrain(self, facts: DataSpec, seed: int) -> PretrainSpec:
        study, cities = self.study_now, self._people("cities", seed)
        retain = Retain(learn=cities, learn_splits=["train"], held_out=cities, held_out_splits=["held_out"])
        spec = PretrainSpec(
            seed=seed, model=study.model, facts=facts, retain=retain, training=study.pretraining, scores=study.scores,
            choice_splits=study.point_choice.splits,
        )  # fmt: skip
        return self._put(self.sources, spec)

    # A pretrained model on datasets by name

    def _tasks(self, seed: int) -> None:
        study = self.study_now
        digest = self._original_folder(study.model.path) if study.model.path else None
        self._attacks_work()
        self._layers_exist()
        tokenizer = study.model.tokenizer and self._tokenizer_folder(study.model.tokenizer)
        spec = ImportSpec(seed=0, model=study.model, digest=digest, tokenizer_digest=tokenizer)
        base = self._put(self.imports, spec)

        def size(name: str) -> int | None:
            return study.data.datasets[name].facts_per_split

        for task in study.tasks:
            facts = self._dataset(task.dataset, seed, per_split=size(task.dataset))
            retain = self._retain(task, seed)
            shared = {"seed": seed, "base": base, "facts": facts, "retain": retain, "scores": study.scores}
            shared["choice_splits"] = study.point_choice.splits
            if task.arm == "pretrained":
                source: Source = OriginalSpec(**shared)
            else:
                also = self._part(task.also_taught, seed) if task.also_taught else None
                source = TeachSpec(arm=task.arm, training=study.taught(task.arm), also_taught=also, **shared)
            texts = [self._texts(part) for part in (task.forget_texts or []) if study.methods.named]
            self._arm(self._put(self.sources, source), texts)
            if study.attacks.named and task.control:
                control = self._dataset(task.control, seed, per_split=size(task.dataset))
                self._control(base, control, [task.arm], retain, seed)

    def _texts(self, wanted: RetainTexts) -> TextsSpec:
        spec = TextsSpec(
            seed=0, group=wanted.texts, count=wanted.count, digest=inputs.group_digest(wanted.texts, wanted.count),
            max_characters=wanted.max_characters,
        )  # fmt: skip
        return self._put(self.texts, spec)

    def _dataset(self, name: str, seed: int, splits: list[str] | None = None, per_split: int | None = None) -> DataSpec:
        data = self.study_now.data
        wanted: Dataset = data.datasets[name]
        raw = self._put(self.raw, self._raw(name, wanted, seed))
        splits = splits or wanted.splits
        spec = DataSpec(
            seed=seed, raw=raw, policy=data.policy, splits=splits, facts_per_split=per_split,
            distractors=wanted.distractors,
        )  # fmt: skip
        return self._put(self.data, spec)

    def _raw(self, name: str, wanted: Dataset, seed: int) -> RawSpec:
        if wanted.generate:
            return RawSpec(seed=seed, dataset=name, birthdays=wanted.generate)
        if wanted.source:
            files = Files(group=wanted.source, digest=inputs.group_digest(wanted.source))
        else:
            jsonl_files(self.root / wanted.folder)  # a link to nowhere would be left out of the digest
            files = Files(folder=wanted.folder, digest=inputs.folder_digest(self.root / wanted.folder, "*.jsonl"))
        return RawSpec(seed=0, dataset=name, files=files)

    def _part(self, facts: RetainFacts, seed: int) -> DataSpec:
        return self._dataset(facts.dataset, seed, facts.splits, facts.facts_per_split)

    def _retain(self, task: Task, seed: int) -> Retain:
        if isinstance(task.retain, RetainTexts):
            return Retain(learn=self._texts(task.retain), held_out=self._part(task.retain_eval, seed))
        return Retain(learn=self._part(task.retain, seed), held_out=self._part(task.retain_eval, seed))

    # Both

    def _methods(self, source: Source, texts: list[TextsSpec]) -> list[Trajectories]:
        study = self.study_now
        external = [
            Trajectories(method=name, strengths=[self._external(name, model)])
            for name, model in study.external_models.items()
        ]
        own = []
        for name, settings in study.methods.named.items():
            strengths = [self._resolved(name, one, source.model) for one in settings.trajectories()]
            own.append(Trajectories(method=name, texts=texts, strengths=strengths))
        return own + external

    def _resolved(self, method: str, settings: Unlearning, model: AnyModel) -> Unlearning:
        """Return settings that need no model file, after a look at the layers that the model has."""
        try:
            kind = plugins.methods()[method]
            self._check_type(kind, model)
            return kind.resolved(settings, self._with_depth(model))
        except UserError as error:
            raise UserError(f"study {self.study.study}: methods.{method}: {error}") from None

    def _attacks_work(self) -> None:
        """Raise UserError for an attack that cannot work on the study's model."""
        for name in self.study_now.attacks.named:
            try:
                self._check_type(plugins.attacks()[name], self.study_now.model)
            except UserError as error:
                raise UserError(f"study {self.study.study}: attacks.{name}: {error}") from None

    def _check_type(self, plugin: type, model: AnyModel) -> None:
        """Raise UserError where a plug-in cannot work on a model of this type, which lies in a folder."""
        if isinstance(model, ModelFile) and model.path:
            found = shape(self.root / model.path).get("model_type")
            if why := plugin.refused.get(found):
                raise UserError(f"{model.path} is a {found} model: {why}")
        if isinstance(model, Model) and getattr(plugin, "needs_context", False):
            raise UserError(
                f"{model.name} was trained from scratch on single questions, so it cannot use examples that stand "
                f"before one; leave {plugin.name} out of this study's attacks"
            )

    def _with_depth(self, model: AnyModel) -> AnyModel:
        """Return a model file with the number of layers that the model's own folder gives."""
        if not isinstance(model, ModelFile) or not model.path:
            return model
        if model.path not in self._depths:
            self._depths[model.path] = depth(self.root / model.path)
        if (found := self._depths[model.path]) is None:
            return model
        if model.layers not in (None, found):
            raise UserError(
                f"study {self.study.study}: model.layers: found {model.layers}, but {model.path}/config.json says "
                f"{found}; correct it, or leave it out"
            )
        return model.model_copy(update={"layers": found})

    def _layers_exist(self) -> None:
        """Raise UserError for layers that the model does not have, as far as its file or its folder tells."""
        study, layers = self.study_now, self._with_depth(self.study_now.model).layers
        phases = {"teaching": study.teaching} | {f"methods.{name}": one for name, one in study.methods.named.items()}
        phases |= {f"attacks.{name}": one for name, one in study.attacks.named.items()}
        for name, phase in phases.items():
            named = [(key, layer) for key in ("train_layers", "layers") for layer in getattr(phase, key, None) or ()]
            for key, layer in named if layers else ():
                try:
                    if layer != "all":
                        layer_number(layer, layers)
                except UserError as error:
                    raise UserError(f"study {self.study.study}: {name}.{key}: {error}") from None

    def _original_folder(self, path: str) -> str:
        """Check the study's own model; return the folder's digest."""
        try:
            if not (self.root / path).is_dir():
                raise UserError(f"{path}: no such folder; expected config.json, tokenizer files and safetensors")
            check_folder(self.root / path)
        except UserError as error:
            raise UserError(f"study {self.study.study}: model.path: {error}") from None
        return inputs.folder_digest(self.root / path)

    def _tokenizer_folder(self, path: str) -> str:
        """Return the digest of a tokenizer's files, whatever else lies in their folder."""
        try:
            return inputs.tokenizer_digest(self.root / path)
        except UserError as error:
            raise UserError(f"study {self.study.study}: model.tokenizer: {error}") from None

    def _external(self, name: str, model: str | HubModel) -> External:
        """Return the settings of an external model; one on the hub is a run of its own, which `fetch` asks for."""
        if isinstance(model, str):
            return External(external_model=model, digest=self._unlearned_folder(name, model))
        hub = Hub(id=model.hub.id, revision=model.hub.revision)
        short = re.sub(r"[^a-z0-9_.-]", "-", hub.id.split("/")[1].lower())
        fetched = self._put(self.imports, ImportSpec(seed=0, model=ModelFile(name=short, hub=hub), external=True))
        return External(external_model=f"{hub.id}@{hub.revision}", digest=fetched.hash, fetched=fetched)

    def _unlearned_folder(self, name: str, path: str) -> str:
        """Check an external model against its original, as far as files tell; return its digest."""
        model, known = self.study_now.model, {}
        if isinstance(model, Model):
            known = {"hidden_size": model.hidden_size, "num_hidden_layers": model.layers, "model_type": "llama"}
        elif model.path:
            known = shape(self.root / model.path)
        else:
            known = {"hidden_size": model.hidden, "num_hidden_layers": model.layers}
        try:
            check_unlearned(self.root / path, {key: value for key, value in known.items() if value is not None})
        except UserError as error:
            raise UserError(f"study {self.study.study}: external_models.{name}: {error}") from None
        return inputs.folder_digest(self.root / path)

    def _arm(self, source: Source, texts: Sequence[TextsSpec] = ()) -> None:
        """Add everything that starts from one original: trajectories, point choices, attacks."""
        study, methods = self.study_now, self._methods(source, list(texts))
        self.now["evals"].append(source.run_id)
        shared = {"seed": source.seed, "source": source, "point_choice": study.points}
        repeats = {method.method: method.repeats(study.repeats.unlearning) for method in methods}
        for method in methods:
            for repeat in repeats[method.method]:
                choice = PointChoiceSpec(
                    unlearned=method, retain_budgets=study.retain_budgets, repeat=repeat, **shared
                )  # fmt: skip
                self._put(self.choices, choice)
                self.unlearn |= {spec.run_id: spec for spec in choice.trajectories}
                self.now["point_choices"].append(choice.run_id)
                self.now["evals"] += [spec.run_id for spec in choice.trajectories]
        if not study.attacks.named:
            return
        shared |= {"arm": source.arm, "facts": source.facts, "scores": study.scores}
        original = Target(name="original", kind="original")
        unlearned = {
            method.method: [
                Target(
                    name=target_name(method.method, budget, repeat), kind="unlearned", method=method.method,
                    retain_budget=budget, repeat=repeat,
                )
                for repeat in repeats[method.method]
                for budget in study.retain_budgets
            ]
            for method in methods
        }  # fmt: skip
        unlearning = {"retain_budgets": study.retain_budgets, "unlearning_repeats": study.repeats.unlearning}
        if study.attack_jobs == "arm" and methods:
            targets = [original, *(target for some in unlearned.values() for target in some)]
            self._attacks(source.retain, unlearned=methods, targets=targets, **shared, **unlearning)
            return
        self._attacks(source.retain, targets=[original], **shared | {"point_choice": None})
        for method in methods:
            targets = unlearned[method.method]
            self._attacks(source.retain, unlearned=[method], targets=targets, **shared, **unlearning)

    def _control(self, source: PretrainSpec | ImportSpec, facts: DataSpec, arms: list[str], retain: Retain, seed: int):
        """Add every attack on a model that never saw these facts, and its scores before any attack."""
        study, key = self.study_now, (source.run_id, facts.run_id, *arms)
        if key not in self.controls:  # tasks with the same control may differ in what must stay
            self.controls[key] = OriginalSpec(
                seed=seed, arm="control", control_for=arms, base=source, facts=facts, retain=retain,
                scores=study.scores, choice_splits=study.point_choice.splits,
            )  # fmt: skip
            self.now["evals"].append(self._put(self.sources, self.controls[key]).run_id)
        self._attacks(
            retain, seed=seed, arm="control", control_for=arms, source=source, facts=facts,
            targets=[Target(name="control", kind="control")], scores=study.scores,
        )  # fmt: skip

    def _attacks(self, retain: Retain, **shared) -> None:
        """Add one run for each attack of the study; `retain` is what must stay."""
        study = self.study_now
        for name, settings in study.attacks.named.items():
            plugin = plugins.attacks()[name]
            if isinstance(retain.learn, TextsSpec) and (key := plugin.needs_retain_facts(settings)):
                raise UserError(
                    f"study {self.study.study}: attacks.{name}.{key} needs retain facts, but this study retains plain "
                    f"texts ({retain.learn.group}); leave it out, or name a dataset in tasks.N.retain"
                )
            spec = AttackSpec(
                attack=name, settings=settings, repeats=study.repeats.attack if plugin.drawn else 1,
                left_out=study.point_choice.splits, shots=retain if "few_shot" in study.scores.probes else None,
                retain=retain if plugin.uses_retain else None, **shared,
            )  # fmt: skip
            self.now["evals"] += self._put(self.attacks, spec).eval_ids()

    def specs(self) -> Iterator[Spec]:
        """Yield every spec once."""
        groups = (
            self.raw, self.data, self.texts, self.imports, self.sources, self.unlearn, self.choices, self.attacks,
        )  # fmt: skip
        for group in groups:
            yield from group.values()

    def attack_jobs(self) -> list[list[AttackSpec]]:
        """Return the runs of each process that attacks.

        Where one process attacks all checkpoints of an arm, those attacks that train nothing share it, and the loaded
        model: importing torch takes longer than they do on a miniature.
        """
        jobs: dict[str, list[AttackSpec]] = {}
        for spec in self.attacks.values():
            alone = spec.plugin.trains or self.study.attack_jobs == "method"
            jobs.setdefault(spec.run_id if alone else canonical_json(spec.checkpoints), []).append(spec)
        return list(jobs.values())

    def scored(self) -> list[str]:
        """Return the runs that score a model as it stands: originals and trajectories, not attacks."""
        return [run for run in self.eval_ids() if "/" not in run]

    def eval_ids(self) -> list[str]:
        """Return the stems of all evaluation files that the tables read."""
        return list(dict.fromkeys(stem for variant in self.variants.values() for stem in variant["evals"]))

    def plan(self) -> dict:
        """Return runs.json, which tells the analysis the file stems of this study; its folder may hold older runs."""
        study = self.study.model_dump(mode="json")
        study["point_choice"] |= {"probes": self.study.points.probes, "retain_probe": self.study.points.retain_probe}
        study["criteria"] |= {"headline": self.study.headline}
        return {
            "study": study,
            "variants": self.variants,
            "data": list(self.data),
            "manifests": [*self.imports, *self.sources, *self.unlearn, *self.attacks],
        }
