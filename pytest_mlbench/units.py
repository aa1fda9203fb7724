"""Numbers as people read them: "2.13 us", "12.4 MB", "1.20 M/s"."""

from __future__ import annotations

import math
from decimal import Decimal

_STEPS: dict[str, tuple[tuple[float, str], ...]] = {
    # unit -> (size in that unit, what is written), ascending
    "ns": ((1.0, "ns"), (1e3, "us"), (1e6, "ms"), (1e9, "s")),
    "bytes": ((1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")),
    "1/s": ((1.0, "/s"), (1e3, "k/s"), (1e6, "M/s"), (1e9, "G/s")),
    "j": ((1e-9, "nJ"), (1e-6, "uJ"), (1e-3, "mJ"), (1.0, "J"), (1e3, "kJ")),
    "w": ((1e-9, "nW"), (1e-6, "uW"), (1e-3, "mW"), (1.0, "W"), (1e3, "kW")),
}


def plain(value: float, unit: str, digits: int = 3) -> str:
    """Return `value` (in `unit`: "ns", "bytes", "1/s", "usd", "j", "w", "" or any other) as short text.

    Sizes are decimal (1 kB = 1000 B). `digits` is the number of significant digits; whole numbers below one
    thousand keep no decimals. An unknown unit is written after the number as it stands.
    """
    if not math.isfinite(value):
        return f"{value} {unit}".rstrip()
    steps = _STEPS.get(unit.lower())
    if steps:
        return _stepped(value, steps, digits)
    if unit == "":
        return _trim(value, digits + 1)
    # Money is never written with an exponent: nobody reads 1.2e-07 as a price.
    number = f"{Decimal(f'{value:.{digits - 1}e}'):f}" if unit == "usd" else _trim(value, digits + 1)
    return f"{number} {unit}"


def percent(share: float, digits: int = 3) -> str:
    """Return a share as "97.5 %"; one that is not quite 0 or 1 is never written as 0 % or 100 %."""
    shown = 100 * share
    if 0 < shown < 0.001:
        return "< 0.001 %"
    if abs(shown) >= 100 or not math.isfinite(shown):
        return f"{shown:.0f} %"
    while float(_trim(shown, digits)) >= 100:
        digits += 1
    return f"{_trim(shown, digits)} %"


def _stepped(value: float, steps: tuple[tuple[float, str], ...], digits: int) -> str:
    if value == 0:
        return f"0 {next(word for size, word in steps if size == 1.0)}"
    chosen = 0
    for index in range(1, len(steps)):
        # Rounded first, so that 999.96 ns becomes 1.00 us and not 1000 ns.
        if abs(_rounded(value / steps[chosen][0], digits)) >= 1000:
            chosen = index
    size, word = steps[chosen]
    scaled = value / size
    if size == 1.0 and scaled == int(scaled) and abs(scaled) < 1000:
        return f"{int(scaled)} {word}"
    return f"{_significant(scaled, digits)} {word}"


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits - 1}e}")


def _significant(value: float, digits: int) -> str:
    exponent = math.floor(math.log10(abs(_rounded(value, digits))))
    return f"{_rounded(value, digits):.{max(0, digits - 1 - exponent)}f}"


def _trim(value: float, digits: int) -> str:
    return f"{value:.{digits}g}"
