"""A frozen table behind a learned linear layer."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from project import Project
from robustok_core.errors import RobustokError
from robustok_core.recipe.registry import load_registry


def make():
    torch.manual_seed(0)
    return load_registry().build(
        "quantizer", {"use": "projected_vq", "codebook_size": 16, "width": 3, "table_width": 6}
    )


def tokens() -> Tensor:
    return torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))


def test_codewords_are_a_linear_map_of_the_table_and_the_nearest_is_chosen():
    quantizer, z = make().eval(), tokens()
    codewords = quantizer.table @ quantizer.projection.weight.T + quantizer.projection.bias
    torch.testing.assert_close(quantizer.codebook, codewords)
    latents = quantizer.quantize(z)
    assert torch.equal(latents.codes, torch.cdist(z, codewords).argmin(-1))


def test_all_codewords_move_together_and_the_table_stays():
    quantizer, z = make().train(), tokens().requires_grad_()
    assert "table" not in dict(quantizer.named_parameters())
    before, table = quantizer.codebook.detach().clone(), quantizer.table.clone()
    quantizer.quantize(z).losses["codebook"].backward()
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter -= 0.1 * parameter.grad
    assert torch.equal(quantizer.table, table)
    assert ((quantizer.codebook - before).abs().sum(1) > 0).all()


def test_the_losses_have_their_published_weights():
    quantizer, z = make().train(), tokens()
    latents = quantizer.quantize(z)
    error = (quantizer.codebook[latents.codes] - z).square().mean()
    torch.testing.assert_close(latents.losses["commitment"], error)
    torch.testing.assert_close(latents.losses["codebook"], 0.33 * error)


# --- a table from a file --------------------------------------------------------------------------

ROWS = torch.randn(16, 6, generator=torch.Generator().manual_seed(2))
SIZE = {"use": "projected_vq", "codebook_size": 16, "width": 3, "table_width": 6}


@pytest.mark.parametrize("content", [ROWS, {"weight": ROWS, "steps": 3}, ROWS.double()])
def test_the_rows_of_a_file_are_the_table(content, tmp_path):
    torch.save(content, tmp_path / "codebook.pth")
    quantizer = load_registry().build("quantizer", {**SIZE, "table": str(tmp_path / "codebook.pth")})
    assert torch.equal(quantizer.table, ROWS)


def test_a_trained_tokenizer_does_not_need_the_file_again(tmp_path):
    save_file({"rows": torch.randn(16, 6)}, tmp_path / "codebook.safetensors")
    quantizer = {**SIZE, "table": str(tmp_path / "codebook.safetensors")}
    project = Project(tmp_path, tokenizer={"quantizer": quantizer}, perturbation={"delta": 2}).run()
    expected = load_file(tmp_path / "codebook.safetensors")["rows"]
    (tmp_path / "codebook.safetensors").unlink()
    assert torch.equal(project.component("tokenizer").quantizer.table, expected)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ROWS[:8], r"must hold \(16, 6\) finite floats, found \(8, 6\) float32"),
        (ROWS.long(), r"found \(16, 6\) int64"),
        (ROWS * torch.nan, "finite floats"),
        ({"a": ROWS, "b": ROWS}, "one matrix, found 2"),
        ({"a": 1}, "one matrix, found 0"),
    ],
)
def test_a_file_of_something_else_is_one_message(content, words, tmp_path):
    torch.save(content, tmp_path / "codebook.pth")
    with pytest.raises(RobustokError, match=words) as caught:
        load_registry().build("quantizer", {**SIZE, "table": str(tmp_path / "codebook.pth")})
    assert caught.value.where == str(tmp_path / "codebook.pth")


def test_a_file_that_is_not_there_is_refused_before_anything_runs(tmp_path):
    project = Project(tmp_path, tokenizer={"quantizer": {**SIZE, "table": "nowhere.pth"}}, perturbation={"delta": 2})
    with pytest.raises(RobustokError, match="set table to a file of the frozen rows"):
        project.check()
