"""Which stages of a recipe are finished, and which must run: also again, where an artifact is damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robustok_core.recipe.recipe import NamedStage
from robustok_core.runs.folder import RunFolder
from robustok_core.runs.manifest import Damage, folder_damage


def damaged_artifacts(
    folder: RunFolder, stages: Sequence[NamedStage], fingerprints: Mapping[str, str]
) -> tuple[list[str], dict[str, Damage]]:
    """The stages that must run, and of those that were finished before, the damage because of which they must.

    A stage is finished if its artifacts have the right files and sizes. What a stage reads that must run is compared
    with its hashes too.

    Args:
        folder: the run. stages: in order. fingerprints: of the stages by name.
    """
    due: set[str] = set()
    damages: dict[str, Damage] = {}

    def look(stage: NamedStage, artifacts: Sequence[str], *, contents: bool) -> None:
        for artifact in artifacts:
            damage = folder_damage(folder.artifact(artifact, fingerprints[stage.name]), contents=contents)
            if damage is not None:
                due.add(stage.name)
                damages.setdefault(stage.name, damage)

    for stage in stages:
        if folder.stage(stage.name, fingerprints[stage.name])["state"] == "done":
            look(stage, stage.spec.factory.makes, contents=False)
        else:
            due.add(stage.name)
    for stage, inputs in reversed(_inputs(stages)):  # makers come before readers, so each is seen after its readers
        for artifact, maker in inputs.items() if stage.name in due else ():
            if maker.name not in due:
                look(maker, [artifact], contents=True)
    return [stage.name for stage in stages if stage.name in due], damages


def _inputs(stages: Sequence[NamedStage]) -> list[tuple[NamedStage, dict[str, NamedStage]]]:
    """Each stage, and the stages that make what it reads, by artifact; what [load] gives is left out."""
    found = []
    makers: dict[str, NamedStage] = {}
    for stage in stages:
        found.append((stage, {name: makers[name] for name in stage.spec.factory.needs if name in makers}))
        makers |= dict.fromkeys(stage.spec.factory.makes, stage)
    return found
