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
    """What one set of values makes: ``texts`` are the objects' YAML in the order in which Helm installs them."""

    texts: tuple[str, ...]
    notes: str

    @property
    def objects(self) -> list[Object]:
        """Return the objects themselves."""
        return [yaml.safe_load(text) for text in self.texts]


def render(values: Values | None = None, *, release: str = RELEASE, namespace: str = NAMESPACE) -> Rendered:
    """Render the chart; raises helm_python.HelmError for values that it refuses."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(dict(values or {}), name=release, namespace=namespace)
    notes = files.pop(next(name for name in files if name.endswith("NOTES.txt")))
    texts = [text.strip() + "\n" for name in sorted(files) for text in _DOCUMENT_END.split(files[name])]
    return Rendered(tuple(sorted(filter(yaml.safe_load, texts), key=_order)), notes)


def _order(text: str) -> int:
    kind = yaml.safe_load(text)["kind"]
    return _INSTALL_ORDER.index(kind) if kind in _INSTALL_ORDER else len(_INSTALL_ORDER)
