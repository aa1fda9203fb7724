"""What the operating system knows of this process: memory, processor time, context switches."""

from __future__ import annotations

import os
import sys


def memory() -> dict[str, int]:
    """Return {"rss_bytes", "peak_bytes"}: resident now and at most since the start or the last reset.

    Linux reads /proc/self/status. Elsewhere only the peak is known (getrusage), so rss_bytes is absent;
    on Windows both are.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123
            fields = dict(line.split(":", 1) for line in status if ":" in line)
        return {
            "rss_bytes": int(fields["VmRSS"].split()[0]) * 1024,
            "peak_bytes": int(fields["VmHWM"].split()[0]) * 1024,
        }
    except (OSError, KeyError):
        pass
    try:
        import resource
    except ImportError:
        return {}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_bytes": peak if sys.platform == "darwin" else peak * 1024}


def reset_peak() -> bool:
    """Set the peak back to what is resident now; tell whether the kernel did (Linux, proc(5) clear_refs)."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as control:  # noqa: PTH123
            control.write("5")
    except OSError:
        return False
    return True


def usage() -> dict[str, int]:
    """Return processor time in ns and context switches of this process so far."""
    times = os.times()
    used = {"user_ns": int(times.user * 1e9), "system_ns": int(times.system * 1e9)}
    try:
        import resource
    except ImportError:
        return used
    counts = resource.getrusage(resource.RUSAGE_SELF)
    used.update(voluntary_switches=counts.ru_nvcsw, involuntary_switches=counts.ru_nivcsw)
    used.update(major_faults=counts.ru_majflt)
    return used
