"""Answer the host's requests, one at a time, each under its own deadline."""

from __future__ import annotations

import faulthandler
import traceback
from typing import Any

from .board import BoardError, BoardLost


def answer(channel: Any, worker: Any, refusal: type[Exception]) -> None:
    """Answer (verb, arguments, deadline_s) with ("ok", value) or ("error", facts) until the verb `close`.

    First `hello` is answered, unasked. `refusal` is what a verb raises for a request that cannot be met.
    The deadline is kept here and not only by the host: faulthandler's watchdog is a thread without the
    interpreter lock, so it ends this process even when native code hangs while holding it, and it
    prints where.
    """
    channel.send(("ok", worker.hello()))
    while True:
        verb, arguments, deadline_s = channel.receive()
        if verb == "close":
            worker.close()
            channel.send(("ok", None))
            return
        faulthandler.dump_traceback_later(deadline_s, exit=True)
        try:
            reply = ("ok", getattr(worker, verb)(**arguments))
        except refusal as refused:
            reply = ("refused", {"message": str(refused)})
        except BaseException as error:  # a framework may raise anything, SystemExit too; the host names the stage
            reply = ("error", describe(error))
        finally:
            faulthandler.cancel_dump_traceback_later()
        channel.send(reply)


def describe(error: BaseException) -> dict[str, Any]:
    """Return what the host needs to explain an exception it cannot unpickle."""
    message = "".join(traceback.format_exception_only(type(error), error)).strip()
    return {
        "type": type(error).__name__,
        "module": getattr(error, "name", None) or "" if isinstance(error, ImportError) else "",
        "message": message,
        "traceback": traceback.format_exc(),
        "board": board_of(error),
    }


def board_of(error: BaseException) -> dict[str, Any]:
    """Return what a board's failure says besides, {} for another error."""
    if not isinstance(error, BoardError):
        return {}
    return {
        "message": str(error),
        "transcript": error.transcript,
        "happened": error.happened,
        "is_lost": isinstance(error, BoardLost),
    }
