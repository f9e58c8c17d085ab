"""Whatever is logged, a line is one line."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heimdall_lib.log import JsonFormatter, TextFormatter
from tests.properties.strategies import CHECKED

# Lone surrogates included: that is how Python shows octets that are not UTF-8.
TEXTS = st.one_of(
    st.text(st.characters(codec=None)),
    st.text(st.sampled_from("a\n\r\v\f\x1b\x1c\x1d\x1e\x85\u2028\u2029\x00\x7f\u202e\ud800[2J"), max_size=20),
)


def logged(text: str, cause: str) -> logging.LogRecord:
    try:
        raise RuntimeError(cause)
    except RuntimeError as error:
        exc_info = type(error), error, error.__traceback__
    return logging.LogRecord("heimdall.test", logging.ERROR, "file", 1, "failed: %s", (text,), exc_info)


@CHECKED
@given(text=TEXTS, cause=TEXTS)
def test_a_line_of_text_is_one_printable_line(text: str, cause: str) -> None:
    line = TextFormatter().format(logged(text, cause))

    assert line.isprintable()
    assert len(line.splitlines()) == 1


@CHECKED
@given(text=TEXTS, cause=TEXTS)
def test_a_line_of_json_is_one_line_and_gives_back_the_message(text: str, cause: str) -> None:
    line = JsonFormatter().format(logged(text, cause))

    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == f"failed: {text}"


@pytest.mark.parametrize("make", [TextFormatter, JsonFormatter])
def test_the_exception_is_in_the_line(make: type[logging.Formatter]) -> None:
    assert "RuntimeError: out of luck" in make().format(logged("text", "out of luck"))
