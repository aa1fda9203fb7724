from __future__ import annotations

import hashlib

import pytest

from pytest_mlbench.checks.inputs import check_digest

ONE, OTHER = (hashlib.sha256(text).hexdigest() for text in (b"one", b"other"))


@pytest.mark.parametrize("expected", [ONE, ONE.upper(), f" {ONE}\n"])
def test_the_declared_digest_passes(expected) -> None:
    result = check_digest(ONE, expected, "digits, onnx inputs")
    assert (result.name, result.outcome) == ("inputs_sha256", "pass")
    assert "digits, onnx inputs" in result.message


def test_another_digest_fails_and_shows_both() -> None:
    result = check_digest(ONE, OTHER, "digits, onnx inputs")
    assert result.outcome == "fail"
    assert ONE in result.message
    assert OTHER in result.message
    assert result.facts == {"found": ONE, "expected": OTHER, "what": "digits, onnx inputs"}


def test_without_a_declaration_the_digest_to_pin_is_printed() -> None:
    result = check_digest(ONE, None, "digits")
    assert result.outcome == "pass"
    assert "no digest is declared" in result.message
    assert f'"{ONE}"' in result.message


@pytest.mark.parametrize("expected", ["", "abc", ONE[:-1], ONE + "0", "g" * 64])
def test_something_that_is_no_digest_is_invalid(expected) -> None:
    result = check_digest(ONE, expected, "digits")
    assert result.outcome == "invalid"
    assert "64 hex digits" in result.message
