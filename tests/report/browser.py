"""Pages in the system's Chromium: what they ask for, and what the console is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class OpenPage:
    """A page in a browser tab, every address that it asked for, and everything that the console was told."""

    tab: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.tab.evaluate(expression)


@contextmanager
def open_page(browser: Any, path: Path, *, width: int = 1280, scripts: bool = True) -> Iterator[OpenPage]:
    """Load a file from disk in a new tab, and wait until it and all that it asks for have arrived."""
    viewport = {"width": width, "height": 900}
    with browser.new_context(
        viewport=viewport, is_mobile=width < 600, java_script_enabled=scripts
    ) as context:
        page = OpenPage(context.new_page())
        page.tab.on("request", lambda request: page.requests.append(request.url))
        page.tab.on("console", lambda message: page.complaints.append(message.text))
        page.tab.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.tab.on("requestfailed", lambda request: page.complaints.append(f"failed: {request.url}"))

        def note_dialog(dialog: Any) -> None:
            page.complaints.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        page.tab.on("dialog", note_dialog)
        page.tab.goto(path.resolve().as_uri())
        yield page
