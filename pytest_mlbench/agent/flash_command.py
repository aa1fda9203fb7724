"""Put an image on a board by a command: its words with placeholders, started without a shell and ended in time."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from .board import FlashError

PLACEHOLDERS = ("image", "port")
SHOWN_CHARACTERS = 1500  # of what a tool printed, the last ones
# Tools that are told the target's name (a chip, or for openocd a configuration file).
PRESETS = {
    "pyocd": ("pyocd", "flash", "--target", "{target}", "{image}"),
    "openocd": ("openocd", "-f", "{target}", "-c", "program {{image}} verify reset exit"),
    "esptool": ("esptool.py", "--chip", "{target}", "--port", "{port}", "write_flash", "0x0", "{image}"),
}
# openocd reads its word as Tcl: braces quote, so none may come from a path.
_NOT_IN_TCL = re.compile(r"[{}\\\n]")


def preset(tool: str, target: str) -> list[str]:
    """Return the words of a known tool's command for a target; KeyError for a tool that is not known."""
    return [word.replace("{target}", target) for word in PRESETS[tool]]


def filled(command: Sequence[str], *, image: str, port: str) -> list[str]:
    """Return the command with `{image}` and `{port}` put in.

    Each stays inside the word it stands in. Raises FlashError for a path that openocd would read as code.
    """
    if command[0] == "openocd" and _NOT_IN_TCL.search(image):
        raise FlashError(f"openocd cannot be given the path {image!r}: it holds a brace, a backslash or a line end")
    values = {"{image}": image, "{port}": port}
    return [re.sub(r"\{(?:image|port)\}", lambda found: values[found[0]], word) for word in command]


def run(words: Sequence[str], timeout_s: float) -> None:
    """Run a command that flashes; FlashError when it is missing, fails or takes longer, with the end of its output."""
    try:
        done = subprocess.run(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise FlashError(f"{words[0]} is not there: install it, or correct the device's `flash`") from None
    except subprocess.TimeoutExpired as error:
        printed = _end_of(error.stdout)
        raise FlashError(
            f"`{_shown(words)}` took longer than flash_timeout_s = {timeout_s:g} s and was ended{printed}"
        ) from None
    except OSError as error:
        raise FlashError(f"{words[0]} cannot be started: {error}") from None
    if done.returncode:
        raise FlashError(f"`{_shown(words)}` failed with exit status {done.returncode}{_end_of(done.stdout)}")


def _shown(words: Sequence[str]) -> str:
    return " ".join(words)


def _end_of(printed: bytes | None) -> str:
    text = (printed or b"").decode(errors="replace").strip()[-SHOWN_CHARACTERS:]
    return f"; it printed:\n{text}" if text else "; it printed nothing"
