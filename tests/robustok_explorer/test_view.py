from __future__ import annotations

import socket
import sys

import pytest

from robustok_core import RobustokError
from robustok_explorer.server import served


def test_without_gradio_the_command_says_how_to_get_it(trained, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    message = refused("view", trained.folder, "--no-browser")
    assert "the page needs gradio" in message
    assert "pip install 'robustok[view]'" in message


def test_a_view_is_drawn_without_gradio(trained, command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    arguments = ("view", trained.folder, "--draw", "perturb", "--set", "image=3", "--out", "p.png")
    assert command(*arguments) == (0, "written to p.png\n", "")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "image=3"], "--set: only a view that is drawn takes this"),
        (["--out", "x.png"], "--out: only a view that is drawn takes this"),
        (["--draw", "perturb"], "--draw: a drawn view needs a file"),
        (["--draw", "perturb", "--out", "x.gif"], "the name of the file must end in .png"),
        (["--draw", "perturb", "--out", "there.png"], "there.png: this already exists"),
        (["--draw", "perturb", "--set", "imgae=3", "--out", "x.png"], "--set imgae: unknown key 'imgae'"),
        (["--draw", "paint", "--set", "tokens=3", "--out", "x.png"], "--set tokens: "),
        (["--draw", "keep", "--set", "sigma", "--out", "x.png"], "--set needs KEY=VALUE"),
        (["--device", "toaster"], "there is no device 'toaster' here"),
    ],
)
def test_options_that_do_not_fit_are_refused(trained, refused, tmp_path, arguments, message):
    (tmp_path / "there.png").touch()
    assert message in refused("view", trained.folder, *arguments)
    assert [file.name for file in tmp_path.glob("*.png")] == ["there.png"]


def test_an_unknown_view_is_refused(trained, command):
    code, _, output = command("view", trained.folder, "--draw", "perturbed", "--out", "x.png")
    assert code == 2
    assert "'perturbed' is not one of 'perturb', 'keep', 'paint', 'neighbours'" in output


@pytest.mark.filterwarnings("ignore")  # libraries below gradio warn about one another
def test_a_port_that_is_taken_is_named(trained, open_project):
    pytest.importorskip("gradio", reason="gradio, which the page is made with, is missing")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(RobustokError, match=f"--port: port {port} cannot be used"),
            served(open_project(trained), port=port),
        ):
            pass
