"""A board that nothing brought back is out of use for the session, in every worker of it."""

from __future__ import annotations

import pytest

from pytest_mlbench.errors import BoardFailed, StageError
from pytest_mlbench.quarantine import Quarantine

CASE = "s/b[m-firmware-int8-m4]"


def test_a_device_that_was_given_up_is_refused_with_what_happened(tmp_path):
    one = Quarantine(tmp_path)
    one.check("m4")
    one.add("m4", CASE, "measure: infer: no answer")
    with pytest.raises(BoardFailed) as raised:
        one.check("m4")
    assert raised.value.stage == "quarantine"
    assert str(raised.value) == (
        f"quarantine: device m4 was given up in {CASE}: measure: infer: no answer\nIt is not used again in this "
        "session; look at the board (power, cable, image), then start the session again"
    )
    one.check("m7")


def test_another_worker_of_the_session_knows_of_it(tmp_path):
    Quarantine(tmp_path).add("m4", CASE, "gone")
    with pytest.raises(StageError, match="gone"):
        Quarantine(tmp_path).check("m4")


def test_another_session_begins_anew(tmp_path):
    Quarantine(tmp_path / "one").add("m4", CASE, "gone")
    Quarantine(tmp_path / "two").check("m4")


def test_a_name_is_no_path(tmp_path):
    (tmp_path / "parts").mkdir()
    Quarantine(tmp_path / "parts").add("../../m4", CASE, "gone")
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_it_holds_in_its_own_process_without_the_folder(tmp_path):
    one = Quarantine(tmp_path / "not there")
    one.add("m4", CASE, "gone")
    with pytest.raises(BoardFailed, match="gone"):
        one.check("m4")
