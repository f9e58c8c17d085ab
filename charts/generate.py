"""Writes what follows from the chart: the plain manifests in k8s/ and the table in the chart's README.

``make manifests`` runs it; a test compares what it would write with what is there. Rules: nothing in its output is
edited by hand; the manifests carry nothing of Helm's, and no namespace, so that ``kubectl apply --namespace`` decides.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from charts.render import CHART, Values, render

REPOSITORY = CHART.parents[1]
# Who applies these files may leave Redis out, so here it is detected, not stated.
VALUES: Values = {"config": {"redisEnabled": "auto"}}

_HEADS = {
    "redis-deployment.yaml": "The Redis that Heimdall's replicas share; apply it first, so that they find it.",
    "heimdall.yaml": "Heimdall: three replicas behind the Service heimdall. Set `image` to where your nodes find it.",
}
_OF_HELM = re.compile(
    r"^ +annotations:\n +checksum/config: .*\n"
    r"|^ +(?:namespace: default|app\.kubernetes\.io/managed-by: Helm|helm\.sh/chart: .*)\n",
    re.MULTILINE,
)
_ROW = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z]+):")
_TABLE = re.compile(r"(?<=<!-- values -->\n).*?(?=<!-- end -->)", re.DOTALL)


def plain_manifests() -> dict[Path, str]:
    """Return the files of k8s/ with their content."""
    parts: dict[str, list[str]] = {name: [] for name in _HEADS}
    rendered = render(VALUES)
    for each, text in zip(rendered.objects, rendered.texts, strict=True):
        metadata = each["metadata"]
        if "helm.sh/hook" not in metadata.get("annotations", {}):
            of_redis = metadata["labels"]["app.kubernetes.io/component"] == "redis"
            parts["redis-deployment.yaml" if of_redis else "heimdall.yaml"].append(_OF_HELM.sub("", text))
    return {
        REPOSITORY / "k8s" / name: f"# {head}\n# Written from charts/heimdall by `make manifests`.\n"
        + "---\n".join(parts[name])
        for name, head in _HEADS.items()
    }


def readme() -> dict[Path, str]:
    """Return the chart's README with the table of its values."""
    path = CHART / "README.md"
    table = "\n".join(["| value | default | meaning |", "|---|---|---|", *_table_rows()]) + "\n"
    return {path: _TABLE.sub(lambda _: table, path.read_text(encoding="utf-8"))}


def _table_rows() -> Iterator[str]:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    defaults = yaml.safe_load(text)
    for path, meaning in descriptions(text):
        value: Any = defaults
        for key in path:
            value = value[key]
        shown = value if isinstance(value, str) and value else json.dumps(value)
        yield f"| `{'.'.join(path)}` | `{shown}` | {meaning.replace('|', chr(92) + '|')} |"


def descriptions(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path of every value that a comment beginning with ``# --`` describes, and what the comment says."""
    parents: list[tuple[int, str]] = []
    comment = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = stripped.removeprefix("# -- ")
        elif stripped.startswith("# ") and comment:
            comment += stripped.removeprefix("#")
        elif row := _ROW.match(line):
            indent = len(row["indent"])
            parents = [(depth, key) for depth, key in parents if depth < indent] + [(indent, row["key"])]
            if comment:
                yield tuple(key for _, key in parents), comment
            comment = ""


def main() -> None:
    """Write every file."""
    for path, text in (plain_manifests() | readme()).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
