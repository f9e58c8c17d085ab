"""What fault tests are given: the same as end-to-end tests."""

from tests.e2e.conftest import heimdall, redis, upstream

__all__ = ["heimdall", "redis", "upstream"]
