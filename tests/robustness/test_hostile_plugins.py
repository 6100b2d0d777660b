"""Plugins and libraries that end the program, fail in a hook, or read where there is nothing to read."""

from __future__ import annotations

import click
import pytest

from commands import install, robustok
from project import Project, assert_same_weights, registry_with
from robustok_core import Registry, hookimpl
from robustok_losses.reconstruction import PixelReconstruction

SHORT = {"epochs": 0.4, "log_every": 1}


class Panic(BaseException):
    """What an extension in Rust raises, and a cancelled task: no Exception."""


class Speechless(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


PANIC = "import asyncio; raise asyncio.CancelledError"


@pytest.mark.parametrize(
    "ending", ["import sys; sys.exit()", "raise KeyError('x')", "import os; os.environ['NONE']", PANIC]
)
def test_a_plugin_that_ends_the_program_on_import_hides_nothing_and_is_named(tmp_path, ending):
    done = robustok("plugins", env=install(tmp_path, "quitter", ending))
    assert "conv_vq" in done.stdout
    assert "quitter" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_hook_that_fails_while_a_run_logs_does_not_end_the_run(tmp_path):
    class Watcher:
        @hookimpl
        def robustok_step_logged(self, folder, stage, step, values):
            raise ValueError("no network")

    calm = Project(tmp_path / "calm", train_tokenizer=SHORT).run()
    watched = Project(tmp_path / "watched", train_tokenizer=SHORT).run(registry=registry_with(Watcher()))
    assert watched.printed.count("no network") == 1
    assert_same_weights(watched.weights(), calm.weights())


@pytest.mark.parametrize(
    ("raised", "code"),
    [(KeyboardInterrupt(), 130), (click.Abort(), 1), (SystemExit(0), 1), (SystemExit(130), 1), (MemoryError(), 1)],
    ids=repr,
)
def test_only_an_interrupt_exits_with_130_and_no_failure_with_0(command, recipe_file, monkeypatch, raised, code):
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("robustok_core.runs.runner.run", fail)
    found, _, errors = command("run", recipe_file(), "--out", "out")
    assert found == code
    assert len(errors.splitlines()) in (1, 2)


def test_the_end_of_the_input_is_no_interrupt(command, recipe_file, monkeypatch):
    def read(*_: object, **__: object) -> None:
        raise EOFError

    monkeypatch.setattr("robustok_core.runs.runner.run", read)
    code, _, errors = command("run", recipe_file(), "--out", "out")
    assert code == 1
    assert "Traceback (most recent call last):\n" in errors  # a bug
    assert errors.endswith("\nEOFError\n")


def test_the_traceback_of_a_bug_does_not_obey_what_is_in_it(command, recipe_file, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise KeyError("\x1b[2J") from ValueError("a\x1b]0;title\x07\u202e")

    monkeypatch.setattr("robustok_core.runs.runner.run", fail)
    code, _, errors = command("run", recipe_file(), "--out", "out")
    assert code == 1
    assert not {"\x1b", "\x07", "\u202e"} & set(errors)
    assert "ValueError: a\\u001b]0;title\\u0007\\u202e\n" in errors
    assert "in fail\n" in errors


class Registering:
    """A plugin that registers a component by what a test says."""

    def __init__(self, *arguments):
        self.arguments = arguments

    @hookimpl
    def robustok_register(self, register):
        register(*self.arguments)


class Generator:
    @hookimpl
    def robustok_register(self, register):
        yield register("loss", "mine", PixelReconstruction)


class Undecorated:
    def robustok_register(self, register):
        register("loss", "mine", PixelReconstruction)


class Lazy:
    def __getattr__(self, name):
        if name.startswith("__"):  # of Python and pytest
            raise AttributeError(name)
        raise KeyError(name)


def raising(error):
    class Raising:
        @hookimpl
        def robustok_register(self, register):
            raise error

    return Raising()


NO_NAMES = [None, 5, "", b"x", [], {}, ("mine",), "a\nb", "x" * 10_000, PixelReconstruction]


@pytest.mark.parametrize(
    ("plugin", "error"),
    [
        *((Registering("loss", name, PixelReconstruction), "the name of a loss must be a text") for name in NO_NAMES),
        *((Registering(kind, "mine", PixelReconstruction), "") for kind in (None, 5, "", [], {}, "cake")),
        *((Registering("loss", "mine", cls), "must be a subclass of Loss") for cls in (None, 5, int, lambda: 0)),
        (raising(Panic("in Rust")), "Panic: in Rust"),
        (raising(Speechless()), "Speechless: its text cannot be shown"),
        (Generator(), "must return nothing, found generator"),
        (Undecorated(), "robustok_register is not decorated with @hookimpl"),
        (Lazy(), "KeyError: 'ROBUSTOK_HOOKS'"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_recorded_and_the_others_are_listed(plugin, error):
    registry = Registry()
    registry.add_plugin(Registering("loss", "good", PixelReconstruction), "good")
    state = registry.add_plugin(plugin, "bad")
    assert error in str(state.error)
    assert state.error
    assert registry.names("loss") == ["good"]
    assert len(state.error) < 500


@pytest.mark.parametrize("error", [Panic("in Rust"), Speechless(), SystemExit(0)], ids=repr)
def test_whatever_a_hook_raises_it_is_named_and_only_an_interrupt_passes(error):
    class Watcher:
        @hookimpl
        def robustok_run_started(self, folder, recipe):
            raise raised

    registry, raised = Registry(), error
    registry.add_plugin(Watcher(), "watcher")
    (said,) = registry.notify("robustok_run_started", folder=None, recipe={})
    assert said.startswith(f"the plugin 'watcher' failed in robustok_run_started ({type(error).__name__}: ")
    raised = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        registry.notify("robustok_run_started", folder=None, recipe={})
