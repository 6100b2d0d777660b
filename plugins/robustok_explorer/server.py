"""Serves the page on the loopback interface only: no share link, no telemetry, nothing fetched from anywhere."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from robustok_core.errors import RobustokError
from robustok_explorer.opened_run import OpenedRun

_LOOPBACK = "127.0.0.1"
#: Read by gradio and the libraries below it, some of them when they are imported.
_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
_LARGEST_FILE = "64mb"
#: Colours that are darker than gradio's own, which are too pale to read.
_CONTRAST: dict[str, Any] = {
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_300",
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_300",
}


def require_gradio() -> None:
    """Raises RobustokError if gradio, which the page is made with, is not installed."""
    try:
        with _surroundings(_QUIET):
            import gradio  # noqa: F401
    except ImportError as error:
        what, hint = f"the page needs gradio, which cannot be imported: {error}", "pip install 'robustok[view]'"
        raise RobustokError(what, where="robustok view", hint=hint) from error


@contextmanager
def _surroundings(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables while the block runs; then they are as they were."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def served(run: OpenedRun, *, port: int | None = None, browser: bool = False) -> Iterator[str]:
    """Serves a run's page while the block runs; gives its address.

    Args:
        port: default: the first free one from 7860 on. browser: opens the page.

    Raises:
        RobustokError: if gradio is missing, or the port is taken.
    """
    require_gradio()
    if port is not None:
        _require_free(port)
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from robustok_explorer.page import CSS, build_page

    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    with (
        tempfile.TemporaryDirectory(prefix="robustok-view-") as uploads,
        _surroundings({**_QUIET, "GRADIO_TEMP_DIR": uploads}),
    ):
        page = build_page(run)
        _, address, _ = page.launch(
            server_name=_LOOPBACK,
            server_port=port,
            share=False,
            inbrowser=browser,
            prevent_thread_lock=True,
            quiet=True,
            theme=gr.themes.Default(**fonts).set(**_CONTRAST),
            css=CSS,
            footer_links=[],
            max_file_size=_LARGEST_FILE,
            # A page elsewhere that resolves its own name to the loopback address is refused.
            app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=[_LOOPBACK, "localhost"])]},
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
        )
        try:
            yield address
        finally:
            page.close(verbose=False)


def _require_free(port: int) -> None:
    """Raises RobustokError if the page cannot have this port."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            tried.bind((_LOOPBACK, port))
        except OSError as error:
            hint = "choose another --port, or leave it out"
            raise RobustokError(f"port {port} cannot be used: {error}", where="--port", hint=hint) from error
