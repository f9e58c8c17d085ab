"""Three Heimdalls and one Redis, in containers: N replicas behave as one cache."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.container.engine import ADDRESS, Replica, Stack, eventually, run, running_stack
from tests.support import client

pytestmark = [pytest.mark.container, pytest.mark.timeout(300)]

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def stack(compose: list[str], image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Every test leaves it as it was, but for names of its own."""
    with running_stack(compose, image, tmp_path_factory.mktemp("fleet"), replicas=3) as stack:
        yield stack


@pytest.fixture
def name() -> str:
    return f"n{next(NUMBERS)}.example"


@pytest.fixture
def replicas(stack: Stack) -> list[Replica]:
    found = stack.replicas()
    assert len(found) == 3
    eventually(lambda: all(each.metric("redis_up") == 1 for each in found))
    return found


def know(stack: Stack, name: str, *replicas: Replica) -> None:
    """Make replicas know a name, one after the other."""
    for replica in replicas:
        assert replica.addresses(name) == [ADDRESS]
        eventually(lambda: name in stack.stored())


def test_what_one_has_resolved_the_others_find_in_redis(stack: Stack, replicas: list[Replica], name: str) -> None:
    hits = [each.metric("redis_hits_total") for each in replicas]
    know(stack, name, *replicas)
    assert stack.asked(name) == 1
    assert [each.metric("redis_hits_total") for each in replicas] == [hits[0], hits[1] + 1, hits[2] + 1]
    assert client.ttl(replicas[2].ask(name)) <= 3600


def test_a_name_that_all_are_asked_for_at_once_is_asked_upstream_once(
    stack: Stack, replicas: list[Replica], name: str
) -> None:
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda replica: replica.addresses(name), replicas * 4))
    assert answers == [[ADDRESS]] * 12
    assert stack.asked(name) == 1


def test_a_flush_reaches_all_three(stack: Stack, replicas: list[Replica], name: str) -> None:
    know(stack, name, *replicas)
    assert "forgotten by 3 of 3 replicas" in replicas[0].command("flush", name)
    assert [replica.where(name) for replica in replicas] == ["nowhere"] * 3
    assert name not in stack.stored()


def test_a_replica_that_is_killed_is_missed_by_nobody(stack: Stack, replicas: list[Replica], name: str) -> None:
    killed, *others = replicas
    know(stack, name, killed)
    run("docker", "kill", killed.container)
    know(stack, name, *others)
    assert stack.asked(name) == 1
    eventually(lambda: "forgotten by 2 of 2 replicas" in others[0].command("flush", name))
    run("docker", "start", killed.container)
    eventually(lambda: "forgotten by 3 of 3 replicas" in others[0].command("flush", name))


def test_without_redis_each_answers_for_itself_and_with_it_they_share_again(
    stack: Stack, replicas: list[Replica], name: str
) -> None:
    know(stack, name, replicas[0])
    run("docker", "kill", stack.container("redis"))
    for number, replica in enumerate(replicas):
        assert replica.addresses(name) == [ADDRESS]
        assert replica.addresses(f"alone{number}.{name}") == [ADDRESS]
        assert replica.get("/readyz").status == 200
    stack.start("redis")
    eventually(lambda: all(each.metric("redis_up") == 1 for each in replicas))
    know(stack, f"again.{name}", *replicas)
    assert stack.asked(f"again.{name}") == 1
