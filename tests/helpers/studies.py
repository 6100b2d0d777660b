"""A tiny study: two arms of a recipe that trains and measures a tokenizer in a second."""

from __future__ import annotations

from typing import Any

MEASURED = {"use": "fashion_classifier"}
EVALUATION = {
    "use": "evaluate_tokenizer",
    "pictures": 0,
    "metrics": {
        "psnr": {"use": "psnr"},
        "rfd": {"use": "frechet", "features": MEASURED},
        "pfd": {"use": "pfid", "features": MEASURED, "alphas": [0.5]},
    },
}


def study_table(**changes: Any) -> dict[str, Any]:
    """Two arms that share their tokenizer and measure it with and without a picture."""
    table = {
        "recipe": "r.toml",
        "seeds": [0, 1, 2],
        "metrics": {
            "PSNR": "evaluate_tokenizer/psnr",
            "pFD - rFD": "evaluate_tokenizer/pfd_fashion_classifier - evaluate_tokenizer/rfd_fashion_classifier",
        },
        "arm": [{"name": "one"}, {"name": "two", "set": {"stage": {"evaluate_tokenizer": {"pictures": 2}}}}],
        "claim": [
            {"text": "it falls", "metric": "PSNR", "arm": "two", "base": "one", "direction": "lower"},
            {"text": "it is high", "metric": "PSNR", "arm": "one", "direction": "higher", "than": 1.0},
        ],
    }
    return {key: value for key, value in (table | changes).items() if value is not None}
