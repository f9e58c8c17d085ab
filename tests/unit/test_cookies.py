"""DNS cookies towards clients (RFC 7873)."""

import pytest

from heimdall_lib import cookies
from heimdall_lib.errors import WireError
from tests.support.messages import option

SECRET, HALF = b"s" * 16, b"12345678"
COOKIE = 10


@pytest.mark.parametrize("size", [8, 16, 24, 40])
def test_the_clients_half_is_the_first_eight_octets(size: int) -> None:
    assert cookies.client_half(HALF + bytes(size - 8)) == HALF


@pytest.mark.parametrize("size", [0, 7, 9, 15, 41])
def test_a_cookie_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(WireError):
        cookies.client_half(bytes(size))


def test_the_answer_is_the_clients_half_and_one_of_eight_octets() -> None:
    made = cookies.option(SECRET, HALF, "192.0.2.1")
    assert made == option(COOKIE, HALF + made[-8:])
    assert len(made) == 4 + 16


def test_the_servers_half_depends_on_the_secret_the_clients_half_and_the_address() -> None:
    made = cookies.option(SECRET, HALF, "192.0.2.1")
    assert made == cookies.option(SECRET, HALF, "192.0.2.1")
    others = [(b"t" * 16, HALF, "192.0.2.1"), (SECRET, b"87654321", "192.0.2.1"), (SECRET, HALF, "192.0.2.2")]
    assert len({made[-8:], *(cookies.option(*other)[-8:] for other in others)}) == 4
