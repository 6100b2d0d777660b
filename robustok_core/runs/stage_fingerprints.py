"""The fingerprint of each stage: a hash of everything that shapes its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from attrs import define, field

from robustok_core.recipe.recipe import NamedStage, ResolvedRecipe
from robustok_core.recipe.registry import Registry
from robustok_core.recipe.samplers import without_sampler_options
from robustok_core.runs.code import Code, code_of, differences, finished_with_other_code, recorded_code, shaping_code
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.values.spec import Spec


@define(kw_only=True)
class StageFingerprints:
    """Computes the fingerprints of a recipe's stages, before any of them runs.

    Attributes:
        recipe: with sampler options resolved. registry: of its components. record: the content of run.json.
        inputs: the fingerprints of the artifacts from [load]. loaded: their components and importers.
        data: computes the fingerprint of the data.
        accept_old_code: take a finished stage that differs only in its code. say: prints a line.
        code: of each stage. without_code: the fingerprint that each stage would have, were no code part of it.
    """

    recipe: ResolvedRecipe
    registry: Registry
    record: Mapping[str, Any]
    inputs: Mapping[str, str]
    loaded: Mapping[str, Sequence[Spec]]
    data: Callable[[], Any]
    accept_old_code: bool
    say: Callable[[str], None]
    code: dict[str, Code] = field(factory=dict, init=False)
    without_code: dict[str, str] = field(factory=dict, init=False)

    def compute(self) -> dict[str, str]:
        """The fingerprint of each stage by name, computed from those of its inputs."""
        inputs, without_code = dict(self.inputs), dict(self.inputs)
        fingerprints = {}
        for stage in self.recipe.stages:
            kind, shape = stage.spec.factory, self._shape(stage)
            self.without_code[stage.name] = fingerprint_of(
                {**shape, "inputs": {name: without_code[name] for name in kind.needs}}
            )
            self.code[stage.name] = self._code(stage)
            if code := shaping_code(self.code[stage.name]):
                shape["code"] = code
            fingerprint = fingerprint_of({**shape, "inputs": {name: inputs[name] for name in kind.needs}})
            fingerprints[stage.name] = self._with_accepted_code(stage, fingerprint)
            without_code |= dict.fromkeys(kind.makes, self.without_code[stage.name])
            inputs |= dict.fromkeys(kind.makes, fingerprints[stage.name])
        return fingerprints

    def _tables(self, stage: NamedStage) -> dict[str, Spec]:
        kind = stage.spec.factory
        tables = {name: self.recipe.tables[name] for name in (*kind.uses, *kind.may_use) if name in self.recipe.tables}
        if "generator" not in kind.needs:  # it samples nothing, whatever is known of the generator
            tables = {name: attrs.evolve(t, config=without_sampler_options(t.config)) for name, t in tables.items()}
        return tables

    def _shape(self, stage: NamedStage) -> dict[str, Any]:
        """What shapes the result of a stage, besides its inputs and its code."""
        tables = self._tables(stage)
        return {
            "stage": shaping(stage.spec),
            "name": stage.name,
            "tables": {name: spec.table() for name, spec in tables.items()},
            "data": self.data() if "data" in tables else None,
            "run": [self.recipe.run.seed, self.recipe.run.precision],
        }

    def _code(self, stage: NamedStage) -> Code:
        loaded = [self.loaded.get(name) for name in stage.spec.factory.needs]
        return code_of([stage.spec, self._tables(stage), loaded], self.registry)

    def _with_accepted_code(self, stage: NamedStage, fingerprint: str) -> str:
        """The fingerprint of a finished stage that differs only in its code, if that is accepted; else `fingerprint`.

        Where an earlier version did not record the code, it is accepted: nothing says that it changed.
        """
        if self.record["stages"].get(f"{stage.name}-{fingerprint}", {}).get("state") == "done":
            return fingerprint
        others = finished_with_other_code(self.record, stage.name, self.without_code[stage.name])
        if not others:
            return fingerprint
        other, entry = others[0]
        code = recorded_code(entry)
        if code is None:
            self.say(f"{stage.name}: which plugin code made it is not recorded; it is taken as it is")
            return other
        changed = differences(code, self.code[stage.name])
        why = f"the code of {', '.join(changed)} changed" if changed else "what it reads is made by other code"
        if self.accept_old_code:
            self.say(f"{stage.name}: {why} since it was done; accepted")
            return other
        self.say(f"{stage.name} runs again: {why} (--accept-old-code takes what it made before)")
        return fingerprint


def shaping(spec: Spec) -> dict[str, Any]:
    """A component's table without the options that do not affect the result (`metadata={"result": False}`)."""
    neutral = {a.name for a in attrs.fields(type(spec.config)) if not a.metadata.get("result", True)}
    return {name: value for name, value in spec.table().items() if name not in neutral}
