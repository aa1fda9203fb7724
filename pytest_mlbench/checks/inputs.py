"""Are the tensors that a model was fed the ones that the suite declares?"""

from __future__ import annotations

import re

from pytest_mlbench.record import CheckResult

NAME = "inputs_sha256"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_digest(found: str, expected: str | None, what: str) -> CheckResult:
    """Fail when the SHA-256 of `what` (for example "digits, onnx inputs") is not the declared one.

    Both are hex digests; case does not matter. Without a declared digest there is nothing to fail: the result
    passes and its message has the line that would pin it. A declared value that is no digest is "invalid".
    """
    here = found.strip().lower()
    facts: dict[str, object] = {"found": here, "expected": expected, "what": what}
    if expected is None:
        message = f'{what}: no digest is declared; to pin what was found, declare sha256 "{here}"'
        return CheckResult(NAME, "pass", message, facts)
    there = expected.strip().lower()
    if not _DIGEST.fullmatch(there):
        message = f"{what}: the declared digest {expected!r} is not 64 hex digits"
        return CheckResult(NAME, "invalid", message, facts)
    if here == there:
        return CheckResult(NAME, "pass", f"{what}: sha256 {here} as declared", facts)
    message = (
        f"{what}: sha256 is {here}, declared is {there}; the pre-processed inputs changed, so no figure is "
        f"comparable with earlier ones: undo the change, or declare the new digest on purpose"
    )
    return CheckResult(NAME, "fail", message, facts)
