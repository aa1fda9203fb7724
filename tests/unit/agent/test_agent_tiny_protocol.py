"""The line protocol of MLPerf Tiny against transcripts written from its description, byte by byte.

A script says what the board answers to each command, so that these tests share nothing with our own firmware or fake.
"""

from __future__ import annotations

import pytest

from pytest_mlbench.agent.board import LineLost, WrongBoard
from pytest_mlbench.agent.tiny_protocol import Identity, LineSettings, Refused, ReplyError, Restarted, TinyLine
from pytest_mlbench.agent.transcript import Transcript

BANNER = b"m-timestamp-mode-performance\r\nm-lap-us-12\r\nm-init-done\r\nm-ready\r\n"
NAME = b"m-name-dut-[acme]\r\nm-ready\r\n"
PROFILE = b"m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[ic01]\r\nm-ready\r\n"
EMPTY = b"e-[Unknown command: ]\r\nm-ready\r\n"
OPEN = {"": [EMPTY], "name": [NAME], "profile": [PROFILE]}
IDENTITY = Identity("dut-[acme]", "acme", "ULPMark for tinyML Firmware V0.0.1", "ic01")


def infer(calls, first, last, results="0.000,1.000", warm_up=0):
    return (
        f"m-warmup-start-{warm_up}\r\nm-warmup-done\r\nm-infer-start-{calls}\r\nm-lap-us-{first}\r\nm-lap-us-{last}\r\n"
        f"m-infer-done\r\nm-results-[{results}]\r\nm-ready\r\n"
    ).encode()


class Clock:
    """Time passes only when something waits for it."""

    now = 0.0

    def __call__(self):
        return self.now


class Script:
    """A transport whose answers are written down: command -> answers, the last of which is given for ever.

    An answer may be a list of pieces that arrive one after the other; a number among them is a pause in seconds.
    """

    levels = ()

    def __init__(self, answers, clock, before=b""):
        self.answers = {command: list(given) for command, given in answers.items()}
        self.sent = []
        self._clock = clock
        self._coming = [before] if before else []
        self._typed = b""

    def write(self, data):
        self._typed += data
        while b"%" in self._typed:
            command, _, self._typed = self._typed.partition(b"%")
            self.sent.append(command.decode())
            given = self.answers.get(command.decode(), [b""])
            answer = given.pop(0) if len(given) > 1 else given[0]
            self._coming += answer if isinstance(answer, list) else [answer]

    def read(self, timeout_s):
        while self._coming:
            piece = self._coming[0]
            if piece is LineLost:
                raise LineLost("the line fake is gone")
            if isinstance(piece, float):
                wait = min(piece, timeout_s)
                self._clock.now += wait
                self._coming[0] = piece - wait
                if self._coming[0] > 0:
                    return b""
                self._coming.pop(0)
                continue
            return self._coming.pop(0)
        self._clock.now += timeout_s
        return b""


def line_of(answers, before=b"", **settings):
    clock = Clock()
    script = Script({**OPEN, **answers}, clock, before)
    line = TinyLine(script, LineSettings(**settings), Transcript(clock=clock), clock)
    return line, script, clock


# --- opening ------------------------------------------------------------------------------------------------


def test_opening_sends_an_empty_command_then_asks_who_it_is():
    line, script, _ = line_of({})
    assert line.open() == IDENTITY
    assert script.sent == ["", "name", "profile"]


def test_what_is_left_of_a_banner_or_an_earlier_answer_is_dropped():
    line, _, _ = line_of({"infer 1 0": [infer(1, 5, 9)]}, before=BANNER + b"m-results-[0.5]\r\nm-ready\r\nm-lap")
    assert line.open() == IDENTITY
    assert line.infer(1).lap_ns == 4000, "the answers are not one command late"


def test_a_banner_that_comes_late_is_waited_for():
    line, script, clock = line_of({"": [[1.5, BANNER], EMPTY], "name": [[0.2], NAME]})
    assert line.open() == IDENTITY
    assert script.sent.count("name") >= 2
    assert clock.now < 5.0 + 2.5


def test_a_board_that_ignores_commands_until_it_is_ready_is_asked_again():
    line, _, _ = line_of({"": [b"", b"", EMPTY], "name": [b"", b"", NAME]})
    assert line.open() == IDENTITY


def test_silence_ends_at_the_deadline():
    line, _, clock = line_of({"": [b""], "name": [b""]}, boot_timeout_s=4.0)
    with pytest.raises(ReplyError) as raised:
        line.open()
    assert str(raised.value) == (
        "no board that speaks the protocol answered within 4 s (no answer to `name` within 2.02 s: expected "
        "'m-name-dut-[VENDOR]'); look at the baud rate (115200), and whether an image runs that answers `name`"
    )
    assert clock.now < 4.0 + 2.5


def test_a_wrong_baud_rate_is_told_by_its_garbage():
    line, _, _ = line_of({"name": [b"\xf3\x8d\xfe\n"]}, baud=9600, boot_timeout_s=0.5)
    with pytest.raises(ReplyError, match=r"garbage in answer to `name`: '\\xf3\\x8d\\xfe'.*baud rate \(9600\)"):
        line.open()


def test_a_line_that_is_never_quiet_is_no_board():
    line, _, clock = line_of({"": [[piece for _ in range(4000) for piece in (b"noise ", 0.01)]]}, boot_timeout_s=3.0)
    with pytest.raises(ReplyError, match=r"the line does not become quiet: \d+ bytes came, the last are '.*noise '"):
        line.open()
    assert clock.now < 10


def test_another_board_on_the_port_is_told_by_its_name():
    line, _, _ = line_of({}, name="other")
    with pytest.raises(WrongBoard) as raised:
        line.open()
    assert str(raised.value) == (
        "the board answers `name` with 'dut-[acme]', expected 'other': another board is on this port; "
        "correct the port, or `name` of the device"
    )


@pytest.mark.parametrize("name", ["acme", "dut-[acme]", ""])
def test_a_name_is_the_vendor_or_the_whole_answer(name):
    assert line_of({}, name=name)[0].open() == IDENTITY


# --- commands -----------------------------------------------------------------------------------------------


def load_answers(count, size):
    starts = list(range(0, count, size))
    data = bytes(index % 256 for index in range(count))
    answers = {f"db load {count}": [f"m-[Expecting {count} bytes]\r\nm-ready\r\n".encode()]}
    for start in starts:
        last = start == starts[-1]
        answers["db " + data[start : start + size].hex()] = [b"m-load-done\r\nm-ready\r\n" if last else b"m-ready\r\n"]
    return data, answers


def test_an_input_is_loaded_31_bytes_a_command():
    data, answers = load_answers(70, 31)
    line, script, _ = line_of(answers)
    line.load(data)
    assert script.sent == ["db load 70", f"db {data[:31].hex()}", f"db {data[31:62].hex()}", f"db {data[62:].hex()}"]
    assert max(map(len, script.sent)) < 80, "the firmware's buffer"


def test_a_load_whose_end_is_not_told_lost_bytes():
    data, answers = load_answers(40, 31)
    answers["db " + data[31:].hex()] = [b"m-ready\r\n"]
    line, _, _ = line_of(answers)
    with pytest.raises(ReplyError, match=r"^the answer to `db 1f20\w+` ended early: 'm-ready', expected 'm-load-done'"):
        line.load(data)


def test_more_than_the_board_takes_is_refused_by_a_line_that_is_no_error_line():
    line, _, _ = line_of({"db load 99999": [b"Supplied buffer size 99999 exceeds maximum of 27648\r\nm-ready\r\n"]})
    with pytest.raises(Refused, match=r"^the board refused `db load 99999`: Supplied buffer size 99999"):
        line.load(bytes(99999))


@pytest.mark.parametrize("error", ["e-[Insufficent number of hex digits]", "e-[Invalid hex digit '1%']"])
def test_an_error_line_is_the_boards_refusal_and_the_line_stays_in_step(error):
    line, _, _ = line_of(
        {"db load 1": [b"m-[Expecting 1 bytes]\r\nm-ready\r\n"], "db 00": [f"{error}\r\nm-ready\r\n".encode()]}
    )
    with pytest.raises(Refused) as raised:
        line.load(b"\0")
    assert str(raised.value) == f"the board refused `db 00`: {error}"
    assert line.open() == IDENTITY


def test_time_is_the_difference_of_two_laps():
    line, script, _ = line_of({"infer 7 0": [infer(7, 1000, 1700, "0.125,-3.500,1.000")]})
    found = line.infer(7)
    assert (found.lap_ns, found.tick_ns) == (700_000, 1000)
    assert found.results == (0.125, -3.5, 1.0)
    assert script.sent == ["infer 7 0"], "without W the firmware warms up 10 times"


def test_laps_wrap_after_71_minutes():
    line, _, _ = line_of({"infer 1 0": [infer(1, 2**32 - 100, 200)]})
    assert line.infer(1).lap_ns == 300_000


@pytest.mark.parametrize(("unit", "tick_ns"), [("us", 1000), ("ms", 1_000_000), ("ns", 1)])
def test_the_unit_is_the_one_the_board_names(unit, tick_ns):
    answer = infer(1, 10, 13).replace(b"lap-us", f"lap-{unit}".encode())
    line, _, _ = line_of({"infer 1 0": [answer], "timestamp": [f"m-lap-{unit}-7\r\nm-ready\r\n".encode()]})
    assert line.infer(1).lap_ns == 3 * tick_ns
    assert line.tick_ns() == tick_ns


def test_the_boards_own_text_is_let_through():
    answer = b"starting\r\n" + infer(1, 1, 2).replace(b"m-infer-done", b"debug x=1\r\nm-infer-done")
    line, _, _ = line_of({"infer 1 0": [answer]})
    assert line.infer(1).lap_ns == 1000


def test_an_answer_may_come_in_pieces():
    whole = infer(1, 1, 2)
    pieces = [piece for index in range(len(whole)) for piece in (whole[index : index + 1], 0.001)]
    line, _, _ = line_of({"infer 1 0": [pieces]})
    assert line.infer(1).lap_ns == 1000


# --- energy mode and the interface board ----------------------------------------------------------------------


def test_in_energy_mode_there_are_no_laps_on_the_line():
    answer = b"m-warmup-start-2\r\nm-warmup-done\r\nm-infer-start-3\r\nm-infer-done\r\nm-results-[1.000]\r\nm-ready\r\n"
    line, _, _ = line_of({"infer 3 2": [answer]}, mode="energy")
    assert line.infer(3, 2).lap_ns is None


@pytest.mark.parametrize(
    ("mode", "answer", "message"),
    [
        ("energy", infer(1, 1, 2), "answered with a timestamp, 'm-lap-us-1': the image is built for performance mode"),
        (
            "performance",
            b"m-warmup-start-0\r\nm-warmup-done\r\nm-infer-start-1\r\nm-infer-done\r\nm-results-[1.000]\r\nm-ready\r\n",
            "answered without a timestamp: the image is built for energy mode",
        ),
    ],
)
def test_an_image_of_the_other_mode_is_told(mode, answer, message):
    line, _, _ = line_of({"infer 1 0": [answer]}, mode=mode)
    with pytest.raises(WrongBoard, match=message):
        line.infer(1)


def test_a_board_without_timestamps_is_told_before_anything_is_measured():
    line, _, _ = line_of({"timestamp": [b"m-ready\r\n"]})
    with pytest.raises(WrongBoard, match="`timestamp` was answered without a timestamp: the image is built for energy"):
        line.tick_ns()


def bridged(command, answer):
    passed = f"m-dut-passthrough({command})\r\nm-ready\r\n".encode()
    return {f"dut {command}": [passed + b"".join(b"[dut]: " + each + b"\r\n" for each in answer.split(b"\r\n")[:-1])]}


def test_through_the_interface_board_each_command_is_answered_twice():
    data, answers = load_answers(30, 26)
    told = {**bridged("name", NAME), **bridged("profile", PROFILE)}
    for command, given in answers.items():
        told |= bridged(command, given[0])
    told |= bridged("infer 1 0", infer(1, 3, 8))
    line, script, _ = line_of(told, io_manager=True)
    assert line.open() == IDENTITY
    line.load(data)
    assert line.infer(1).lap_ns == 5000
    assert f"dut db {data[:26].hex()}" in script.sent, "26 bytes a command"


def test_an_interface_board_that_answers_for_the_board_is_told():
    line, _, _ = line_of(
        {"dut name": [b"m-dut-passthrough(name)\r\nm-ready\r\nm-name-dut-[acme]\r\n"]},
        io_manager=True,
        boot_timeout_s=0.1,
    )
    with pytest.raises(ReplyError, match=r"the interface board sent 'm-name-dut-\[acme\]', expected '\[dut\]: m-name"):
        line.open()


# --- what goes wrong ----------------------------------------------------------------------------------------

GOOD = infer(1, 1, 2)
WRONG = {
    "previous": (PROFILE, ReplyError, "`infer 1 0` was answered with 'm-profile-[ULPMark for tinyML Firmware V0.0.1]', "
                 "expected 'm-warmup-start-0': it is the answer to an earlier command, or lines were lost"),
    "of another count": (infer(2, 1, 2), ReplyError, "`infer 1 0` was answered with 'm-infer-start-2', expected "
                         "'m-infer-start-1'"),
    "half": (GOOD[:58], ReplyError, "no answer to `infer 1 0` within 12.7 s: expected 'm-lap-us-N', after half a line, "
             "'m-lap-us'"),
    "cut at a line's end": (GOOD[:52], ReplyError, "expected 'm-lap-us-N'"),
    "ready too early": (b"m-warmup-start-0\r\nm-ready\r\n", ReplyError, "the answer to `infer 1 0` ended early: "
                        "'m-ready', expected 'm-warmup-done'"),
    "nothing": (b"", ReplyError, "no answer to `infer 1 0` within 12.7 s: expected 'm-warmup-start-0'"),
    "garbage": (b"m-warm\x00\xffup\r\n" + GOOD, ReplyError, "garbage in answer to `infer 1 0`: 'm-warm\\x00\\xffup'"),
    "a line lost": (GOOD.replace(b"m-infer-start-1\r\n", b""), ReplyError, "was answered with 'm-lap-us-1', "
                    "expected 'm-infer-start-1'"),
    "too long": (b"x" * 70_000, ReplyError, "70000 bytes without the end of a line came in answer to `infer 1 0`"),
    "restart": (b"m-warmup-start-0\r\n" + BANNER, Restarted, "the board restarted while it worked on `infer 1 0`: "
                "'m-timestamp-mode-performance', expected 'm-warmup-done'"),
    "no numbers": (infer(1, 1, 2, "0.1,x"), ReplyError, "holds what is no number: 'm-results-[0.1,x]'"),
    "unplugged": ([b"m-warmup-start-0\r\n", LineLost], LineLost, "the line fake is gone"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_an_answer_that_is_not_the_commands_is_an_error_that_says_what_was_expected(fault):
    answer, kind, message = WRONG[fault]
    line, _, clock = line_of({"infer 1 0": [answer]})
    with pytest.raises(kind) as raised:
        line.infer(1)
    assert message in str(raised.value)
    assert clock.now < 15, "every wait ends"


def test_the_same_answer_twice_is_told_by_its_timestamps():
    line, _, _ = line_of({"infer 1 0": [infer(1, 5000, 5100)]})
    line.infer(1)
    with pytest.raises(ReplyError, match="with the timestamps of the answer before, 5000 and 5100: it is that answer"):
        line.infer(1)


def test_a_counter_that_begins_anew_with_each_command_may_repeat_itself():
    line, _, _ = line_of({"infer 1 0": [infer(1, 2, 102)]})
    assert line.infer(1).lap_ns == line.infer(1).lap_ns == 100_000


def test_a_timestamp_that_is_lost_where_there_were_some_is_no_other_mode():
    lost = infer(1, 9, 12).replace(b"m-lap-us-12\r\n", b"")
    line, _, _ = line_of({"infer 1 0": [infer(1, 1, 2), lost]})
    line.infer(1)
    with pytest.raises(ReplyError, match="was answered with 'm-infer-done', expected 'm-lap-us-N'") as raised:
        line.infer(1)
    assert not isinstance(raised.value, WrongBoard)


def test_after_a_lost_answer_opening_brings_the_line_back_into_step():
    line, _, _ = line_of({"infer 1 0": [PROFILE, GOOD]})
    line.open()
    with pytest.raises(ReplyError):
        line.infer(1)
    line.open()
    assert line.infer(1).lap_ns == 1000


# --- deadlines ----------------------------------------------------------------------------------------------


def waited(line, clock, *arguments):
    begin = clock.now
    with pytest.raises(ReplyError):
        line.infer(*arguments)
    return clock.now - begin


def test_a_deadline_grows_with_the_inferences_once_their_time_is_known():
    slow = {"infer 1 0": [[0.1, infer(1, 0, 100_000)]], "infer 50 0": [b""], "infer 5 0": [b""]}
    line, _, clock = line_of(slow)
    line.infer(1)
    few, many = waited(line, clock, 5), waited(line, clock, 50)
    assert 0.1 * 3 * 45 * 0.9 < many - few < 0.1 * 3 * 45 * 1.1


def test_a_deadline_grows_as_the_line_gets_slower():
    waits = {}
    for baud in (9600, 921600):
        line, _, clock = line_of({"infer 1 0": [b""]}, baud=baud, infer_timeout_s=1.0)
        waits[baud] = waited(line, clock, 1)
    assert waits[9600] - waits[921600] == pytest.approx(8202 * 10 / 9600, rel=0.05)


# --- the transcript -----------------------------------------------------------------------------------------


def test_the_transcript_has_both_directions_with_times():
    line, _, _ = line_of({"infer 1 0": [[0.25, infer(1, 1, 2)]]})
    line.open()
    line.infer(1)
    text = line.transcript.text()
    assert "> infer 1 0%" in text
    assert "< m-results-[0.000,1.000]" in text
    sent = next(each for each in text.splitlines() if "infer 1 0" in each)
    got = next(each for each in text.splitlines() if "m-results" in each)
    assert float(got.split()[0]) - float(sent.split()[0]) == pytest.approx(0.25, abs=0.01)


def test_the_transcript_is_bounded_and_keeps_the_end():
    clock = Clock()
    kept = Transcript(limit=1000, clock=clock)
    for number in range(500):
        kept.received(f"line {number}".encode())
    text = kept.text()
    assert len(text) < 1100
    assert text.splitlines()[0].endswith("earlier lines left out)")
    assert text.endswith("line 499")


def test_payloads_are_shortened_and_repeats_are_counted():
    data, answers = load_answers(31 * 40, 31)
    line, _, _ = line_of(answers)
    line.load(data)
    text = line.transcript.text()
    assert "lines of the same kind)" in text
    assert text.endswith("m-load-done\n" + text.splitlines()[-1])
    assert len(text) < 1000


def test_unprintable_bytes_are_shown_as_escapes():
    kept = Transcript(clock=Clock())
    kept.received(b"\xff\x00a\tb")
    assert r"\xff\x00a\tb" in kept.text()
