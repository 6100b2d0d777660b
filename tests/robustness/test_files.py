"""Whatever happens to a file: it is read or refused with one message; where its hash is recorded, damage is noticed."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mutations import damaged_bytes, damaged_json, damaged_weights
from readers import IMPORTERS, Kind, kinds_of_project, kinds_of_published, published_weights
from robustok_core import RobustokError
from robustok_core.runs.manifest import folder_damage
from tried import inputs, trying

#: Of each kind of file, in CI.
TRIES = 15
PROJECT = (
    *("tokenizer record", "generator record", "weights", "opponents", "latents index", "latents labels"),
    *("latents shard", "pairs index", "pairs rows", "samples index", "samples", "codes", "encoded", "decoders index"),
    *("checkpoint values", "checkpoint tensors", "results", "evaluated", "step log"),
)
PUBLISHED = (*IMPORTERS, "zip.pt", "legacy.pt", "shard index", "shard")


@pytest.fixture(scope="module")
def kinds(trained, tmp_path_factory) -> dict[str, Kind]:
    """Every kind of file, in a folder where it may be damaged."""
    folder = tmp_path_factory.mktemp("kinds")
    later = trained.later(folder / "out", ("make_pairs", "post_train"), load=("tokenizer", "generator")).run()
    return kinds_of_project(trained, later, folder / "project") | kinds_of_published(folder / "published")


def test_every_kind_is_tried(kinds):
    assert set(kinds) == {*PROJECT, *PUBLISHED}


@pytest.mark.soak
@pytest.mark.parametrize("name", [*PROJECT, *PUBLISHED])
def test_a_damaged_file_is_read_or_refused_with_one_message(kinds, name):
    kind = kinds[name]
    content = kind.file.read_bytes()

    @inputs(TRIES)
    @given(seed=st.integers(0, 2**32))
    def check(seed):
        random = Random(seed)
        as_json = kind.file.suffix == ".json" and random.random() < 0.7
        kind.file.write_bytes((damaged_json if as_json else damaged_bytes)(content, random))
        fault = "a file of a run is damaged" if name in PROJECT else "a published file is damaged"
        with trying(fault, name.encode() + kind.file.read_bytes()):
            found = assert_read_or_refused(kind)
            if kind.recorded is not None:
                unchanged = kind.file.read_bytes() == content
                assert (folder_damage(kind.recorded) is None) == unchanged, "the manifest tells"
            elif name == "results" and found is not None:
                assert found == good, "run.json tells"

    good = kind.read()
    try:
        check()
    finally:
        kind.file.write_bytes(content)
    kind.read()


@pytest.mark.soak
@pytest.mark.parametrize("name", IMPORTERS)
def test_a_published_model_with_other_weights_is_read_or_refused_with_one_message(kinds, name):
    kind, weights = kinds[name], published_weights(name)
    content = kind.file.read_bytes()

    @inputs(TRIES)
    @given(seed=st.integers(0, 2**32))
    def check(seed):
        save_file(damaged_weights(weights, Random(seed)), kind.file)
        with trying("a published file has other weights", name.encode() + kind.file.read_bytes()):
            assert_read_or_refused(kind)

    try:
        check()
    finally:
        kind.file.write_bytes(content)


def assert_read_or_refused(kind: Kind) -> Any:
    """Returns what is read, or None if it is refused.

    Fails if reading raises anything but an error that users see, or if its message is not a message.
    """
    try:
        return kind.read()
    except RobustokError as error:
        message = error
    assert message.what.strip()
    assert message.where is not None
    assert len(str(message)) < 2000, "a message, not a dump"
    return None
