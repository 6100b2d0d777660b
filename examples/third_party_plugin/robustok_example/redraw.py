"""A command: `robustok redraw runs/NAME photo.jpg redrawn.png`."""

import click

from robustok_core.values.terminal import echo


@click.command()
@click.argument("run")
@click.argument("image")
@click.argument("out")
def redraw(run, image, out):
    """Reconstruct an IMAGE with the tokenizer of a RUN and save it as OUT."""
    import robustok  # here, so that `robustok --help` does not import torch

    (reconstruction,) = robustok.load_tokenizer(run).reconstruct([image])
    reconstruction.save(out)
    echo(f"written to {out}")
