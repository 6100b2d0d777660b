"""The page: controls on the left, a tab for each view. It decides nothing; `answers.py` says what to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from attrs import frozen

from robustok_core.errors import RobustokError
from robustok_core.values.guidance import Guidance
from robustok_core.values.images import to_uint8
from robustok_explorer.answers import answer
from robustok_explorer.markup import images_html, message_html, note_html, text, tokens_html
from robustok_explorer.opened_run import OpenedRun
from robustok_explorer.perturbations import Offered, offered_by, why_not_own
from robustok_explorer.views import STRENGTHS
from robustok_toolkit.generator_of_command import guidance_of
from robustok_toolkit.guidance_search import recipe_line

_ASSETS = Path(__file__).parent / "assets"
CSS = (_ASSETS / "explorer.css").read_text(encoding="utf-8")
_CHOOSE, _COPY = ((_ASSETS / name).read_text(encoding="utf-8") for name in ("choose.js", "copy.js"))
_MARK = "(on) => { document.body.classList.toggle('rx-unmarked', !on); }"
#: Images of a class that are shown at once.
_AT_ONCE = 24
#: An event that answers the last of several quick changes, without a sign of waiting. It is queued if it sets a state:
#: only then does gradio tell those who watch that state.
_QUIET: Mapping[str, Any] = {
    "show_progress": "hidden",
    "trigger_mode": "always_last",
    "api_visibility": "private",
}

#: What the one decoder of a run is, by whether it is post-trained.
_ALONE: Mapping[bool | None, str] = {
    True: "decoded after post-training; the decoder before it is not in this run",
    False: "without post-training",
    None: "decoded by a published decoder, of which it is not known whether it is post-trained",
}

#: Makes a view's settings of its controls' values.
Adapt = Callable[[dict[str, Any]], Mapping[str, Any]]


@frozen(kw_only=True)
class _Picked:
    """The state of an image picker: `image`, the number of a validation image, and `file`, or None."""

    image: gr.State
    file: gr.State


@frozen(kw_only=True)
class _Place:
    """Where a view is: its page, the control that chooses the view, and its name there."""

    page: gr.Blocks
    views: gr.Radio
    name: str

    def on(self, triggers: Sequence[Any], answer: Callable[..., Any], inputs: Sequence[Any], outputs: Any) -> None:
        """Answers when the page is opened, the view is chosen, or a trigger fires; not while another view is shown."""

        def if_shown(chosen: str, *values: Any) -> Any:
            if chosen != self.name:
                return gr.skip() if not isinstance(outputs, list) else [gr.skip()] * len(outputs)
            return answer(*values)

        gr.on(
            [self.page.load, self.views.change, *triggers],
            if_shown,
            [self.views, *inputs],
            outputs,
            queue=False,
            **_QUIET,
        )


def build_page(run: OpenedRun) -> gr.Blocks:
    """The page of a run."""
    with gr.Blocks(title=f"robustok view {run.place}", analytics_enabled=False) as page:
        gr.HTML(_head(run), js_on_load=None)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                gr.Markdown("## Image")
                picked = _image_picker(run, place=0)
                marks = gr.Checkbox(True, label="Outline the tokens that changed")
            with gr.Column(scale=3, min_width=300):
                views = gr.Radio(list(_VIEWS), value="Perturb", label="View")
                columns = []
                for name, build in _VIEWS.items():
                    with gr.Column(visible=name == views.value) as column:
                        build(_Place(page=page, views=views, name=name), run, picked)
                    columns.append(column)
        marks.change(None, marks, js=_MARK)
        views.change(
            lambda chosen: [gr.Column(visible=name == chosen) for name in _VIEWS], views, columns, queue=False, **_QUIET
        )
    return page


def _head(run: OpenedRun) -> str:
    space = run.tokenizer.tokenizer.space.describe()
    decoders = "decoded before and after post-training" if len(run.tokenizers) > 1 else _ALONE[run.post_trained]
    missing = "".join(f"<li>{text(line)}</li>" for line in run.missing)
    more = f'<div class="rx-missing"><p>This run does not have:</p><ul>{missing}</ul></div>' if missing else ""
    return f'<header class="rx-head"><h1>{text(run.place)}</h1><p>{text(space)}; {decoders}</p>{more}</header>'


def _image_picker(run: OpenedRun, *, place: int) -> _Picked:
    """Controls that choose an image of the validation set by its class, or a file.

    Args:
        place: the class that is chosen first, by its place among those of the validation images.
    """
    labels = sorted(set(run.data.validation.labels.tolist())) if run.data is not None else []
    first = labels[place % len(labels)] if labels else 0
    rows = _rows_of(run, first)
    picked = _Picked(image=gr.State(rows[0] if rows else 0), file=gr.State(None))
    if labels:
        classes = gr.Dropdown([(run.class_names[label], label) for label in labels], value=first, label="Class")
        part = gr.Dropdown(_parts(rows), value=0, label="Images of the class", visible=len(rows) > _AT_ONCE)
        images = gr.HTML(_thumbnails(run, first, 0, picked.image.value), js_on_load=_CHOOSE)

        def of_class(label: int) -> tuple[Any, str, int]:
            found = _rows_of(run, label)
            choices = gr.Dropdown(_parts(found), value=0, visible=len(found) > _AT_ONCE)
            return choices, _thumbnails(run, label, 0, found[0]), found[0]

        classes.input(of_class, classes, [part, images, picked.image], **_QUIET)
        part.input(
            lambda label, start, image: _thumbnails(run, label, start, image),
            [classes, part, picked.image],
            images,
            **_QUIET,
        )
        _on_pick(images, picked.image, one=True)
    file = gr.File(label="or an image file", file_types=["image"], height=140, elem_classes="rx-file")
    file.change(lambda name: name, file, picked.file, **_QUIET)
    return picked


def _on_pick(buttons: gr.HTML, state: gr.State, *, one: bool) -> None:
    def chosen(event: gr.EventData) -> Any:
        numbers = [int(number) for number in event.numbers]
        return numbers[0] if one else numbers

    buttons.pick(chosen, None, state, **_QUIET)


def _rows_of(run: OpenedRun, label: int) -> list[int]:
    return [] if run.data is None else (run.data.validation.labels == label).nonzero().flatten().tolist()


def _parts(rows: Sequence[int]) -> list[tuple[str, int]]:
    starts = range(0, len(rows), _AT_ONCE)
    return [(f"{start + 1} to {min(start + _AT_ONCE, len(rows))} of {len(rows)}", start) for start in starts]


def _thumbnails(run: OpenedRun, label: int, start: int, chosen: int) -> str:
    assert run.data is not None
    rows = _rows_of(run, label)[start : start + _AT_ONCE]
    images = to_uint8(run.data.validation.load(rows).images)
    return images_html(images, rows, label=f"Images of {run.class_names[label]}", chosen=chosen)


def _token_picker(place: _Place, run: OpenedRun, picked: _Picked, *, many: bool, label: str) -> gr.State:
    """Buttons over an image, one for each token; a state with the number of the token, or a list of numbers."""
    space = run.tokenizer.tokenizer.space
    middle = space.num_tokens // 2 + (0 if space.grid is None else space.grid[1] // 2)
    state = gr.State([] if many else middle)

    def buttons(image: int, file: str | None, chosen: Any) -> str:
        try:
            (pixels,) = to_uint8(run.chosen(image, file).images)
        except RobustokError as error:
            return message_html(error)
        numbers = chosen if many else [chosen]
        return tokens_html(space, pixels, label=label, choice="many" if many else "one", chosen=numbers)

    shown = gr.HTML(js_on_load=_CHOOSE)
    place.on([picked.image.change, picked.file.change], buttons, [picked.image, picked.file, state], shown)
    _on_pick(shown, state, one=not many)
    if many:
        clear = gr.Button("Take no token", size="sm")
        clear.click(list, None, state, **_QUIET).then(buttons, [picked.image, picked.file, state], shown, **_QUIET)
    return state


def _show(place: _Place, run: OpenedRun, view: str, controls: Mapping[str, Any], adapt: Adapt = dict) -> None:
    """Shows a view's images and code below its controls, and again whenever one of them changes.

    Args:
        controls: components and states by the setting that they give.
        adapt: makes the settings of the controls' values, by the same names.
    """
    images, code = gr.HTML(js_on_load=None), gr.HTML(js_on_load=_COPY)
    names, components = list(controls), list(controls.values())

    def draw(*values: Any) -> tuple[str, str]:
        return answer(run, view, adapt(dict(zip(names, values, strict=True))))

    place.on([component.change for component in components], draw, components, [images, code])


def _seed() -> gr.Number:
    return gr.Number(0, label="Seed", precision=0, minimum=0)


def _num_images() -> gr.Slider:
    return gr.Slider(1, 8, value=3, step=1, label="Images", info="this one and the next of its class")


def _perturb_view(place: _Place, run: OpenedRun, picked: _Picked) -> None:
    offered = offered_by(run)
    if not offered:
        gr.HTML(message_html("No installed perturbation with a strength fits this tokenizer."), js_on_load=None)
        return
    if (note := why_not_own(run)) is not None:
        gr.HTML(note_html(note), js_on_load=None)
    first = next(iter(offered))
    use = gr.Dropdown(list(offered), value=first, label="Perturbation", visible=len(offered) > 1)
    with gr.Row():
        sliders = {option: _slider(option, offered, first) for option in STRENGTHS if _has(offered, option)}
    with gr.Row():
        controls = {"use": use, "num_images": _num_images(), "seed": _seed()}

    def sliders_of(name: str) -> list[Any]:
        return [_slider(option, offered, name) for option in sliders]

    use.input(sliders_of, use, list(sliders.values()), **_QUIET)

    def settings(values: dict[str, Any]) -> dict[str, Any]:
        chosen = offered[values.pop("use")]
        strengths = {option: values.pop(option) for option in sliders}
        return values | {"perturbation": {**chosen.table, **{name: strengths[name] for name in chosen.strengths}}}

    controls |= sliders
    _show(place, run, "perturb", {"image": picked.image, "file": picked.file, **controls}, settings)


def _has(offered: Mapping[str, Offered], option: str) -> bool:
    return any(option in each.strengths for each in offered.values())


def _slider(option: str, offered: Mapping[str, Offered], use: str) -> gr.Slider:
    """The slider of a strength as a perturbation has it; hidden if it does not."""
    about = {"beta": "share of the images", "alpha": "share of their tokens", "delta": "nearest codewords"}
    shown = option in offered[use].strengths
    having = offered[use] if shown else next(each for each in offered.values() if option in each.strengths)
    strength = having.strengths[option]
    least = 1 if option == "delta" else 0
    label = f"{STRENGTHS[option]}: {about.get(option, 'strength of the noise')}"
    return gr.Slider(least, strength.most, value=strength.value, step=strength.step, label=label, visible=shown)


def _keep_view(place: _Place, run: OpenedRun, picked: _Picked) -> None:
    if run.generator is None:
        gr.HTML(message_html("This run has no finished generator."), js_on_load=None)
        return
    with gr.Row():
        controls = {
            "sigma": gr.Slider(0, 1, value=0.9, step=0.05, label="σ: share of the image that is kept"),
            "num_images": _num_images(),
            "seed": _seed(),
            "class_of_file": gr.Dropdown(
                list(run.generator.class_names), label="Class of an image file", info="for a file only"
            ),
        }
    _show(place, run, "keep", {"image": picked.image, "file": picked.file, **controls})


def _paint_view(place: _Place, run: OpenedRun, picked: _Picked) -> None:
    with gr.Row():
        with gr.Column(min_width=280):
            gr.Markdown("### Paint on the image: click or drag over tokens")
            tokens = _token_picker(place, run, picked, many=True, label="Tokens to take from the other image")
        with gr.Column(min_width=280), gr.Accordion("Take tokens from", open=True):
            source = _image_picker(run, place=1)
    controls = {"image": picked.image, "file": picked.file, "source": source.image, "source_file": source.file}
    _show(place, run, "paint", {**controls, "tokens": tokens})


def _neighbours_view(place: _Place, run: OpenedRun, picked: _Picked) -> None:
    size = run.tokenizer.tokenizer.space.codebook_size
    if size is None:
        gr.HTML(message_html("This tokenizer is continuous: there are no codewords to replace a token by."))
        return
    with gr.Row():
        with gr.Column(min_width=280):
            token = _token_picker(place, run, picked, many=False, label="Token to replace")
        with gr.Column(min_width=280):
            count = gr.Slider(1, min(size, 32), value=min(size, 12), step=1, label="Nearest codewords")
    _show(place, run, "neighbours", {"image": picked.image, "file": picked.file, "token": token, "count": count})


def _sample_view(place: _Place, run: OpenedRun, _: _Picked) -> None:
    if run.generator is None:
        gr.HTML(message_html("This run has no finished generator."), js_on_load=None)
        return
    guided = run.generator.generator.knows_null_class
    guidance = guidance_of(run.recipe) if guided else Guidance()
    about = "1 is none" if guided else "this generator was trained without label dropout"
    if guidance != Guidance(scale=guidance.scale):
        about += f"; in the course of sampling it is as the recipe says: {recipe_line(guidance)}"
    names: list[Any] = [("all in turn", None), *((name, name) for name in run.generator.class_names)]
    with gr.Row():
        controls = {
            "class_": gr.Dropdown(names, value=None, label="Class"),
            "count": gr.Slider(1, 16, value=8, step=1, label="Samples"),
            "guidance": gr.Slider(
                0, max(10.0, guidance.scale), value=guidance.scale, step=0.1, interactive=guided, label="Guidance",
                info=about,
            ),
            "seed": _seed(),
        }  # fmt: skip
    _show(place, run, "sample", controls)


#: What builds each view, by its name on the page.
_VIEWS: Mapping[str, Callable[[_Place, OpenedRun, _Picked], None]] = {
    "Perturb": _perturb_view,
    "Keep a share σ": _keep_view,
    "Paint": _paint_view,
    "Neighbours": _neighbours_view,
    "Sample": _sample_view,
}
