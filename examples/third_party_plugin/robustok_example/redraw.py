"""A command: `robustok redraw runs/NAME photo.jpg redrawn.png`."""

import click


@click.command()
@click.argument("run")
@click.argument("image")
@click.argument("out")
def redraw(run, image, out):
    """Draw an IMAGE again with the tokenizer of a RUN, and write it to the file OUT."""
    import robustok  # in the function, so that `robustok --help` loads no torch

    (picture,) = robustok.load_tokenizer(run).reconstruct([image])
    picture.save(out)
    click.echo(f"written to {out}")
