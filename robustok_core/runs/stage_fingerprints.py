"""The fingerprint of each stage: a hash of everything that shapes its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import define, field

from robustok_core.kinds.stage import tables_of
from robustok_core.recipe.recipe import NamedStage, ResolvedRecipe
from robustok_core.recipe.registry import Registry
from robustok_core.recipe.samplers import without_sampler_options
from robustok_core.runs.code import Code, code_of, differences, finished_with_other_code, recorded_code, shaping_code
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.runs.made_from import made_from, why_again
from robustok_core.runs.manifest import Damage
from robustok_core.runs.named_files import NamedFile, may_be_made_from, paths_in, recorded_content
from robustok_core.runs.run_record import MadeFrom
from robustok_core.values.spec import Spec, plain_options, shaping_options


@define(kw_only=True)
class StageFingerprints:
    """Computes the fingerprints of a recipe's stages, before any of them runs.

    Attributes:
        recipe: with sampler options resolved. registry: of its components. record: the content of run.json.
        inputs: the fingerprints of the artifacts from [load]. loaded: their components and importers.
        data: computes the fingerprint of the data. look_at: see `named_files`; the same on all processes.
        damage: what is wrong with the artifacts of a finished stage of this fingerprint, if anything.
        accept_old_code: take a finished stage that differs only in its code. say: prints a line.
        code: of each stage. without_code: the fingerprint that each stage would have, were no code part of it.
        made_from: what else shapes each stage's result. again: why stages run again that were done in this folder.
    """

    recipe: ResolvedRecipe
    registry: Registry
    record: Mapping[str, Any]
    inputs: Mapping[str, str]
    loaded: Mapping[str, Sequence[Spec]]
    data: Callable[[], Any]
    look_at: Callable[[Path], NamedFile | None]
    damage: Callable[[NamedStage, str], Damage | None]
    accept_old_code: bool
    say: Callable[[str], None]
    code: dict[str, Code] = field(factory=dict, init=False)
    without_code: dict[str, str] = field(factory=dict, init=False)
    made_from: dict[str, MadeFrom] = field(factory=dict, init=False)
    _changed: dict[str, float] = field(factory=dict, init=False)  # when a file that a stage's options name was written
    again: dict[str, str] = field(factory=dict, init=False)

    def compute(self) -> dict[str, str]:
        """The fingerprint of each stage by name, computed from those of its inputs."""
        inputs = dict(self.inputs)
        without_code: list[dict[str, str]] = [dict(self.inputs) for _ in _VERSIONS]
        fingerprints = {}
        for stage in self.recipe.stages:
            kind, files = stage.spec.factory, self._files(stage)
            shapes = [self._shape(stage, shaped, files if named else {}) for shaped, named in _VERSIONS]
            bare = [_with_inputs(*pair, kind.needs) for pair in zip(shapes, without_code, strict=True)]
            hashes = [fingerprint_of(shape) for shape in bare]
            self.without_code[stage.name], self.code[stage.name] = hashes[0], self._code(stage)
            whole = [_with_inputs(shape, inputs, kind.needs) for shape in shapes]
            self.made_from[stage.name] = made_from(whole[0], files)
            fingerprints[stage.name] = self._fingerprint(stage, whole, hashes)
            for by_name, bare_hash in zip(without_code, hashes, strict=True):
                by_name.update(dict.fromkeys(kind.makes, bare_hash))
            inputs |= dict.fromkeys(kind.makes, fingerprints[stage.name])
        return fingerprints

    def _tables(self, stage: NamedStage) -> dict[str, Spec]:
        kind = stage.spec.factory
        tables = {name: self.recipe.tables[name] for name in tables_of(kind) if name in self.recipe.tables}
        if "generator" not in kind.needs:  # it samples nothing, whatever is known of the generator
            tables = {name: attrs.evolve(t, config=without_sampler_options(t.config)) for name, t in tables.items()}
        return tables

    def _files(self, stage: NamedStage) -> dict[str, str]:
        """What the files hold that options of a stage and its tables name, by path; notes when one was written last."""
        tables = {name: table for name, table in self._tables(stage).items() if name != "data"}
        paths = paths_in([stage.spec, *tables.values()])
        found = {path: self.look_at(path) for path in paths}
        self._changed[stage.name] = max((file.changed for file in found.values() if file is not None), default=0.0)
        return {
            str(path): recorded_content(self.record, stage.name, path) if file is None else file.content
            for path, file in found.items()
        }

    def _shape(
        self, stage: NamedStage, shaped: Callable[[Spec], Mapping[str, Any]], files: Mapping[str, str]
    ) -> dict[str, Any]:
        """What shapes the result of a stage, besides its inputs and its code; `shaped` says what of each table does."""
        tables = self._tables(stage)
        return {
            **({"files": files} if files else {}),
            "stage": shaping(stage.spec),
            "name": stage.name,
            "tables": {name: shaped(spec) for name, spec in tables.items()},
            "data": self.data() if "data" in tables else None,
            "run": [self.recipe.run.seed, self.recipe.run.precision],
        }

    def _code(self, stage: NamedStage) -> Code:
        loaded = [self.loaded.get(name) for name in stage.spec.factory.needs]
        return code_of([stage.spec, self._tables(stage), loaded], self.registry)

    @staticmethod
    def _with_code(shape: Mapping[str, Any], code: Code) -> str:
        """The fingerprint of a stage of this shape and these inputs that is made with this code."""
        part = shaping_code(code)
        return fingerprint_of({**shape, "code": part} if part else shape)

    def _fingerprint(self, stage: NamedStage, shapes: Sequence[Mapping[str, Any]], without_code: Sequence[str]) -> str:
        """The fingerprint of a stage, whose shapes have inputs: that of an earlier version, if it was begun with it."""
        known = [self._with_code(shape, self.code[stage.name]) for shape in shapes]
        begun = [own for own in known if self._state(stage, own) != "new" and self._read_these_files(stage, own)]
        own = (*begun, *known)[0]
        if self._state(stage, own) == "done":
            return own
        return self._finished_with_old_code(stage, shapes, without_code) or self._due(stage, own)

    def _state(self, stage: NamedStage, fingerprint: str) -> str:
        state: str = self._entry(stage, fingerprint).get("state", "new")
        return state

    def _entry(self, stage: NamedStage, fingerprint: str) -> Mapping[str, Any]:
        entry: Mapping[str, Any] = self.record["stages"].get(f"{stage.name}-{fingerprint}", {})
        return entry

    def _read_these_files(self, stage: NamedStage, fingerprint: str) -> bool:
        """Whether a stage that was begun read the files that its options name as they are now."""
        files = self.made_from[stage.name].files or {}
        return may_be_made_from(self._entry(stage, fingerprint), files, self._changed[stage.name])

    def _finished_with_old_code(
        self, stage: NamedStage, shapes: Sequence[Mapping[str, Any]], without_code: Sequence[str]
    ) -> str | None:
        """The fingerprint of a finished stage that differs in its code only, if that is accepted; `shapes` have inputs.

        Where an earlier version did not record the code, it is accepted: nothing says that it changed. What was made
        from other inputs than the stage would read now, or is damaged, is never accepted: it would be made again with
        the new code under the fingerprint of the old one.
        """
        found = finished_with_other_code(self.record, stage.name, without_code)
        others = [(other, entry) for other, entry in found if self._read_these_files(stage, other)]
        for other, entry in others:
            code = recorded_code(entry)
            if (code is None or self.accept_old_code) and self._made_from(shapes, code, other):
                if damage := self.damage(stage, other):
                    self.say(f"{damage}; what {stage.name} made with other code is not taken")
                    continue
                why = self._why(stage, code)
                self.say(f"{stage.name}: {why}{'' if code is None else ' since it was done; accepted'}")
                return other
        if others:
            hint = "" if self.accept_old_code else " (--accept-old-code takes what it made before)"
            self.again[stage.name] = f"{self._why(stage, recorded_code(others[0][1]) or {})}{hint}"
        return None

    def _due(self, stage: NamedStage, own: str) -> str:
        """Its own fingerprint, for a stage that is not done; notes what changed since it was done in this folder."""
        if stage.name not in self.again and self._state(stage, own) == "new":
            why = why_again(self.record, stage.name, self.made_from[stage.name], self.code[stage.name])
            if why is not None:
                self.again[stage.name] = why
        return own

    def _made_from(self, shapes: Sequence[Mapping[str, Any]], code: Code | None, fingerprint: str) -> bool:
        """Whether this is the fingerprint of a shape, inputs included, with this code; versions before named none."""
        return any(fingerprint in (fingerprint_of(shape), self._with_code(shape, code or {})) for shape in shapes)

    def _why(self, stage: NamedStage, code: Code | None) -> str:
        if code is None:
            return "which plugin code made it is not recorded; it is taken as it is"
        changed = differences(code, self.code[stage.name])
        return f"the code of {', '.join(changed)} changed" if changed else "what it reads is made by other code"


def shaping(spec: Spec) -> dict[str, Any]:
    """A component's table without the options that do not affect the result (`metadata={"result": False}`)."""
    return {"use": spec.name, **shaping_options(spec.config)}


def _with_places(spec: Spec) -> dict[str, Any]:
    """As `shaping` once was: with the table's own options that do not affect the result."""
    return {"use": spec.name, **plain_options(spec.config)}


#: What of a table is part of a fingerprint, and whether what files hold is, in this version and in earlier ones: in
#: those, files counted by their path only, and where the data lies counted, too.
_VERSIONS: tuple[tuple[Callable[[Spec], Mapping[str, Any]], bool], ...] = (
    (shaping, True),
    (shaping, False),
    (_with_places, False),
)


def _with_inputs(shape: Mapping[str, Any], inputs: Mapping[str, str], needs: Sequence[str]) -> dict[str, Any]:
    return {**shape, "inputs": {name: inputs[name] for name in needs}}
