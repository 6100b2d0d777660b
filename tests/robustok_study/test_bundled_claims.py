"""The bundled study of the paper's claims, at toy size: from its file to a verdict on each claim."""

from __future__ import annotations

from pathlib import Path

import tomli
import tomli_w

from robustok_core.recipe.source import bundled_studies
from robustok_study.record import read_study

TOY = {
    "data": {"train_limit": 80, "validation_limit": 40},
    "tokenizer": {"channels": 8, "stem_patch": 4, "channel_multipliers": [1, 1], "norm_groups": 4, "z_channels": 8},
    "tokenizer.quantizer.codebook_size": 32,
    "generator": {"width": 16, "depth": 1, "num_heads": 2},
    "stage": {
        "train_tokenizer": {"epochs": 1, "batch_size": 16},
        "evaluate_tokenizer": {"limit": 20, "pictures": 0, "metrics.pfd": {"alphas": [0.5], "deltas": [4]}},
        "train_generator": {"epochs": 1, "batch_size": 16},
        "sample.num_samples": 20,
        "evaluate_generator.metrics.kid.subset_size": 10,
        "make_pairs.num_pairs": 16,
        "post_train": {"epochs": 2, "batch_size": 8},
        "compare_decoders": {"num_samples": 20, "limit": 20, "tokenizer_metrics.pfd": {"alphas": [0.5], "deltas": [4]}},
    },
}


def test_the_claims_are_decided_at_toy_size(command):
    table = tomli.loads(bundled_studies()["study/claims"].read_text(encoding="utf-8"))
    table["quick"] = {"seeds": [0], "set": TOY}
    Path("claims.toml").write_text(tomli_w.dumps(table))
    code, output, errors = command("study", "claims.toml", "--quick", "--jobs", "2")
    assert code == 0, output + errors
    record = read_study(Path("runs/claims-quick"))
    assert record.missing == []
    assert {metric.label: metric.problem for metric in record.metrics} == dict.fromkeys(table["metrics"])
    assert all(claim.difference is not None for claim in record.claims)
    assert {claim.reason for claim in record.claims} == {"1 of the 3 seeds that a verdict needs at least"}
