"""Numbers as Java reads and writes them; the expectations are what a Java virtual machine says (25, `jshell`)."""

import math

import pytest

from outgate.mailer.configuration.java_numbers import floating, trimmed, whole, written


@pytest.mark.parametrize(
    ("text", "double", "single"),
    [
        ("1", "1.0", "1.0"),
        ("1.5", "1.5", "1.5"),
        ("-0", "-0.0", "-0.0"),
        (" 1e3 ", "1000.0", "1000.0"),
        ("1e400", "Infinity", "Infinity"),
        ("-1e-400", "-0.0", "-0.0"),
        ("1e99999999999", "Infinity", "Infinity"),
        ("0x1.8p1", "3.0", "3.0"),
        ("0X.8P-2f", "0.125", "0.125"),
        ("-0x1p99999", "-Infinity", "-Infinity"),
        ("NaN", "NaN", "NaN"),
        ("-NaN", "NaN", "NaN"),
        ("+Infinity", "Infinity", "Infinity"),
        ("1f", "1.0", "1.0"),
        (".5d", "0.5", "0.5"),
        ("5.", "5.0", "5.0"),
        ("\x0112", "12.0", "12.0"),
        ("0.001", "0.001", "0.001"),
        ("0.0001", "1.0E-4", "1.0E-4"),
        ("9999999", "9999999.0", "9999999.0"),
        ("1e7", "1.0E7", "1.0E7"),
        ("123456.789", "123456.789", "123456.79"),
        ("100", "100.0", "100.0"),
        ("1e23", "1.0E23", "1.0E23"),
        ("4.9e-324", "4.9E-324", "0.0"),
        ("1.4e-45", "1.4E-45", "1.4E-45"),
        ("3.4028235677973366e38", "3.4028235677973366E38", "3.4028235E38"),
        ("1.00000017881393432617187499", "1.0000001788139343", "1.0000001"),
        ("1.00000017881393432617187501", "1.0000001788139343", "1.0000002"),
        ("1.000000178813934326171875", "1.0000001788139343", "1.0000002"),
        ("16777217", "1.6777217E7", "1.6777216E7"),
        ("15298159722889216", "1.5298159722889216E16", "1.529816E16"),
    ],
)
def test_what_java_takes_for_a_number(text: str, double: str, single: str) -> None:
    first, second = floating(text), floating(text, single=True)
    assert first is not None and second is not None
    assert (written(first), written(second, single=True)) == (double, single)


@pytest.mark.parametrize(
    "text",
    ["", ".", "e5", "1e", "1e+", "1_0", "1L", "infinity", "nan", "0x", "0x1.8", "0x.p1", "++5", "1 2", "\u00a05", "４", "1ff"],
)  # fmt: skip
def test_what_it_does_not(text: str) -> None:
    assert floating(text) is None and floating(text, single=True) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("+7", 7), ("-0", 0), ("-08", -8), ("4６", 46), ("٤", 4), ("0" * 9000 + "5", 5), ("", None), ("-", None)]
    + [(text, None) for text in ("++5", " 5", "5 ", "1_0", "5L", "0x5", "5.0", "½", "²", "𝟻", "9" * 10_001)],
)
def test_whole_numbers(text: str, number: int | None) -> None:
    assert whole(text) == number


def test_a_whole_number_of_any_size_is_out_of_every_range() -> None:
    for digits in (20, 3999, 4000, 9999):
        number = whole("-" + "9" * digits)
        assert number is not None and number < -(2**63)


def test_every_number_comes_back() -> None:
    for number in (5e-324, 2.2250738585072014e-308, 0.1, 1 / 3, 1e-3, 9999999.999, 1.7976931348623157e308):
        assert floating(written(number)) == number and floating(written(-number)) == -number
    assert math.isnan(floating(written(math.nan)) or 0.0)


def test_trimming_is_java_s() -> None:
    assert trimmed("\0\t\x1f x\u00a0 \n") == "x\u00a0"
