"""What a supervisor knows without starting a process."""

from heimdall_lib.config import Machine, load
from heimdall_lib.workers import Patience, packed, unpacked

MACHINE = Machine(resolv_conf="/nonexistent/resolv.conf", is_local=lambda _: False)


def test_settings_reach_a_worker_as_they_are() -> None:
    settings = load(
        [
            "--upstream-servers=192.0.2.53,tls://192.0.2.54#dns.example",
            "--forward-zones=corp.example=192.0.2.55",
            "--redis-url=redis://user:a-password@192.0.2.1/3",
            "--redis-signing-key=0123456789abcdef,fedcba9876543210",
            "--allow-from=192.0.2.0/24,2001:db8::/32",
            "--http-bind-addr=disabled",
        ],
        {},
        MACHINE,
    )
    again = unpacked(packed(settings))
    assert again == settings
    assert "a-password" not in repr(again)


def test_the_first_to_end_is_replaced_at_once_then_later_and_later() -> None:
    patience = Patience()
    assert [patience.after(1.0) for _ in range(8)] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_after_a_long_life_it_begins_anew() -> None:
    patience = Patience()
    for _ in range(5):
        patience.after(1.0)
    assert [patience.after(3600.0), patience.after(3600.0), patience.after(1.0)] == [0.0, 0.0, 0.5]
