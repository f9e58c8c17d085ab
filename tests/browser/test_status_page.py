"""The status page in a browser: what a person sees of a live Heimdall, does with it, and is kept from."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Dialog, Locator, Page, Route, ViewportSize, expect

from tests.browser.conftest import REBOUND
from tests.support.processes import Heimdall, Launcher
from tests.support.upstream import Upstream

NAME = "www.example.com"
HOSTILE = r"<img\032src\061x\032onerror\061alert(1)>.evil.example"
HOSTILE_AS_TEXT = r"\060img\032src\061x\032onerror\061alert\0401\041\062.evil.example"
TOKEN = "an-admin-token-of-some-length"
POLL = 3000
DESK, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=360, height=740)

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def server() -> Iterator[Heimdall]:
    """One that several tests look at; each asks for names of its own."""
    with Upstream() as upstream:
        upstream.add(NAME, "A", "192.0.2.1")
        launcher = Launcher("--upstream-servers", upstream.address)
        try:
            yield launcher()
            launcher.stop()
        finally:
            launcher.kill()


def address(server: Heimdall, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{server.http[1]}/"


def cell(page: Page, table: str, text: str) -> Locator:
    return page.locator(f"#{table} tr", has_text=text)


def poll(page: Page) -> None:
    """Let the page ask again at once."""
    with page.expect_response(re.compile("/stats")):
        page.clock.run_for(POLL)


def where(server: Heimdall, name: str) -> str:
    return str(json.loads(server.get(f"/cache/entry?name={name}").body)["where"])


def with_stats(page: Page, **parts: Any) -> None:
    """Let the page be told other things than the server says, from now on."""

    def answer(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), **parts})

    page.route(re.compile("/stats"), answer)
    poll(page)


def test_figures_move_with_what_is_asked(server: Heimdall, open_page: Open) -> None:
    page = open_page(address(server))
    expect(page.locator("#sentence")).to_contain_text("● All is well")
    said = page.get_by_role("status").first.text_content()
    before = int(str(page.locator("#queries-more").text_content()).split()[0])
    for _ in range(3):
        server.ask(NAME)
    poll(page)
    expect(page.locator("#queries-more")).to_have_text(f"{before + 3} in all")
    assert page.get_by_role("status").first.text_content() == said, "a screen reader is told of states, not of figures"
    expect(page.locator("#l1")).to_have_text(re.compile("[1-9][0-9]* %"))
    expect(page.locator("#sentence")).to_contain_text("queries a second")
    expect(cell(page, "sources", "upstream")).to_contain_text("%")
    expect(page.locator("#bar")).to_have_attribute("aria-label", re.compile("Share of the answers: memory"))
    expect(cell(page, "upstreams", "udp://127.0.0.1")).to_contain_text("● up")
    expect(page.locator("#l2")).to_have_text("off")
    expect(page).to_have_title(re.compile("Heimdall"))


def test_an_entry_is_looked_up_and_forgotten_by_keyboard_alone(server: Heimdall, open_page: Open) -> None:
    server.ask(NAME)
    page = open_page(address(server))
    page.locator("#name").focus()
    page.keyboard.type(NAME)
    page.keyboard.press("Enter")
    expect(page.locator("#found")).to_contain_text(f"{NAME} A is in memory (L1). A query would be answered from L1.")
    expect(page.locator("#found tbody tr")).to_contain_text("NOERROR")
    page.get_by_role("button", name="Look up").focus()
    for _ in range(2):  # past what is to be forgotten to the button
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#forgotten")).to_contain_text("Forgotten by 1 of 1: 1 from memory here.")
    expect(page.locator("#found")).to_contain_text(f"{NAME} A is nowhere. A query would be asked upstream.")
    assert where(server, NAME) == "nowhere"


def test_much_is_forgotten_only_once_that_is_confirmed(server: Heimdall, open_page: Open) -> None:
    asked: list[str] = []
    server.ask(NAME)
    page = open_page(address(server))
    page.locator("#what").select_option("everything")

    def refuse(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    page.once("dialog", refuse)
    page.get_by_role("button", name="Forget on every replica").click()
    assert re.match("Forget everything, on every replica", asked[0])
    assert where(server, NAME) == "l1"
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Forget on every replica").click()
    expect(page.locator("#forgotten")).to_contain_text("Forgotten by 1 of 1")
    assert where(server, NAME) == "nowhere"


def test_a_mistake_is_said_in_words(server: Heimdall, open_page: Open) -> None:
    page = open_page(address(server), forgiven="400 (Bad Request)")
    page.get_by_label("Name", exact=True).fill("a..b")
    page.get_by_role("button", name="Look up").click()
    expect(page.locator("#found")).to_have_text("Not looked up: name: a label is empty or longer than 63 octets")


def test_a_hostile_name_is_text_and_can_be_looked_up(server: Heimdall, open_page: Open) -> None:
    for _ in range(2):
        server.ask(HOSTILE)
    page = open_page(address(server))
    for table in ("asked", "missed"):
        expect(cell(page, table, HOSTILE_AS_TEXT)).to_have_count(1)
    page.locator("#missed").get_by_role("button", name=HOSTILE_AS_TEXT).click()
    expect(page.locator("#found")).to_contain_text(f"{HOSTILE_AS_TEXT} A is in memory (L1).")
    assert page.locator("img").count() == 0


def test_whatever_the_server_says_is_text(server: Heimdall, open_page: Open) -> None:
    markup = "<img src=x onerror=alert(1)><script>alert(1)</script>"
    page = open_page(address(server))
    stats = json.loads(server.get("/stats?series=true").body)

    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poisoned(each) for key, each in value.items()}
        if isinstance(value, list):
            return [poisoned(each) for each in value]
        return markup if isinstance(value, str) else value

    names = {kind: [{"name": markup, "type": markup, "times": 1}] for kind in ("asked", "missed")}
    with_stats(page, **poisoned(stats) | {"names": names})
    for table in ("asked", "missed", "upstreams"):
        expect(page.locator(f"#{table}")).to_contain_text(markup)
    assert (page.locator("img").count(), page.locator("script").count()) == (0, 1)


def test_trouble_is_told_first(server: Heimdall, open_page: Open) -> None:
    page = open_page(address(server))
    stats = json.loads(server.get("/stats?series=true").body)
    worker = {"number": 2, "pid": 4711, "up": False, "uptime_seconds": 90, "queries": 7, "restarts": 3}
    with_stats(
        page,
        ready=False,
        not_ready="draining",
        last_minute=stats["last_minute"]
        | {"all_per_second": 10, "stale_per_second": 0.5, "servfail_per_second": 2, "shed_per_second": 3},
        l2=stats["l2"] | {"redis": "redis://192.0.2.1:6379/0 (--redis-url)", "breaker_open": True},
        upstreams=[
            {"server": "udp://192.0.2.2:53", "up": False, "round_trip_ms": 0, "queries": 9, "failures": {"timeout": 9}}
        ],
        workers=[worker],
    )
    expect(page.locator("#sentence")).to_contain_text("✖ Something is wrong")
    expect(page.get_by_role("status").first).to_contain_text("Not ready for traffic: draining.")
    assert page.locator("#remarks li").all_text_contents() == [
        "▲ Not ready for traffic: draining.",
        "✖ No upstream server answers: what is cached is served, even past its time.",
        "✖ 20 % of the answers are SERVFAIL.",
        "▲ 5 % of the answers are stale.",
        "▲ 3 a second find no room: see Load.",
        "▲ Redis is left alone after errors or slowness: the breaker is open.",
        "✖ Worker 2 does not answer.",
    ]
    assert cell(page, "workers", "4711").locator("td").all_text_contents() == [
        "2",
        "✖ silent",
        "1 min 30 s",
        "7",
        "3",
        "4711",
    ]


def test_the_fleet_is_shown_where_there_is_one(server: Heimdall, open_page: Open) -> None:
    page = open_page(address(server))
    expect(page.locator("#identity")).to_contain_text("up")
    expect(page.locator("#fleet-box")).to_be_hidden()
    known = {"version": "1.2.3", "uptime_seconds": 7260, "l1_hit_ratio": 0.999, "l2_hit_ratio": 0.9}
    replicas = [
        {
            **known,
            "id": "0123456789abcdef",
            "host": "pod-0",
            "here": True,
            "seen_seconds_ago": 0.3,
            "queries_per_second": 1,
        },
        {
            **known,
            "id": "fedcba9876543210",
            "host": "pod-1",
            "here": False,
            "seen_seconds_ago": 8,
            "queries_per_second": 1234.5,
        },
    ]
    with_stats(page, fleet=replicas)
    for host, cells in {
        "pod-0": ["pod-0, this one", "1.2.3", "2 h 1 min", "now", "1 /s", "99.9 %", "90 %"],
        "pod-1": ["pod-1 (fedcba98)", "1.2.3", "2 h 1 min", "8 s ago", "1,235 /s", "99.9 %", "90 %"],
    }.items():
        expect(cell(page, "fleet", host).locator("td")).to_have_text(cells)


def test_it_says_when_the_server_is_gone_and_recovers(heimdall: Launcher, upstream: Upstream, open_page: Open) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall()
    page = open_page(address(server), forgiven="ERR_CONNECTION_REFUSED")
    expect(page.locator("#sentence")).to_contain_text("All is well")
    assert server.stop() == 0
    with page.expect_event("requestfailed"):
        page.clock.run_for(POLL)
    expect(page.locator("#sentence")).to_contain_text("This replica does not answer. What is shown is of")
    expect(page.locator("#main")).to_have_class("gone")
    heimdall("--http-bind-addr", f"127.0.0.1:{server.http[1]}")
    poll(page)
    expect(page.locator("#sentence")).to_contain_text("All is well")
    expect(page.locator("#main")).not_to_have_class("gone")


def test_with_a_token_names_and_flushes_are_for_who_types_it(
    heimdall: Launcher, upstream: Upstream, open_page: Open
) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--admin-token", TOKEN)
    server.ask(NAME)
    page = open_page(address(server), forgiven="403 (Forbidden)")
    expect(page.locator("#why-hidden")).to_have_text(
        "Not shown: this needs the admin token: Authorization: Bearer ...."
    )
    expect(page.locator("#missed")).to_be_hidden()
    page.get_by_label("Name", exact=True).fill(NAME)
    forget = page.get_by_role("button", name="Forget on every replica")
    forget.click()
    expect(page.locator("#forgotten")).to_contain_text("Not forgotten: this needs the admin token")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.locator("#token").fill(TOKEN)  # the box has opened
    page.locator("#token").press("Tab")
    expect(cell(page, "missed", NAME)).to_have_count(1)
    forget.click()
    expect(page.locator("#forgotten")).to_contain_text("Forgotten by 1 of 1")
    assert [url for url in sent if TOKEN in url] == []
    kept = page.evaluate("[document.cookie, {...localStorage}, {...sessionStorage}, location.href]")
    assert kept == ["", {}, {}, address(server)]


@pytest.mark.parametrize("url", ["http://evil.example/", f"http://{REBOUND}/"])
def test_another_page_changes_nothing(server: Heimdall, open_page: Open, browser: Any, url: str) -> None:
    server.ask(NAME)
    context = browser.new_context()
    context.route(url, lambda route: route.fulfill(body="<!DOCTYPE html>", content_type="text/html"))
    page = context.new_page()
    page.goto(url)
    for host in ("127.0.0.1", "localhost", REBOUND):
        page.evaluate(
            "url => fetch(url, {method: 'POST', mode: 'no-cors'}).catch(() => 0)",
            address(server, host) + "cache/flush?all=true",
        )
    context.close()
    assert where(server, NAME) == "l1"


def test_a_page_whose_name_was_made_to_point_here_learns_no_names_and_changes_nothing(
    server: Heimdall, open_page: Open
) -> None:
    server.ask(NAME)
    page = open_page(address(server, REBOUND), forgiven="403 (Forbidden)")
    expect(page.locator("#why-hidden")).to_contain_text("under the addresses localhost and 127.0.0.1 only")
    page.get_by_label("Name", exact=True).fill(NAME)
    page.get_by_role("button", name="Forget on every replica").click()
    expect(page.locator("#forgotten")).to_contain_text("Not forgotten: without an admin token no web page may ask this")
    assert where(server, NAME) == "l1"


FAINT = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = channels(color).map((channel) => linear(channel / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return channels(color)[3] === 0 ? ground(element.parentElement) : color;
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const words = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!words || !element.checkVisibility()) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < 4.5) faint.push([element.tagName, element.textContent, contrast]);
  }
  return faint;
}"""


def test_it_is_readable_on_desk_and_phone_in_light_and_dark(server: Heimdall, open_page: Open) -> None:
    long_name = ".".join(["a" * 63] * 3)
    for _ in range(2):
        server.ask(long_name)
    page = open_page(address(server))
    page.get_by_label("Name", exact=True).fill(long_name)
    page.get_by_role("button", name="Look up").click()
    expect(page.locator("#found")).to_contain_text("is in memory (L1)")
    page.get_by_text("Settings in effect").click()
    page.get_by_text("Admin token").click()
    outside = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)"
    for size in (DESK, PHONE):
        page.set_viewport_size(size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert page.evaluate(outside + ".map(e => e.outerHTML.slice(0, 90))") == []
        page.emulate_media(color_scheme="light")
        light = page.evaluate(FAINT)
        page.emulate_media(color_scheme="dark")
        assert (light, page.evaluate(FAINT)) == ([], [])
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 16, 20)"


def test_a_line_says_in_words_what_it_draws(server: Heimdall, open_page: Open) -> None:
    page = open_page(address(server))
    series = {"queries_per_second": [1, 5, 2, 3], "l1_hit_ratio": [None, 0.5, None, 1], "all_p99_ms": [None, None]}
    with_stats(page, series=series)
    expect(page.locator("#queries-line")).to_have_attribute(
        "aria-label", "Queries a second, last 20 s: 1 to 5, lately 3"
    )
    expect(page.locator("#l1-line")).to_have_attribute(
        "aria-label", "Share found in memory, last 20 s: 50 % to 100 %, lately 100 %"
    )
    unnamed = "[...document.querySelectorAll('svg, [role=img]')].filter(e => !e.getAttribute('aria-label')).length"
    assert page.evaluate(unnamed) == 0
    expect(page.locator("#latency-line")).to_have_attribute("aria-label", "99 of 100 answers came within: nothing yet")


def test_it_does_not_ask_while_nobody_looks(server: Heimdall, open_page: Open) -> None:
    page = open_page(address(server))
    expect(page.locator("#identity")).to_contain_text("up")
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(10 * POLL)
    assert len(asked) <= 1, "the one that was under way"
    page.evaluate("Object.defineProperty(document, 'hidden', { value: false })")
    with page.expect_response(re.compile("/stats")):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
