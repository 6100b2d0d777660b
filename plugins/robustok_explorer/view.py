"""`robustok view`."""

from __future__ import annotations

from pathlib import Path

import click

from robustok_core.values.terminal import echo


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the page; default: a free one from 7860 on.")
@click.option("--no-browser", is_flag=True, help="Print the address instead of opening the page.")
@click.option("--device", metavar="NAME", help="Device (cpu, cuda:1); default: the GPU if there is one.")
@click.option(
    "--draw",
    metavar="VIEW",
    type=click.Choice(["perturb", "keep", "paint", "neighbours"]),
    help="Write this view to a file instead: perturb, keep, paint or neighbours.",
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="A setting of the view that is drawn.")
@click.option("--out", type=click.Path(path_type=Path), help="New .png file for --draw.")
def view(
    run: Path,
    port: int | None,
    no_browser: bool,
    device: str | None,
    draw: str | None,
    changes: tuple[str, ...],
    out: Path | None,
) -> None:
    """Try a RUN's tokenizer and generator by hand, on a page that only this machine can open.

    Each view on the page shows the command that makes the same images:
    `robustok view runs/main_train --draw perturb --set image=3 --set perturbation.alpha=0.5 --out perturbed.png`.
    """
    from robustok_core.runs.devices import device_called
    from robustok_explorer.opened_run import open_run

    _check_options(draw, changes, out)
    _check_page_options(draw, port, no_browser)
    if draw is None:
        from robustok_explorer.server import require_gradio

        require_gradio()
    opened = open_run(run, device=device_called(device, where="--device"))
    for line in opened.missing:
        echo(f"missing: {line}", err=True)
    if draw is not None and out is not None:
        from robustok_explorer.answers import drawn, replaced
        from robustok_explorer.picture import save_sheet
        from robustok_toolkit.new_files import new_output

        if (note := replaced(opened, draw, changes)) is not None:
            echo(f"note: {note}", err=True)
        sheet, _ = drawn(opened, draw, changes)
        with new_output(out) as unfinished:
            save_sheet(unfinished, sheet)
        for line in sheet.lines:
            echo(line)
        echo(f"written to {out}")
        return
    _serve(opened, port, browser=not no_browser)


def _check_options(draw: str | None, changes: tuple[str, ...], out: Path | None) -> None:
    from robustok_core.errors import RobustokError
    from robustok_toolkit.new_files import require_new

    if draw is None and (changes or out is not None):
        option = "--set" if changes else "--out"
        raise RobustokError("only a view that is drawn takes this", where=option, hint="name the view with --draw")
    if draw is not None and out is None:
        raise RobustokError("a drawn view needs a file", where="--draw", hint=f"add --out {draw}.png")
    if out is not None and out.suffix != ".png":
        raise RobustokError("the name of the file must end in .png", where=f"--out {out}")
    if out is not None:
        require_new(out)


def _check_page_options(draw: str | None, port: int | None, no_browser: bool) -> None:
    from robustok_core.errors import RobustokError

    if draw is not None and (port is not None or no_browser):
        option = "--port" if port is not None else "--no-browser"
        raise RobustokError("this is for the page, and --draw opens none", where=option, hint="leave one of them out")


def _serve(opened: object, port: int | None, *, browser: bool) -> None:
    import threading

    from robustok_explorer.opened_run import OpenedRun
    from robustok_explorer.server import served

    assert isinstance(opened, OpenedRun)
    with served(opened, port=port, browser=browser) as address:
        echo(f"the page of {opened.place}: {address} (Ctrl-C ends it)")
        threading.Event().wait()
