"""Build the firmware's images with arm-none-eabi-gcc: same sources and same compiler give the same bytes.

    python build.py                          every board, into suites/digits/models/firmware, with SHA256SUMS
    python build.py --board mps2-an386 --energy --out FOLDER

An image is NAME-BOARD.elf, and NAME-BOARD.json beside it tells drivers what model it holds.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMPILER = "arm-none-eabi-gcc"
SUMS, MADE_WITH = "SHA256SUMS", "COMPILER"
DEADLINE_S = 120

# Board -> its processor and the map of its memories (boards/*.ld).
BOARDS: dict[str, tuple[tuple[str, ...], str]] = {
    "mps2-an386": (("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16"), "mps2.ld"),
    "mps2-an500": (("-mcpu=cortex-m7", "-mfpu=fpv5-d16"), "mps2.ld"),
    "mps3-an547": (("-mcpu=cortex-m55",), "mps3.ld"),
}
SOURCES = ("startup.c", "main.c", "commands.c", "test_commands.c", "serial.c", "clock.c", "model.c", "network.c")
FLAGS = (
    *("-mthumb", "-mfloat-abi=hard", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"),
    # memcpy and memset are ours: their loops must not be turned into calls of themselves.
    *("-ffreestanding", "-fno-tree-loop-distribute-patterns", "-ffunction-sections", "-fdata-sections"),
    *("-nostdlib", "-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,--strip-all", "-Wl,-z,max-page-size=16"),
)


class BuildError(Exception):
    """Report why an image could not be built."""


def compiler_version() -> str:
    """Return the first line of the compiler's own description; BuildError when it is not installed."""
    if shutil.which(COMPILER) is None:
        raise BuildError(f"{COMPILER} is not installed: apt-get install gcc-arm-none-eabi")
    return _run([COMPILER, "--version"]).splitlines()[0]


def _run(command: Sequence[str], folder: Path = HERE) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} did not end within {DEADLINE_S} s") from None
    if done.returncode:
        raise BuildError(f"{command[0]} failed:\n{done.stderr}")
    return done.stdout


def image_name(header: Path, board: str, energy: bool) -> str:
    """Return the file name of an image."""
    return f"{header.stem}{'_energy' if energy else ''}-{board}.elf"


def build(board: str, header: Path, out: Path, *, energy: bool = False, test_commands: bool = True) -> Path:
    """Build one image and copy the description of its model beside it; returns the image's path.

    Runs in the sources' folder with relative names, so that no path of this machine gets into the image.
    """
    processor, memories = BOARDS[board]
    switches = [*(["-DENERGY_MODE"] if energy else []), *(["-DTEST_COMMANDS"] if test_commands else [])]
    out.mkdir(parents=True, exist_ok=True)
    image = (out / image_name(header, board, energy)).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "image.elf"
        names = [
            f'-DBOARD_HEADER="boards/{board}.h"',
            f'-DMODEL_HEADER="{header.name}"',
            f"-I{header.resolve().parent}",
        ]
        linking = ["-Lboards", f"-Tboards/{memories}", "-lgcc", "-o", str(made)]
        _run([COMPILER, *processor, *FLAGS, *switches, "-I.", *names, *SOURCES, *linking])
        shutil.copyfile(made, image)
    shutil.copyfile(header.with_suffix(".json"), image.with_suffix(".json"))
    return image


def main() -> int:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--board", choices=BOARDS, action="append", help="may be given several times; default: all")
    parser.add_argument("--header", type=Path, default=HERE / "models/digits_int8.h", help="a model by generate.py")
    parser.add_argument("--energy", action="store_true", help="mark times by edges, for a power meter")
    parser.add_argument("--no-test-commands", action="store_true", help="without hang, fault and reset")
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "suites/digits/models/firmware")
    given = parser.parse_args()
    try:
        version = compiler_version()
        images = [
            build(board, given.header, given.out, energy=given.energy, test_commands=not given.no_test_commands)
            for board in given.board or BOARDS
        ]
    except (BuildError, OSError) as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    lines = [f"{hashlib.sha256(image.read_bytes()).hexdigest()}  {image.name}\n" for image in images]
    (given.out / SUMS).write_text("".join(lines), encoding="ascii")
    (given.out / MADE_WITH).write_text(version + "\n", encoding="utf-8")
    print("".join(lines), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
