"""Say what the end of an `ssh` means, from its own words and exit status, and what to do about it."""

from __future__ import annotations

import re

from pytest_mlbench.devices.api import Ended

_SSH_FAILED = 255  # ssh(1): an error of its own; any other status is the remote command's
_NOT_FOUND = (126, 127)
_NO_PROGRAM = r"\W.*(not found|No such file|[Pp]ermission denied|[Cc]annot execute|Exec format error|Unknown command)"
_SHOWN = 3  # lines of what was printed

_NO_SSHD, _NO_ANSWER = "no sshd listens there", "the board does not answer"
_SILENT, _CUT = "the connection fell silent", "the connection was cut"
# The meanings of a board that refuses nothing and does not answer: it is down, hangs or starts.
_UNREACHABLE = (_NO_SSHD, _NO_ANSWER, _SILENT, _CUT)
# What ssh prints (sshconnect.c, clientloop.c, ssh.c), what it means, the remedy. The first that matches counts.
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "its host key changed",
        "if the board was installed anew, remove its old key with `ssh-keygen -R` and the name or address that ssh "
        "prints above, connect once by hand with `{by_hand}` and compare the fingerprint; "
        "else another machine answers there",
    ),
    (
        r"Host key verification failed|host key is known for",
        "its host key is not known here, and no key is ever added unasked",
        "connect once by hand with `{by_hand}` and compare the fingerprint",
    ),
    (
        r"Permission denied|Too many authentication failures|no mutual signature",
        "it refused our key",
        "put a key there with `ssh-copy-id`, or name it in ssh's configuration (IdentityFile); "
        "`{by_hand}` must work without a question",
    ),
    (
        r"Could not resolve hostname",
        "the host name is not known",
        "correct `host` in the lab file, or add the alias to ssh's configuration",
    ),
    (r"Connection refused", _NO_SSHD, "start sshd on the board, or correct `port`"),
    (
        r"Connection timed out|Operation timed out|No route to host|Network is unreachable|Host is down",
        _NO_ANSWER,
        "see that it has power and a network, then `{by_hand}`",
    ),
    (
        r"not responding|Timeout, server",
        _SILENT,
        "see that the board has power and a network; a longer silence is allowed by `heartbeat_s` in the lab file",
    ),
    (
        r"Can't open user config file|Bad configuration option|Bad owner or permissions|terminating, \d+ bad",
        "ssh cannot use its configuration",
        "correct that file, or `config_file` in the lab file",
    ),
    (r"ssh cannot be started", "there is no ssh on this machine", "install OpenSSH's client (openssh-client)"),
    (
        r"mlbench: this is Python",
        "its Python is too old",
        "name a newer one with `python` in the lab file",
    ),
    (
        r"[Cc]onnection (to .* )?(closed|reset|aborted)|Broken pipe|kex_exchange_identification",
        _CUT,
        "see whether sshd or the board was restarted (`journalctl -u ssh` there), then run again",
    ),
)


def explain(device: str, by_hand: str, python: str, status: int | None, printed: str) -> Ended:
    """Return one sentence or two: the device, what happened, ssh's own words, the remedy.

    `status` is ssh's exit status, None when it still runs or is not known; `by_hand` is the command a person
    would try; `python` the interpreter on the board.
    """
    words = told(printed)
    said = f" ({words})" if words else ""
    started = "ssh cannot be started" not in printed
    if (started and status in _NOT_FOUND) or re.search(re.escape(python) + _NO_PROGRAM, printed):
        remedy = "name an interpreter with `python` in the lab file"
        return Ended(f"device {device!r}: {python!r} cannot be run there{said}; {remedy}")
    for pattern, meaning, remedy in _KNOWN:
        if re.search(pattern, printed):
            sentence = f"device {device!r}: {meaning}{said}; {remedy.format(by_hand=by_hand)}"
            return Ended(sentence, meaning in _UNREACHABLE)
    if status == _SSH_FAILED:
        what = "the connection was cut, or the agent there was killed (by a lack of memory?)"
        return Ended(f"device {device!r}: {what}{said}; try `{by_hand}`, then run again")
    if status is None:
        return Ended(f"device {device!r}: its connection closed{said}; try `{by_hand}`, then run again")
    return Ended(f"device {device!r}: the agent there ended with status {status}{said}")


def told(printed: str) -> str:
    """Return the last lines that say something, as one line; ssh's frames of @ say nothing."""
    lines = [line.strip() for line in printed.splitlines()]
    lines = [line for line in lines if line.strip("@ ") and not line.startswith("Warning: Permanently added")]
    return " / ".join(lines[-_SHOWN:])
