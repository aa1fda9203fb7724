"""How soon does an emulated board give its first result, and is its time the same in every process?

Bounds: power-on to first result 1 s; 360 digits loaded, inferred and read back 60 s; the time of one inference the
same within two ticks of the board's counter over 5 fresh processes while both cores are busy.
Needs qemu-system-arm and the package in fixtures/pytest-mlbench-qemu.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from pytest_mlbench.agent.adapters import firmware_adapter

DIGITS = Path(__file__).resolve().parents[1] / "suites" / "digits"
BOARD = "mps2-an386"
IMAGE = DIGITS / "models" / "firmware" / f"digits_int8-{BOARD}.elf"
FIRST_BOUND_S, ALL_BOUND_S, TICKS_BOUND = 1.0, 60.0, 2
STARTS, PROCESSES = 5, 5


def options() -> Mapping[str, Any]:
    """Return what the framework `firmware` is given for this board."""
    connection = {
        "transport": "pytest_mlbench_qemu.qemu_transport",
        "device": "qemu_m4",
        "program": "qemu-system-arm",
        "machine": BOARD,
        "icount_shift": 5,
        "emulated": True,
    }
    return {"connection": connection, "sidecar": IMAGE.with_suffix(".json").read_text(encoding="utf-8")}


def opened() -> firmware_adapter.FirmwareSession:
    """Switch a board on and make sure of it."""
    return firmware_adapter.load(str(IMAGE), options())


def samples() -> np.ndarray:
    """Return the test samples as the board takes them: int8 (360, 1, 1, 8, 8)."""
    pixels = np.load(DIGITS / "data" / "test.npz")["x"].astype(np.float32) * np.float32(0.0625)
    stored = np.rint(pixels / np.float32(1 / 255)) - 128
    return np.clip(stored, -128, 127).astype(np.int8).reshape(-1, 1, 1, 8, 8)


def first_result(sample: np.ndarray) -> float:
    """Return the seconds from starting the emulator to the outputs of one sample."""
    begin = perf_counter()
    session = opened()
    session.bind({"image": sample})
    session.invoke()
    session.fetch()
    spent = perf_counter() - begin
    session.close()
    return spent


def all_results(inputs: np.ndarray) -> tuple[float, float]:
    """Return the seconds for all samples on one board, and top-1."""
    labels = np.load(DIGITS / "data" / "test.npz")["y"]
    session = opened()
    begin, hits = perf_counter(), 0
    for sample, label in zip(inputs, labels, strict=True):
        session.bind({"image": sample})
        session.invoke()
        hits += int(session.fetch()["logits"].argmax() == label)
    spent = perf_counter() - begin
    session.close()
    return spent, hits / len(labels)


def burn() -> None:
    """Keep one core busy until ended."""
    while True:
        pass


def ticks(sample: np.ndarray) -> list[int]:
    """Return the time of one inference in ticks of the board's counter, in fresh processes on a busy machine."""
    load = [multiprocessing.Process(target=burn, daemon=True) for _ in range(os.cpu_count() or 2)]
    for process in load:
        process.start()
    found = []
    try:
        for _ in range(PROCESSES):
            session = opened()
            session.bind({"image": sample})
            found.append(session.time_calls(1) // session.clock.tick_ns)
            session.close()
    finally:
        for process in load:
            process.terminate()
            process.join()
    return found


def main() -> int:
    """Print the figures beside their bounds; 1 when one is over its bound."""
    inputs = samples()
    first = median(first_result(inputs[0]) for _ in range(STARTS))
    spent, top1 = all_results(inputs)
    readings = ticks(inputs[0])
    spread = max(readings) - min(readings)
    print(
        f"power-on to first result  {first * 1e3:8.0f} ms      bound {FIRST_BOUND_S * 1e3:.0f} ms (median of {STARTS})"
    )
    print(f"360 digits                {spent:8.2f} s       bound {ALL_BOUND_S:.0f} s (top-1 {top1:.4f})")
    print(f"time of one inference     {readings} ticks, spread {spread}, bound {TICKS_BOUND}, both cores busy")
    return int(first > FIRST_BOUND_S or spent > ALL_BOUND_S or spread > TICKS_BOUND)


if __name__ == "__main__":
    sys.exit(main())
