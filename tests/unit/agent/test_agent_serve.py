"""The agent's loop, the sources it imports itself from, and what it knows of its process."""

from __future__ import annotations

import importlib
import os
import sys
import traceback

import pytest

from pytest_mlbench.agent import answer, bootstrap, counters, serve, worker


class Channel:
    """What execnet gives: requests in order, and the replies that were sent."""

    def __init__(self, *requests):
        self.requests = list(requests)
        self.sent = []

    def receive(self):
        return self.requests.pop(0)

    def send(self, reply):
        self.sent.append(reply)


def served(*requests):
    channel = Channel(*requests, ("close", {}, 5.0))
    serve.serve(channel, {})
    assert channel.requests == []
    return channel.sent[1:-1]


def test_it_begins_with_who_it_is_and_ends_with_close():
    channel = Channel(("close", {}, 5.0))
    serve.serve(channel, {})
    (ok, hello), last = channel.sent
    assert (ok, hello["pid"]) == ("ok", os.getpid())
    assert last == ("ok", None)


def test_one_reply_to_each_request_whatever_happens():
    replies = served(
        ("keep_timed", {"keep": True}, 5.0),
        ("fit", {"batch": 1, "boundary": "invoke", "seed": 0}, 5.0),
        ("no_such_verb", {}, 5.0),
        ("keep_timed", {"wrong": 1}, 5.0),
        ("timed_outputs", {}, 5.0),
    )
    assert [kind for kind, _ in replies] == ["ok", "refused", "error", "error", "ok"]
    assert replies[1][1] == {"message": "no model is loaded"}
    assert replies[2][1]["type"] == "AttributeError"
    assert "TypeError" in replies[3][1]["message"]
    assert "getattr(worker, verb)(**arguments)" in replies[3][1]["traceback"]


@pytest.mark.parametrize("error", [SystemExit("gave up"), KeyboardInterrupt(), MemoryError(), RecursionError("deep")])
def test_even_what_is_no_exception_is_an_answer(monkeypatch, error):
    def fail(self):
        raise error

    monkeypatch.setattr(worker.Worker, "counters", fail)
    ((kind, facts),) = served(("counters", {}, 5.0))
    assert (kind, facts["type"]) == ("error", type(error).__name__)


def test_the_watchdog_is_armed_for_each_verb_and_for_nothing_else(monkeypatch):
    events = []

    class Watchdog:
        @staticmethod
        def dump_traceback_later(deadline_s, exit):
            events.append((deadline_s, exit))

        @staticmethod
        def cancel_dump_traceback_later():
            events.append("cancelled")

    monkeypatch.setattr(answer, "faulthandler", Watchdog)
    served(("keep_timed", {"keep": True}, 7.0), ("no_such_verb", {}, 0.5))
    assert events == [(7.0, True), "cancelled", (0.5, True), "cancelled"]


def test_a_missing_module_is_named():
    try:
        importlib.import_module("no_such_framework.core")
    except ImportError as error:
        facts = answer.describe(error)
    assert (facts["type"], facts["module"]) == ("ModuleNotFoundError", "no_such_framework")
    assert facts["message"] == "ModuleNotFoundError: No module named 'no_such_framework'"


# --- sources ------------------------------------------------------------------------------------------------


@pytest.fixture
def sources(monkeypatch):
    """Import modules from text, as the agent does."""
    finder = bootstrap.Sources(
        {
            "travelled": "",
            "travelled.inner": "from . import other\nfrom .other import VALUE\n\n"
            "def fail():\n    raise ValueError(VALUE)\n",
            "travelled.other": "VALUE = 'from the text'\n",
        }
    )
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    yield finder
    for name in [name for name in sys.modules if name.startswith("travelled")]:
        del sys.modules[name]


def test_modules_come_from_the_text_that_travelled(sources):
    assert importlib.import_module("travelled.inner").VALUE == "from the text"
    assert importlib.import_module("travelled").__path__ == []
    with pytest.raises(ModuleNotFoundError, match=r"travelled\.missing"):
        importlib.import_module("travelled.missing")
    assert sources.find_spec("json") is None


def test_a_traceback_shows_the_lines_though_no_file_is_there(sources):
    try:
        importlib.import_module("travelled.inner").fail()
    except ValueError:
        text = traceback.format_exc()
    assert 'File "<mlbench-agent>/travelled/inner.py", line 5, in fail' in text
    assert "raise ValueError(VALUE)" in text


# --- counters -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_what_the_kernel_says():
    import resource

    found = counters.memory()
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        resident = int(statm.read().split()[1]) * resource.getpagesize()
    assert found["rss_bytes"] == pytest.approx(resident, rel=0.05)
    assert found["peak_bytes"] >= found["rss_bytes"]


def test_without_proc_only_the_peak_is_known(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(counters, "open", missing, raising=False)
    found = counters.memory()
    assert set(found) <= {"peak_bytes"}
    assert not counters.reset_peak()
    if found:
        assert 1 << 20 < found["peak_bytes"] < 1 << 40


def test_use_of_the_processor_grows():
    before = counters.usage()
    end = before["user_ns"] + before["system_ns"] + 30_000_000
    while (now := counters.usage())["user_ns"] + now["system_ns"] < end:
        sum(range(10_000))
    assert all(now[name] >= before[name] for name in before)
