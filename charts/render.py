"""Renders the chart with Helm's own engine, offline.

Rules: no cluster is asked; an object is what Helm would send, and its text is what Helm would show.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import yaml

CHART = Path(__file__).parent / "heimdall"
RELEASE = "heimdall"
NAMESPACE = "default"

Values = Mapping[str, Any]
Object = dict[str, Any]

_INSTALL_ORDER = ("NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", "Secret", "ConfigMap", "Service")
_DOCUMENT_END = re.compile(r"^---$", re.MULTILINE)


@dataclass(frozen=True)
class Rendered:
    """What one set of values makes: objects in the order in which Helm installs them, and their YAML."""

    objects: list[Object]
    texts: list[str]
    notes: str


def render(values: Values | None = None, *, release: str = RELEASE, namespace: str = NAMESPACE) -> Rendered:
    """Render the chart; raises helm_python.HelmError for values that it refuses."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(dict(values or {}), name=release, namespace=namespace)
    notes = files.pop(next(name for name in files if name.endswith("NOTES.txt")))
    texts = [text.strip() + "\n" for name in sorted(files) for text in _DOCUMENT_END.split(files[name])]
    pairs = [(found, text) for text in texts if (found := yaml.safe_load(text))]
    pairs.sort(key=lambda pair: _order(pair[0]["kind"]))
    return Rendered([found for found, _ in pairs], [text for _, text in pairs], notes)


def _order(kind: str) -> int:
    return _INSTALL_ORDER.index(kind) if kind in _INSTALL_ORDER else len(_INSTALL_ORDER)
