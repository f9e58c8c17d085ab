"""docs/configuration.md says exactly what the table of settings says, and its examples are accepted."""

import re
from pathlib import Path

import pytest
import yaml

from heimdall_lib.config import Machine, load
from heimdall_lib.config.redis_target import parse_redis_url
from heimdall_lib.config.table import ONLY_FLAGS, TABLE, Setting
from heimdall_lib.errors import SettingError

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
FLAGS = [row.flag for row in TABLE]
MACHINE = Machine(resolv_conf="/nonexistent/resolv.conf", is_local=lambda host: False)


def table(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its header; a pipe in a cell is escaped."""
    section = PAGE.split(f"\n## {heading}\n")[1]
    lines = [line for line in re.split(r"\n#+ ", section)[0].splitlines() if line.startswith("|")]
    return [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


ROWS = table("All settings")


def test_the_page_has_one_row_for_every_setting_in_the_same_order() -> None:
    assert [row[0] for row in ROWS] == [f"`--{flag}`" for flag in FLAGS]


@pytest.mark.parametrize(("row", "cells"), list(zip(TABLE, ROWS, strict=True)), ids=FLAGS)
def test_every_row_says_what_the_program_does(row: Setting, cells: list[str]) -> None:
    default = f"`{row.default}`" if row.default else "-"
    reloaded = "yes" if row.reloadable else "no"
    assert cells == [f"`--{row.flag}`", f"`{row.variable}`", default, row.kind.allowed, reloaded, row.help]


def test_every_setting_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`--([a-z-]+)", PAGE)) | set(re.findall(r"(?m)^\$? ?.*?--([a-z-]+) '", PAGE))
    assert named <= {*FLAGS, *ONLY_FLAGS, "flag"}
    variables = set(re.findall(r"HEIMDALL_[A-Z_]+", PAGE))
    links = {"HEIMDALL_PORT", "HEIMDALL_SERVICE_HOST", "HEIMDALL_REDIS_PORT"}
    detected = {"HEIMDALL_REDIS_SERVICE_HOST", "HEIMDALL_REDIS_SERVICE_PORT"}
    assert variables - links - detected - {"HEIMDALL_"} == {row.variable for row in TABLE}


def test_every_setting_in_the_table_of_combinations_exists() -> None:
    named = {name for cells in table("What is refused together") for name in re.findall(r"`([a-z-]+)", cells[0])}
    assert named <= set(FLAGS)


def test_the_file_on_the_page_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "heimdall.yaml"
    path.write_text(PAGE.split("```yaml\n")[1].split("```")[0])
    found = load(["--config", str(path)], {}, MACHINE)
    assert len(found.bind_addr) == 2
    assert len(found.upstream_servers) == 2
    assert [zone.name for zone in found.forward_zones] == ["cluster.local", "corp.example"]
    assert set(yaml.safe_load(path.read_text())) <= set(FLAGS)


def test_the_command_lines_on_the_page_are_accepted() -> None:
    servers = load(["--upstream-servers", "tls://9.9.9.9#dns.quad9.net", "--query-log"], {}, MACHINE).upstream_servers
    assert "--upstream-servers 'tls://9.9.9.9#dns.quad9.net' --query-log" in PAGE
    assert str(servers[0]) == "tls://9.9.9.9:853#dns.quad9.net"


def test_the_errors_on_the_page_are_those_of_the_program(tmp_path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        load([], {"HEIMDALL_WORKERS": "99"}, MACHINE)
    assert f"\n{caught.value}\n" in PAGE
    path = tmp_path / "heimdall.yaml"
    path.write_text("min-ttl: 900\nmax-ttl: 300\n")
    with pytest.raises(SettingError) as caught:
        load(["--config", str(path)], {}, MACHINE)
    assert f"\n{str(caught.value).replace(str(path), path.name)}\n" in PAGE


@pytest.mark.parametrize("row", table("Redis"), ids=lambda row: row[0])
def test_the_redis_urls_on_the_page_can_be_read(row: list[str]) -> None:
    full = re.sub(r"[][`…]", "", row[0]).replace(":port", ":7000").replace("/db", "/0").rstrip(",").replace(",/", "/")
    assert parse_redis_url(full.replace("7000/0", "7000")).password == "password"
