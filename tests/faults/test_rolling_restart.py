"""A fleet whose replicas are restarted one after the other, behind a balancer, while clients ask."""

import signal

from tests.support.balancer import Backend, Balancer
from tests.support.load import Load
from tests.support.processes import Heimdall, Launcher, RedisServer, free_port
from tests.support.upstream import HOST, Upstream

KEPT = [f"kept{number}.example.com" for number in range(30)]
BRIEF = [f"brief{number}.example.com" for number in range(10)]


def test_three_replicas_restarted_in_turn_under_load_lose_no_query(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    for name in KEPT:
        upstream.add(name, "A", "192.0.2.1", ttl=3600)
    for name in BRIEF:  # so that there are misses all the time
        upstream.add(name, "A", "192.0.2.2", ttl=1)
    backends = [Backend((HOST, free_port()), (HOST, free_port())) for _ in range(3)]

    def start(backend: Backend) -> Heimdall:
        dns, http = (f"{host}:{port}" for host, port in (backend.dns, backend.http))
        patient = ("--redis-timeout", "5", "--redis-read-budget", "2", "--drain-seconds", "60")
        return heimdall("--bind-addr", dns, "--http-bind-addr", http, "--redis-url", redis.url, *patient)

    replicas = {backend: start(backend) for backend in backends}
    with Balancer(backends) as balancer:
        balancer.wait_until_ready(backends)
        with Load(balancer.address, [*KEPT, *BRIEF]) as load:
            load.go_on()
            for backend in backends:
                others = set(backends) - {backend}
                replicas[backend].send(signal.SIGTERM)
                balancer.wait_until_ready(others)
                load.go_on(50)
                hurry(replicas[backend])
                load.go_on(50)
                replicas[backend] = start(backend)
                balancer.wait_until_ready({backend, *others})
                handed = balancer.handed[backend]
                load.go_on()
                assert balancer.handed[backend] > handed
        assert load.outcomes == {"NOERROR": load.asked}
    # What the others had came back with each: cold, all of them would have been asked for again, three times.
    assert sum(upstream.count(name) for name in KEPT) < 2 * len(KEPT)
    for replica in replicas.values():
        replica.send(signal.SIGTERM)
        hurry(replica)


def hurry(replica: Heimdall) -> None:
    """End a drain: who it is for has gone."""
    replica.wait_for_line("draining")
    replica.send(signal.SIGTERM)
    assert replica.wait() == 0
