"""`robustok evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from robustok_core.kinds.features import Features
    from robustok_core.kinds.sample_metric import ImageFeatures, SampleMetric
    from robustok_core.recipe.registry import Registry
    from robustok_core.values.result import Result
    from robustok_core.values.spec import Spec
    from robustok_toolkit.image_features import KnownNetworkFeatures

_STANDARD = ("frechet", "inception_score", "precision_recall")
_SIZES_HINT = "resize one of the sets; with --mixed-sizes they are compared as they are, the network resizes both"


@click.command()
@click.argument("samples", type=click.Path(path_type=Path))
@click.argument("reference", required=False, type=click.Path(path_type=Path))
@click.option("--features", default="inception", show_default=True, metavar="NAME", help="Feature network.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="A sample metric; default: the standard ones.")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Set an option, e.g. inception_score.splits=5."
)
@click.option("--batch-size", default=100, show_default=True, type=click.IntRange(1), help="Images per batch.")
@click.option("--workers", default=0, show_default=True, type=click.IntRange(0), help="Processes that load images.")
@click.option("--device", metavar="NAME", help="Device (cpu, cuda:1); default: the GPU if there is one.")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Folder that stores features of references for later calls."
)
@click.option("--mixed-sizes", is_flag=True, help="Compare sets of pictures of different sizes, too.")
@click.option("--out", type=click.Path(path_type=Path), help="New JSON file for the results.")
@click.option("--json", "as_json", is_flag=True, help="Print what --out writes; notes go to standard error.")
@click.option("-q", "--quiet", is_flag=True, help="Print the results without notes and progress.")
def evaluate(
    samples: Path,
    reference: Path | None,
    features: str,
    metrics: tuple[str, ...],
    changes: tuple[str, ...],
    batch_size: int,
    workers: int,
    device: str | None,
    cache: Path | None,
    mixed_sizes: bool,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare SAMPLES with a REFERENCE: each a .npz file with arr_0 (ADM's sample file) or a folder of images.

    The reference may also hold statistics (mu, sigma) of the published Inception's features, as ADM's references do.
    `features.KEY` sets options of the network: --set features.weights=FILE.
    """
    from robustok_core.runs.devices import device_called
    from robustok_core.runs.downloads import provide
    from robustok_core.runs.results import tables_of
    from robustok_core.runs.summary import print_results
    from robustok_core.values.terminal import make_console, say
    from robustok_toolkit.feature_files import open_features
    from robustok_toolkit.image_features import Extraction, SharedFeatures
    from robustok_toolkit.new_files import require_new

    reference = _checked_sets(samples, reference)
    if out is not None:
        require_new(out)
    console = make_console(quiet=quiet, err=as_json)
    network, specs = _network_and_metrics(features, metrics or _STANDARD, changes)
    chosen: dict[str, SampleMetric] = {name: spec.build() for name, spec in specs.items()}
    torch_device = device_called(device, where="--device")
    networks = SharedFeatures(torch_device)
    extraction = Extraction(
        networks=networks, device=torch_device, batch_size=batch_size, workers=workers, console=console
    )
    generated, real = open_features(samples, extraction), open_features(reference, extraction, cache=cache)
    real.open_other = lambda name, limit: open_features(Path(name).expanduser(), extraction, cache=cache, limit=limit)
    _check_sizes(generated, real, mixed_sizes)
    if metrics:
        _check_sets(chosen, specs, generated, real, reference, mixed_sizes)
    about = _sets(samples, generated, reference, real)
    provide(specs if network is None else {"features": network, **specs}, partial(say, console))
    if network is not None:
        about |= {"features": networks(network).fingerprint, "network": network.table()}
        if not metrics:
            chosen = dict(_possible(chosen, networks(network), real, console))
            _check_sets(chosen, specs, generated, real, reference, mixed_sizes)
    _check_each(chosen, lambda name: chosen[name].check_features(networks, real.statistics))
    for note in _notes(generated, real, None if network is None else networks(network).width):
        say(console, f"note: {note}")
    results = _measured(chosen, generated, real)
    if not as_json:
        print_results(make_console(), results)
    about["metrics"] = {name: specs[name].table() for name in chosen}
    _keep({**about, "results": tables_of(results)}, out, as_json)


def _measured(
    metrics: Mapping[str, SampleMetric], samples: ImageFeatures, reference: ImageFeatures
) -> dict[str, Result]:
    from robustok_core.values.result import add_results

    results: dict[str, Result] = {}
    for key, metric in metrics.items():
        add_results(results, key, metric.compute(samples, reference))
    return results


def _sets(
    samples: Path, generated: KnownNetworkFeatures, reference: Path, real: KnownNetworkFeatures
) -> dict[str, Any]:
    """Which sets were compared: their paths and the sizes of their pictures, and a hash of the reference."""
    from robustok_core.runs.fingerprints import content_fingerprint
    from robustok_toolkit.image_features import ExtractedFeatures

    content = real.images.fingerprint if isinstance(real, ExtractedFeatures) else content_fingerprint(reference)
    return {
        "samples": str(samples),
        "reference": str(reference),
        "reference_content": content,
        "picture_sizes": [generated.picture_size, real.picture_size],
    }


def _keep(table: Mapping[str, Any], out: Path | None, as_json: bool) -> None:
    """Prints the results as JSON, or writes them, or both; what cannot be written was printed."""
    from robustok_core.runs.files import write_json
    from robustok_core.values.terminal import echo_json
    from robustok_toolkit.new_files import new_output

    if as_json:
        echo_json(table)
    if out is not None:
        with new_output(out) as unfinished:
            write_json(unfinished, table)


def _checked_sets(samples: Path, reference: Path | None) -> Path:
    """The reference; raises if there is none, or if a set is the folder of a run, with the files that may be meant."""
    from robustok_core.errors import RobustokError
    from robustok_core.runs.run_record import is_run

    for path in filter(None, (samples, reference)):
        if is_run(path):
            files = sorted(path.glob("artifacts/samples-*/samples.npz"))
            shown = f"`robustok evaluate {files[-1]} REFERENCE`" if files else "`robustok sample` makes samples"
            hint = f"its results are in {path / 'results.json'} (`robustok compare` shows them); its samples: {shown}"
            hint = hint if files else hint.replace("its samples: ", "")
            raise RobustokError("this is a run, not a set of images", where=str(path), hint=hint)
    if reference is None:
        raise click.UsageError("Missing argument 'REFERENCE'.", click.get_current_context())
    return reference


def _options(changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Options by metric, or by "features", from KEY=VALUE with KEY = METRIC.OPTION."""
    from robustok_core.errors import RobustokError

    options: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        owner, dot, option = key.partition(".")
        if option == "use":
            what = f"--set cannot exchange the component: {key}"
            raise RobustokError(what, hint="--features names the network, and --metric a metric")
        if not dot or "." in option:
            what = f"--set needs METRIC.OPTION=VALUE or features.OPTION=VALUE, found the key {key!r}"
            raise RobustokError(what, hint="for example --set inception_score.shuffle=true")
        options.setdefault(owner, {})[option] = value
    return options


def _network_and_metrics(
    features: str, names: tuple[str, ...], changes: Sequence[str]
) -> tuple[Spec | None, dict[str, Spec]]:
    """The feature network of all metrics that have one to choose, None if no metric has; and the metrics by name."""
    from robustok_core.errors import RobustokError
    from robustok_core.recipe.registry import load_registry
    from robustok_core.recipe.source import parse_override

    registry = load_registry()
    options = _options(dict(parse_override(change) for change in changes))
    of_network = options.pop("features", {})
    if unused := sorted(set(options) - set(names)):
        what = f"--set names the metric {unused[0]!r}, which is not measured"
        raise RobustokError(what, hint=f"metrics: {', '.join(names)}")
    choosing = [name for name in names if _has_features(registry, name)]
    given = click.get_current_context().get_parameter_source("features") is not ParameterSource.DEFAULT
    if not choosing and (given or of_network):
        where = "--features" if given else f"--set features.{next(iter(of_network))}"
        hint = f"`robustok plugins sample_metric {names[0]}` shows the options of {names[0]}, for --set"
        raise RobustokError("no metric that is measured has a network to choose", where=where, hint=hint)
    network = registry.spec("features", {"use": features, **of_network}) if choosing else None
    specs = {}
    for name in names:
        chosen = {"features": network.table()} if network is not None and name in choosing else {}
        table = {**chosen, **options.get(name, {}), "use": name}
        specs[name] = registry.spec("sample_metric", table, where=name)
    return network, specs


def _has_features(registry: Registry, name: str) -> bool:
    import attrs

    factory = registry.find("sample_metric", name)
    return isinstance(factory, type) and "features" in {option.name for option in attrs.fields(factory.Config)}  # type: ignore[attr-defined]


def _possible(
    metrics: Mapping[str, SampleMetric], net: Features, reference: ImageFeatures, console: Any
) -> Iterator[tuple[str, SampleMetric]]:
    """The standard metrics that this network and reference allow; prints a note for each of the others."""
    from robustok_core.values.terminal import say

    reasons = {
        "inception_score": f"{net.name} has no classifier" if net.num_logits == 0 else "",
        "precision_recall": "the reference has no images" if len(reference) == 0 else "",
    }
    for name, metric in metrics.items():
        if reasons.get(name):
            say(console, f"note: {name} left out: {reasons[name]}")
        else:
            yield name, metric


def _check_sets(
    metrics: Mapping[str, SampleMetric],
    specs: Mapping[str, Spec],
    generated: KnownNetworkFeatures,
    real: KnownNetworkFeatures,
    reference: Path,
    mixed_sizes: bool,
) -> None:
    """Refuses metrics that cannot be computed of these images, before networks are downloaded."""
    size = None if mixed_sizes else generated.picture_size
    counts = len(generated), len(real)
    _check_each(metrics, lambda name: _check_count(metrics[name], specs[name], name, *counts))
    _check_each(metrics, lambda name: _check_other_sets(metrics[name], specs[name], name, reference, size))


def _check_each(metrics: Iterable[str], check: Callable[[str], None]) -> None:
    """Makes a check for each metric and raises all problems that it finds, with the metric's name."""
    from robustok_core.errors import RobustokError, raise_all

    problems = []
    for name in metrics:
        try:
            check(name)
        except RobustokError as error:
            problems += [RobustokError(f"{name}: {each.placed}", hint=each.hint) for each in error.problems]
    raise_all(problems)


def _check_count(metric: SampleMetric, spec: Spec, name: str, samples: int, reference: int) -> None:
    """Refuses a metric that needs more images; hints have the syntax of --set."""
    import attrs

    from robustok_core.errors import RobustokError, raise_all

    try:
        metric.check(samples, reference)
    except RobustokError as error:
        options, fewest = [each.name for each in attrs.fields(type(spec.config))], min(samples, reference or samples)
        problems = []
        for each in error.problems:
            option = next((option for option in options if option in (each.hint or "").split()), None)
            change = "" if option is None else f", as with --set {name}.{option}={fewest}"
            problems.append(RobustokError(each.placed, hint=f"{each.hint or 'use more images'}{change}"))
        raise_all(problems)


def _check_other_sets(
    metric: SampleMetric, spec: Spec, name: str, reference: Path, size: tuple[int, int] | None
) -> None:
    """Refuses a metric that needs a further set of real images, unless one of its options names it.

    Args:
        size: height and width that its images must have; None if any will do.
    """
    from robustok_core.errors import RobustokError
    from robustok_core.values.spec import plain_options
    from robustok_toolkit.feature_files import require_no_statistics
    from robustok_toolkit.image_files import outline_of, shown_size

    for value in metric.other_sets():
        path = Path(value).expanduser()
        option = next(option for option, held in plain_options(spec.config).items() if held == value)
        hint = f"name a folder or file with --set {name}.{option}=PATH"
        if not path.exists():
            what = f"it needs a further set of real images, and there is no file or folder {value!r}"
            raise RobustokError(what, hint=hint)
        if path.resolve() == reference.resolve():
            what = f"it needs a further set of real images, but {value!r} is the reference"
            raise RobustokError(what, hint=hint)
        try:
            require_no_statistics(path)
        except RobustokError as error:
            raise RobustokError(error.what, where=error.where, hint=hint) from error
        found = outline_of(path).size
        if size is not None and size != found:
            what = f"the samples have {shown_size(size)} pixels, the images of {value} {shown_size(found)}"
            raise RobustokError(what, hint=_SIZES_HINT)


def _check_sizes(samples: KnownNetworkFeatures, reference: KnownNetworkFeatures, allowed: bool) -> None:
    """Refuses sets with pictures of different sizes, unless that is wanted.

    The distance would mostly tell blur from sharpness. ADM's evaluator does not look at the sizes.
    """
    from robustok_core.errors import RobustokError
    from robustok_toolkit.image_features import sizes_problem

    if not allowed and (problem := sizes_problem(samples, reference)) is not None:
        raise RobustokError(problem, hint=_SIZES_HINT)


def _notes(samples: KnownNetworkFeatures, reference: KnownNetworkFeatures, width: int | None) -> Iterator[str]:
    """Notes for the user, printed before the work begins; `width` is None if metrics have networks of their own."""
    from robustok_toolkit.image_features import singular_note, sizes_problem, sorted_note

    if (note := sizes_problem(samples, reference)) is not None:
        yield note

    for images in (samples, reference):
        if len(images) and width is not None and (note := singular_note(len(images), width)):
            yield f"{images.name}: {note}"
    if note := sorted_note(samples):
        yield f"{samples.name}: {note}"
