"""Become the `ssh` that carries an agent: run as a script by execnet's popen gateway, never imported.

    ssh_pipe.py LOG PYTHON SSH-ARGUMENTS... -- HOST -u -c CODE

execnet appends the last three, as it would to a local interpreter. What `ssh` and the board print goes to the
file LOG, whose first line is the number of this process, so that the host can end it by number. Standard library
only, and as few modules as can be: this is started for every agent.
"""

import os
import signal
import sys

OLDEST = (3, 9)


def command(python: str, rest: "list[str]") -> str:
    """Return the one line that the board's login shell is given; it replaces the shell by the interpreter.

    The interpreter's parent is then the sshd process of this connection, whose end the agent is told by the kernel.
    """
    wanted = ".".join(map(str, OLDEST))
    told = f"mlbench: this is Python %d.%d, and {wanted} or newer is needed"
    check = f"import sys;sys.version_info>={OLDEST} or sys.exit({told!r}%sys.version_info[:2]);"
    *options, code = rest
    return " ".join(["exec", python, *options, quoted(check + code)])


def quoted(text: str) -> str:
    """Return text as one word of any login shell, csh's too."""
    return "'" + text.replace("'", "'\\''") + "'"


def main(arguments: "list[str]") -> None:
    """Redirect what is printed, and become ssh."""
    log, python, *ssh = arguments
    ssh, rest = ssh[:-3], ssh[-3:]
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    os.dup2(descriptor, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; pytest decides
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, kept over exec: a killed pytest leaves no ssh behind
    try:
        os.execvp("ssh", ["ssh", *ssh, command(python, rest)])
    except OSError as error:
        os.write(2, f"ssh cannot be started: {error.strerror}\n".encode())
        os._exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
