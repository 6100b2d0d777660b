from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest
from PIL import Image

from project import POST_TRAINING, TO_SAMPLES, Project
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
    code, output, errors = command(*arguments)
    assert (code, errors) == (0, "")
    assert re.fullmatch(r".*, image 3: \d+ of 16 tokens changed\.\nwritten to p\.png\n", output)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_drawn_file_may_have_a_name_in_any_script(trained, command, tmp_path):
    Image.new("RGB", (40, 40), (255, 0, 0)).save(tmp_path / "猫.png")
    code, output, _ = command("view", trained.folder, "--draw", "perturb", "--set", 'file="猫.png"', "--out", "p.png")
    assert code == 0
    assert output.startswith("猫.png: ")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_drawn_view_of_a_run_that_stopped_early_says_what_is_missing(tmp_path, command):
    project = Project(tmp_path / "runs", [*TO_SAMPLES, *POST_TRAINING]).run(until="train_tokenizer")
    code, output, errors = command(
        "view", project.folder, "--draw", "neighbours", "--set", "image=3", "--set", "token=5", "--out", "n.png"
    )
    assert code == 0
    assert re.match(r"Token 5 has code \d+\. ", output)
    assert "missing: The tokenizer after post-training: this run has no finished tokenizer.\n" in errors


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
        (["--draw", "perturb", "--out", "x.png", "--port", "7861"], "--port: this is for the page"),
        (["--draw", "perturb", "--out", "x.png", "--no-browser"], "--no-browser: this is for the page"),
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


#: Refuses all connections and look-ups of names but those of this machine.
_LOOPBACK_ONLY = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        allowed = isinstance(address, (str, bytes)) or address[0] in ("127.0.0.1", "::1", "localhost")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        allowed = arguments[0] in (None, "", "127.0.0.1", "::1", "localhost", b"127.0.0.1", b"localhost")
    else:
        return
    if not allowed:
        print("LEFT THE MACHINE:", event, arguments[:2], flush=True)
        raise OSError("no network")
sys.addaudithook(refuse)
"""
_VISIT = """
import os, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
before = dict(os.environ)
import httpx, torch
from robustok_explorer.opened_run import open_run
from robustok_explorer.server import served
with served(open_run(Path(sys.argv[1]), device=torch.device("cpu"))) as address:
    print(httpx.get(address).status_code, "robustok view" in httpx.get(address).text)
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    time.sleep(1)  # threads of libraries may begin later
mine = ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY")
print(uploads.exists(), {name: os.environ.get(name) for name in mine} == {name: before.get(name) for name in mine})
"""


def test_the_server_asks_no_other_machine_and_leaves_the_environment_as_it_was(trained):
    pytest.importorskip("gradio", reason="gradio, which the page is made with, is missing")
    online = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", _LOOPBACK_ONLY + _VISIT, str(trained.folder)],
        capture_output=True,
        text=True,
        check=False,
        env=online,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["200 True", "False True"], done.stdout
