"""Where Helm's engine has no wheel, the chart cannot be rendered: its tests are left out, and the header says so."""

import importlib.util

_HELM = importlib.util.find_spec("helm_python") is not None

collect_ignore_glob = [] if _HELM else ["test_*.py"]


def pytest_report_header() -> list[str]:
    return [] if _HELM else ["tests/chart is left out: helm-python-sdk has no wheel for this platform"]
