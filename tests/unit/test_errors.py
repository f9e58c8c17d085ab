"""The exceptions that cross boundaries."""

import pytest

from heimdall_lib import errors
from heimdall_lib.errors import HeimdallError, NoAnswerError, SettingError, SharedCacheError, UpstreamError
from heimdall_lib.settings import Secret


def test_everything_that_heimdall_raises_on_purpose_has_one_root() -> None:
    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    assert len(classes) > 5
    assert all(issubclass(one, HeimdallError) for one in classes)


def test_a_setting_error_is_one_line_with_name_value_and_what_is_allowed() -> None:
    error = SettingError("--workers", "many\n\x1b[2J", "an integer from 0 to 64")
    assert error.name == "--workers"
    assert str(error) == r"--workers: 'many\n\x1b[2J': an integer from 0 to 64"


def test_a_setting_error_does_not_show_a_secret() -> None:
    assert "correct-horse" not in str(SettingError("--admin-token", Secret("correct-horse"), "visible ASCII"))


@pytest.mark.parametrize("kind", [UpstreamError, SharedCacheError])
def test_a_reason_is_kept_apart_from_the_detail(kind: type[UpstreamError | SharedCacheError]) -> None:
    error = kind("timeout", "udp://192.0.2.1:53: no answer")
    assert error.reason == "timeout"
    assert str(error) == "udp://192.0.2.1:53: no answer"


def test_no_answer_says_why() -> None:
    error = NoAnswerError(22, "no upstream server answered in time")
    assert (error.code, error.text, str(error)) == (22, error.text, "no upstream server answered in time")
