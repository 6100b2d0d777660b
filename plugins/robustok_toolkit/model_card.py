"""The model card of a tokenizer on the Hugging Face hub: what it is, what it was trained on, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from robustok_core import __version__
from robustok_core.runs.conditions import read_conditions
from robustok_core.runs.history import RECIPE_FILE
from robustok_core.runs.results import RESULTS_FILE, read_results
from robustok_core.values.numbers import number_text
from robustok_core.values.result import Result

_NOT_STATED = "not stated"


@frozen(kw_only=True)
class CardFacts:
    """What a card says.

    Attributes:
        repository: "OWNER/NAME". record: the content of the artifact's component.json.
        tokenizer: the module, which may be on the meta device.
        run: the folder of the run whose tokenizer it is; None if it comes from no run.
        licence: as the hub calls it ("apache-2.0"); None if it is not stated.
    """

    repository: str
    record: Mapping[str, Any]
    tokenizer: Any
    run: Path | None
    licence: str | None


def model_card(facts: CardFacts) -> str:
    """The text of the card, with the hub's metadata.

    Raises:
        RobustokError: the run's results are damaged.
    """
    from huggingface_hub import ModelCardData

    metadata = ModelCardData(
        license=facts.licence, library_name="robustok", tags=["image-tokenizer", str(facts.record["table"]["use"])]
    )
    parts = [f"---\n{metadata.to_yaml()}\n---", *_parts(facts)]
    return "\n\n".join(parts) + "\n"


def _parts(facts: CardFacts) -> Iterator[str]:
    tokenizer = facts.tokenizer
    millions = sum(parameter.numel() for parameter in tokenizer.parameters()) / 1e6
    size = f"{tokenizer.image_size} x {tokenizer.image_size}"
    yield f"# {facts.repository.partition('/')[2]}"
    yield (
        f"An image tokenizer, `{facts.record['table']['use']}` of robustok {__version__}, for images of {size} pixels: "
        f"{tokenizer.space.describe()}; {number_text(millions, 4)} M parameters."
    )
    yield f"""```python
import robustok

tokenizer = robustok.from_pretrained("{facts.repository}")
latents = tokenizer.encode_images(["photo.png"])
tokenizer.decode_to_images(latents)[0].save("again.png")
```"""
    yield "## Training\n\n" + "\n".join(f"- {line}" for line in _origin(facts))
    yield "## Measured\n\n" + _measured(facts.run)
    yield f"## Licence\n\n{facts.licence or _NOT_STATED}"
    if facts.run is not None:
        recipe = (facts.run / RECIPE_FILE).read_text(encoding="utf-8").strip()
        yield f"## Recipe\n\nWith every default, as `robustok run` takes it:\n\n````toml\n{recipe}\n````"


def _origin(facts: CardFacts) -> Iterator[str]:
    record = facts.record
    if facts.run is not None:
        import tomli

        recipe = tomli.loads((facts.run / RECIPE_FILE).read_text(encoding="utf-8"))
        data = recipe.get("data", {})
        options = ", ".join(f"{key} = {value}" for key, value in data.items() if key != "use")
        yield f"data: `{data.get('use')}` ({options})"
        yield f"stages: {', '.join(stage['name'] for stage in recipe['stage'])}; seed {recipe['run']['seed']}"
    if "imported_from" in record:
        checksum = f", SHA-256 {record['sha256']}" if "sha256" in record else ""
        yield f"weights imported from `{record['imported_from']}`{checksum}"
    if record.get("post_trained") is not None:
        yield f"decoder post-trained for sigma = {record['post_trained']}"
    if facts.run is None and "imported_from" not in record:
        yield _NOT_STATED


def _measured(run: Path | None) -> str:
    """A table of a run's results, with the numbers of images that they depend on and what they were measured with."""
    if run is None or not (run / RESULTS_FILE).is_file():
        return "Nothing was measured."
    conditions = read_conditions(run)
    lines = ["| stage/result | value | images | real images | measured with |", "|---|---|---|---|---|"]
    for name, result in read_results(run).items():
        images, reference = _count(result.num_images), _count(result.num_reference)
        own = {key: value for key, value in conditions.of(name, result).items() if key not in conditions.common}
        lines.append(f"| {name} | {number_text(result.value, 6)} | {images} | {reference} | {_how(result, own)} |")
    common = "; ".join(f"{key}: {value}" for key, value in conditions.common.items() if not key.startswith("data."))
    return "\n".join([*lines, "", f"All with {common}."] if common else lines)


def _count(number: int | None) -> str:
    return "" if number is None else "statistics only" if number == 0 else f"{number:,}"


def _how(result: Result, conditions: Mapping[str, str]) -> str:
    """What a result was measured with: its own conditions, and those of its details that are texts."""
    texts = {**conditions} | {key: value for key, value in result.details.items() if isinstance(value, str)}
    return " ".join("; ".join(f"{key}: {value}" for key, value in texts.items()).split()).replace("|", "\\|")
