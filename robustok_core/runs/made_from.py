"""From what a stage's result was made, in parts, so that a stage that runs again can say which of them changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from robustok_core.runs.code import Code, differences, recorded_code
from robustok_core.runs.fingerprints import fingerprint_of
from robustok_core.runs.run_record import MadeFrom

_SPLITS = ("training", "validation")


def made_from(shape: Mapping[str, Any], files: Mapping[str, str]) -> MadeFrom:
    """The parts of what a fingerprint is made of; `files`: what the files hold that options name, by path."""
    settings = {name: value for name, value in shape.items() if name not in ("data", "inputs", "files")}
    data, inputs = list(shape["data"] or ()), dict(shape["inputs"])
    return MadeFrom(settings=fingerprint_of(settings), data=data, inputs=inputs, files=dict(files))


def why_again(record: Mapping[str, Any], stage: str, now: MadeFrom, code: Code) -> str | None:
    """What changed since a stage of this name was done last; None if it never was, or an earlier version ran it.

    Args:
        record: the content of run.json. now, code: from what the stage is made now.
    """
    entry = _last_done(record, stage)
    return None if entry is None or "made_from" not in entry else _named(changes(entry, now, code))


def changes_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two entries of one stage in run.json; nothing if that is not recorded."""
    if "made_from" not in old or "made_from" not in new:
        return []
    return changes(old, MadeFrom(**new["made_from"]), recorded_code(new) or {})


def changes(old: Mapping[str, Any], now: MadeFrom, code: Code) -> list[str]:
    """What of that from which a stage is made differs from an entry of run.json that has `made_from`."""
    before = MadeFrom(**old["made_from"])
    found = ["its settings"] if before.settings != now.settings else []
    if len(before.data) == len(now.data):
        changed = [name for name, a, b in zip(_SPLITS, before.data, now.data, strict=False) if a != b]
        found += [f"the {' and '.join(changed)} images (files, sizes, content or labels)"] if changed else []
    elif before.data or now.data:
        found.append("whether it reads images")
    names = dict.fromkeys([*before.inputs, *now.inputs])
    found += [f"the {name} that it reads" for name in names if before.inputs.get(name) != now.inputs.get(name)]
    found += _changed_files(before.files or {}, now.files or {})
    if (recorded := recorded_code(old)) is not None and (other := differences(recorded, code)):
        found.append(f"the code of {', '.join(other)}")
    if not found and before.files is None:  # of an earlier version, which did not record what files hold
        return [f"{path}, or the time at which it was written," for path in now.files or ()]
    return found


def _changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [f"the content of {path}" for path, content in now.items() if path in before and before[path] != content]


def recorded(parts: MadeFrom) -> dict[str, Any]:
    """What run.json holds of it."""
    return attrs.asdict(parts)


def _named(found: list[str]) -> str | None:
    return f"{' and '.join(found)} changed" if found else None


def _last_done(record: Mapping[str, Any], stage: str) -> Mapping[str, Any] | None:
    """The entry of the stage in the folder's recipe if it is done there, else the one that was finished last."""
    current = record["stages"].get(f"{stage}-{record.get('current', {}).get(stage)}", {})
    if current.get("state") == "done":
        return dict(current)
    done = [
        entry for key, entry in record["stages"].items() if key.rpartition("-")[0] == stage and entry["state"] == "done"
    ]
    return max(done, key=lambda entry: entry.get("finished") or "", default=None)
