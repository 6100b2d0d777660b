"""The model card of a component on the Hugging Face hub: what it is, what it was trained on, and what was measured."""

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
        component: a tokenizer or a generator, which may be on the meta device.
        tokenizer: the same tokenizer, or that of the generator.
        run: the folder of the run whose component it is; None if it comes from no run.
        licence: as the hub calls it ("apache-2.0"); None if it is not stated.
    """

    repository: str
    record: Mapping[str, Any]
    component: Any
    tokenizer: Any
    run: Path | None
    licence: str | None

    @property
    def is_generator(self) -> bool:
        """Whether the component is a generator, and not a tokenizer."""
        return bool(self.record["kind"] == "generator")


def model_card(facts: CardFacts) -> str:
    """The text of the card, with the hub's metadata.

    Raises:
        RobustokError: the run's results are damaged.
    """
    from huggingface_hub import ModelCardData

    kind = "image-generator" if facts.is_generator else "image-tokenizer"
    tags = [kind, str(facts.record["table"]["use"])]
    metadata = ModelCardData(license=facts.licence, library_name="robustok", tags=tags)
    parts = [f"---\n{metadata.to_yaml()}\n---", *_parts(facts)]
    return "\n\n".join(parts) + "\n"


def _parts(facts: CardFacts) -> Iterator[str]:
    yield f"# {facts.repository.partition('/')[2]}"
    yield _what(facts)
    yield f"```python\nimport robustok\n\n{_use(facts)}\n```"
    yield "## Training\n\n" + "\n".join(f"- {line}" for line in _origin(facts))
    yield "## Measured\n\n" + _measured(facts.run)
    yield f"## Licence\n\n{facts.licence or _NOT_STATED}"
    if facts.run is not None:
        recipe = (facts.run / RECIPE_FILE).read_text(encoding="utf-8").strip()
        yield f"## Recipe\n\nWith every default, as `robustok run` takes it:\n\n````toml\n{recipe}\n````"


def _what(facts: CardFacts) -> str:
    """What it is, in a sentence or two."""
    tokenizer, component = facts.tokenizer, facts.component
    size, use = f"{tokenizer.image_size} x {tokenizer.image_size}", facts.record["table"]["use"]
    name, space = f"`{use}` of robustok {__version__}", tokenizer.space.describe()
    if not facts.is_generator:
        return f"An image tokenizer, {name}, for images of {size} pixels: {space}; {_millions(component)}."
    return (
        f"An image generator, {name}, for {component.num_classes:,} classes and images of {size} pixels; "
        f"{_millions(component)}. Its tokenizer is in the folder tokenizer: {space}; {_millions(tokenizer)}."
    )


def _millions(module: Any) -> str:
    return f"{number_text(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 4)} M parameters"


def _use(facts: CardFacts) -> str:
    """Lines of Python that use it."""
    if not facts.is_generator:
        return (
            f'tokenizer = robustok.from_pretrained("{facts.repository}")\n'
            'latents = tokenizer.encode_images(["photo.png"])\n'
            'tokenizer.decode_to_images(latents)[0].save("again.png")'
        )
    return (
        f'generator = robustok.from_pretrained("{facts.repository}")\n'
        'generator.sample_images(0, n=1)[0].save("sample.png")  # of class 0\n'
        "tokenizer = generator.tokenizer"
    )


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
        sigmas = record.get("rounds") or []
        rounds = f", in {len(sigmas)} rounds" if len(sigmas) > 1 else "" if sigmas else ", in its last round"
        said = ", ".join(f"{sigma:g}" for sigma in sigmas or [record["post_trained"]])
        yield f"decoder post-trained for sigma = {said}{rounds}"
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
