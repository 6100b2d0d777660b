"""Every component does what its kind promises."""

import pytest
from robustok.testing import check_component
from robustok_core import load_registry
from safetensors.torch import save_file

REGISTRY = load_registry()
COMPONENTS = [entry for entry in REGISTRY.entries() if entry.plugin == "example" and entry.kind != "importer"]


@pytest.mark.parametrize("entry", COMPONENTS, ids=lambda entry: f"{entry.kind} {entry.name}")
def test_it_does_what_its_kind_promises(entry):
    check_component(entry.kind, entry.name, registry=REGISTRY)


def test_the_importer_reads_what_it_writes(tmp_path):
    tokenizer = REGISTRY.build("tokenizer", {"use": "patches"})
    save_file(REGISTRY.build("importer", {"use": "patches_file"}).export(tokenizer), tmp_path / "theirs.safetensors")
    check_component("importer", "patches_file", registry=REGISTRY, file=tmp_path / "theirs.safetensors")
