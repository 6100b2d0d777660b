"""Views as code: the Python program and the command that make the same images."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs import frozen

from robustok_core.values.guidance import Guidance
from robustok_core.values.ignored import changed_options
from robustok_core.values.spec import Spec, plain
from robustok_explorer.drawing import class_kept, generator_of, sample_guidance, sampler_options
from robustok_explorer.opened_run import OpenedRun
from robustok_explorer.views import STRENGTHS, Keep, Neighbours, Paint, Perturb, Sample
from robustok_toolkit.generator_of_command import guidance_of
from robustok_toolkit.guidance_search import recipe_line

#: How the lines begin that load the data.
_LOADS = ("recipe = ", "data = ")


@frozen(kw_only=True)
class Snippets:
    """A view as code.

    Attributes:
        python: a program. command: a line for a shell.
        files: names of the image files that both expect in the folder where they run.
        notes: what else there is to know, in sentences.
    """

    python: str
    command: str
    files: Sequence[str] = ()
    notes: Sequence[str] = ()


def of_perturb(run: OpenedRun, view: Perturb) -> Snippets:
    """The view `perturb` as code."""
    options = _said(view.perturbation)
    arguments = _arguments({"seed": view.seed, **options})
    lines = [
        *_tokenizers(run),
        *_images(run, view.image, view.file, view.num_images),
        "latents = tokenizer.encode_images(images)",
        f"made = tokenizer.perturbed(latents, {view.perturbation.name!r}, {arguments})",
        *_saved(run, "perturbed", "made"),
    ]
    changes: dict[str, Any] = {"num_images": view.num_images, "seed": view.seed}
    changes["perturbation"] = {"use": view.perturbation.name, **options}
    return _snippets(lines, _draw(run, "perturb", view.image, view.file, changes), view.file)


def of_keep(run: OpenedRun, view: Keep) -> Snippets:
    """The view `keep` as code."""
    label = class_kept(run.chosen(view.image, view.file), view)
    guidance = guidance_of(run.recipe, keeping=True)
    guided = {"guidance": guidance} if guidance.active else {}
    options = _arguments({**guided, "seed": view.seed, **sampler_options(run, keeping=True)})
    lines = [
        *_tokenizers(run),
        f"generator = robustok.load_generator({run.place!r}, tokenizer=tokenizer)",
        *_images(run, view.image, view.file, view.num_images),
        "latents = tokenizer.encode_images(images)",
        f"made = generator.sample_keeping(latents, {label!r}, {view.sigma!r}, {options})",
        *_saved(run, "regenerated", "made"),
    ]
    changes: dict[str, Any] = {"num_images": view.num_images, "sigma": view.sigma, "seed": view.seed}
    if view.file is not None:
        changes["class_of_file"] = view.class_of_file
    return _snippets(lines, _draw(run, "keep", view.image, view.file, changes), view.file)


def of_paint(run: OpenedRun, view: Paint) -> Snippets:
    """The view `paint` as code."""
    source, notes = _other_name(view.file, view.source_file)
    what = "codes" if run.tokenizer.tokenizer.space.codebook_size is not None else "vectors"
    lines = [
        *_tokenizers(run),
        *_images(run, view.image, view.file),
        f"{what} = tokenizer.encode_images(images).{what}",
        *_images(run, view.source, source),
        f"tokens = {sorted(set(view.tokens))}",
        f"{what}[:, tokens] = tokenizer.encode_images(images).{what}[:, tokens]",
        *_saved(run, "painted", f"robustok.Latents({what}={what})"),
    ]
    changes: dict[str, Any] = {"source": view.source, "tokens": sorted(set(view.tokens))}
    if source is not None:
        changes["source_file"] = source
        del changes["source"]
    return _snippets(lines, _draw(run, "paint", view.image, view.file, changes), view.file, source, notes=notes)


def of_neighbours(run: OpenedRun, view: Neighbours) -> Snippets:
    """The view `neighbours` as code."""
    count = min(view.count, run.tokenizer.tokenizer.space.codebook_size or view.count)
    lines = [
        *_tokenizers(run),
        *_images(run, view.image, view.file),
        "codes = tokenizer.encode_images(images).codes",
        f"own = codes[0, [{view.token}]]",
        "quantizer = tokenizer.tokenizer.quantizer",
        f"near = quantizer.nearest(quantizer.lookup(own), {count})[0]",
        "near = torch.cat([own, near[near != own]])[: len(near)]  # its own code first",
        "codes = codes.repeat(len(near), 1)",
        f"codes[:, {view.token}] = near",
        *_saved(run, "neighbour", "robustok.Latents(codes=codes)"),
    ]
    changes = {"token": view.token, "count": view.count}
    return _snippets(lines, _draw(run, "neighbours", view.image, view.file, changes), view.file, modules=["torch"])


def of_sample(run: OpenedRun, view: Sample) -> Snippets:
    """The view `sample` as code; its command is `robustok sample`."""
    options = sampler_options(run)
    guidance = sample_guidance(run, view)
    guidance = guidance if guidance.active else Guidance()
    chosen = {"n": view.count, "guidance": guidance, "seed": view.seed}
    names = generator_of(run).class_names
    name = None if view.class_ is None else names[int(generator_of(run).labels(view.class_, 1)[0])]
    lines = [
        *_tokenizers(run),
        f"generator = robustok.load_generator({run.place!r}, tokenizer=tokenizer)",
        f"made = generator.sample_latents({name!r}, {_arguments({**chosen, **options})})",
        *_saved(run, "sample", "made"),
    ]
    words = ["robustok", "sample", run.place]
    words += [] if name is None else ["--class", name]
    words += ["--count", str(view.count), "--guidance", f"{guidance.scale:g}", "--seed", str(view.seed)]
    for change in _changes(options):
        words += ["--set", change]
    notes = ["The command draws with the decoder after post-training only."] if len(run.tokenizers) > 1 else []
    if guidance != Guidance(scale=guidance.scale):
        notes += [f"The command guides with a constant scale: only the Python has {recipe_line(guidance)}."]
    return _snippets(lines, shlex.join([*words, "--out", "samples.png"]), notes=notes)


def _tokenizers(run: OpenedRun) -> list[str]:
    """Loads the newest tokenizer, and the one before post-training."""
    lines = {
        "": f"tokenizer = robustok.load_tokenizer({run.places.get('')!r})",
        "after": f"tokenizer = robustok.load_tokenizer({run.places.get('after')!r})",
        "before": f"before = robustok.load_tokenizer({run.places.get('before')!r})",
    }
    return [lines[name] for name in reversed(list(run.tokenizers))]


def _images(run: OpenedRun, image: int, file: str | None, count: int = 1) -> list[str]:
    """Makes `images`; `_snippets` keeps the lines that load the data once."""
    if file is not None:
        return [f"images = {[_name(file)]}"]
    recipe = f"{run.place}/recipe.toml"
    return [
        f"recipe = robustok.Recipe.load({recipe!r}).source.table",
        'data = robustok.load_registry().build("dataset", recipe["data"])',
        f"images = data.validation.load({list(run.chosen(image, None, count).rows)}).images",
    ]


def _saved(run: OpenedRun, stem: str, latents: str) -> list[str]:
    """Saves what each tokenizer decodes."""
    names = {"": "tokenizer", "before": "before", "after": "tokenizer"}
    lines = [] if latents == "made" else [f"made = {latents}"]
    for when in run.tokenizers:
        lines.append(f"for number, image in enumerate({names[when]}.decode_to_images(made)):")
        lines.append(f'    image.save(f"{stem}{when and "_" + when}_{{number}}.png")')
    return lines


def _snippets(
    lines: Sequence[str],
    command: str,
    *files: str | None,
    modules: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Snippets:
    imports = [f"import {module}" for module in ("robustok", *modules)]
    once = [line for number, line in enumerate(lines) if not line.startswith(_LOADS) or line not in lines[:number]]
    program = "\n".join([*imports, "", *once]) + "\n"
    names = dict.fromkeys(_name(file) for file in files if file is not None)
    return Snippets(python=program, command=command, files=list(names), notes=notes)


def _draw(run: OpenedRun, view: str, image: int, file: str | None, changes: Mapping[str, Any]) -> str:
    place = {"image": image} if file is None else {"file": _name(file)}
    words = ["robustok", "view", run.place, "--draw", view]
    for change in _changes({**place, **changes}):
        words += ["--set", change]
    return shlex.join([*words, "--out", f"{view}.png"])


def _said(perturbation: Spec) -> dict[str, Any]:
    """The options of a perturbation: its strengths, and what is not the default."""
    defaults = {option.name: option.default for option in attrs.fields(type(perturbation.config))}
    options = plain(perturbation.config)
    return {name: value for name, value in options.items() if name in STRENGTHS or value != defaults[name]}


def _changes(values: Mapping[str, Any]) -> list[str]:
    """KEY=VALUE as `--set` takes them; JSON's numbers, booleans, texts and lists are also TOML's."""
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in _flat(values).items()]


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Values by dotted path; what is None is left out."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}.")
        elif value is not None:
            flat[f"{above}{name}"] = value
    return flat


def _arguments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_code(value)}" for name, value in values.items() if value is not None)


def _code(value: Any) -> str:
    """A value as Python; of guidance the scale alone, if it says all."""
    if not isinstance(value, Guidance):
        return repr(plain(value))
    others = {name: getattr(value, name) for name in changed_options(value, *attrs.fields_dict(Guidance))}
    if others.keys() <= {"scale"}:
        return repr(value.scale)
    return f"robustok.Guidance({_arguments(others)})"


def _other_name(file: str | None, other: str | None) -> tuple[str | None, list[str]]:
    """The name of the second of two image files in one folder, and a note if it needs another name there."""
    if other is None or file is None or _name(file) != _name(other) or file == other:
        return other and _name(other), []
    stem, dot, ending = _name(other).rpartition(".")
    name = f"{stem}-2{dot}{ending}" if stem else f"{ending}-2"
    return name, [f"{name} is the second image called {_name(other)}: save it under this name."]


def _name(file: str) -> str:
    return file.replace("\\", "/").rpartition("/")[2]
