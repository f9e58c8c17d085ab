"""What a cluster would do with the chart's objects: find them by selector, let packets through, set up a container.

Rules: only what the objects say decides; what the API documents as a default is written out here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from charts.render import Object

Labels = Mapping[str, str]
_NAMESPACE_LABEL = "kubernetes.io/metadata.name"
_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def the(objects: Sequence[Object], kind: str, name: str = "") -> Object:
    """Return the one object of a kind, of that name when there are several."""
    (found,) = [each for each in of_kind(objects, kind) if name in {"", each["metadata"]["name"]}]
    return found


def workload(objects: Sequence[Object]) -> Object:
    """Return what runs Heimdall."""
    (found,) = of_kind(objects, "Deployment", "DaemonSet")
    return found


def pod_templates(objects: Sequence[Object]) -> dict[str, Object]:
    """Return the metadata and spec of every pod that the objects make, by kind and name."""
    found = {}
    for each in objects:
        template = each if each["kind"] == "Pod" else each.get("spec", {}).get("template")
        if template:
            found[f"{each['kind']}/{each['metadata']['name']}"] = template
    return found


def matches(selector: Labels, labels: Labels) -> bool:
    return selector.items() <= labels.items()


@dataclass(frozen=True)
class Peer:
    """One end of a connection; ``labels`` are None for what is outside the cluster."""

    labels: Labels | None
    namespace: str = "default"


def allowed(objects: Sequence[Object], source: Peer, target: Peer, port: int, protocol: str) -> bool:
    """Tell whether the NetworkPolicies let ``source`` reach ``port`` of ``target``."""
    where = (port, protocol)
    return _passes(objects, "Egress", source, target, where) and _passes(objects, "Ingress", target, source, where)


def _passes(objects: Sequence[Object], direction: str, subject: Peer, other: Peer, where: tuple[int, str]) -> bool:
    policies = [
        policy["spec"]
        for policy in of_kind(objects, "NetworkPolicy")
        if direction in policy["spec"]["policyTypes"]
        and subject.labels is not None
        and subject.namespace == policy["metadata"].get("namespace", "default")
        and matches(policy["spec"]["podSelector"]["matchLabels"], subject.labels)
    ]
    # Who is selected by no policy is open.
    if not policies:
        return True
    side = "from" if direction == "Ingress" else "to"
    rules = [(rule, subject.namespace) for spec in policies for rule in spec.get(direction.lower(), [])]
    return any(
        _has_port(rule, where) and (side not in rule or any(_is_peer(each, other, namespace) for each in rule[side]))
        for rule, namespace in rules
    )


def _has_port(rule: Object, where: tuple[int, str]) -> bool:
    ports = rule.get("ports")
    return ports is None or any((each["port"], each.get("protocol", "TCP")) == where for each in ports)


def _is_peer(peer: Object, other: Peer, namespace: str) -> bool:
    if other.labels is None:
        return "ipBlock" in peer
    if "namespaceSelector" in peer:
        wanted = peer["namespaceSelector"].get("matchLabels", {})
        if not matches(wanted, {_NAMESPACE_LABEL: other.namespace}):
            return False
    elif other.namespace != namespace:
        return False
    return matches(peer.get("podSelector", {}).get("matchLabels", {}), other.labels)


def service_links(objects: Sequence[Object], address: str) -> dict[str, str]:
    """Return the variables that the kubelet gives a pod for the Services of its namespace, and for the API server's."""
    api = {"metadata": {"name": "kubernetes"}, "spec": {"ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}}
    found: dict[str, str] = {}
    for service in [*of_kind(objects, "Service"), api]:
        name = service["metadata"]["name"].upper().replace("-", "_")
        ports = service["spec"]["ports"]
        first = f"{ports[0]['protocol'].lower()}://{address}:{ports[0]['port']}"
        found |= {f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(ports[0]["port"]), f"{name}_PORT": first}
        for port in ports:
            number, protocol = str(port["port"]), port["protocol"]
            prefix = f"{name}_PORT_{number}_{protocol}"
            found |= {
                f"{name}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}": number,
                prefix: f"{protocol.lower()}://{address}:{number}",
                f"{prefix}_PROTO": protocol.lower(),
                f"{prefix}_PORT": number,
                f"{prefix}_ADDR": address,
            }
    return found


def environment(objects: Sequence[Object], secrets: Mapping[str, str], address: str = "10.96.0.20") -> dict[str, str]:
    """Return the environment of Heimdall's container.

    ``secrets`` are keys of Secrets that are not the chart's, ``address`` is that of every Service.
    """
    spec = workload(objects)["spec"]["template"]["spec"]
    container = spec["containers"][0]
    # The kubelet adds the API server's variables whether or not it adds the others.
    links = service_links(objects if spec["enableServiceLinks"] else [], address)
    found = dict(links)
    for source in container["envFrom"]:
        found |= the(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for each in container.get("env", []):
        if "value" in each:
            found[each["name"]] = _REFERENCE.sub(lambda match: (found | links).get(match[1], match[0]), each["value"])
        else:
            found[each["name"]] = secrets[each["valueFrom"]["secretKeyRef"]["key"]]
    return found


def mounted_secrets(objects: Sequence[Object]) -> Iterator[tuple[str, str, str]]:
    """Yield what Heimdall's projected volume holds: the path below its mount, the Secret, and the key."""
    for volume in workload(objects)["spec"]["template"]["spec"]["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            for item in source["secret"]["items"]:
                yield item["path"], source["secret"]["name"], item["key"]


def references(template: Object) -> Iterator[tuple[str, str]]:
    """Yield kind and name of everything that a pod needs before it can start."""
    spec = template["spec"]
    yield "ServiceAccount", spec.get("serviceAccountName", "default")
    for volume in spec.get("volumes", []):
        yield from _named(volume.get("configMap"), "ConfigMap", "name")
        yield from _named(volume.get("secret"), "Secret", "secretName")
        yield from _named(volume.get("persistentVolumeClaim"), "PersistentVolumeClaim", "claimName")
        for source in volume.get("projected", {}).get("sources", []):
            yield from _named(source.get("secret"), "Secret", "name")
    for container in spec["containers"]:
        for source in container.get("envFrom", []):
            yield from _named(source.get("configMapRef"), "ConfigMap", "name")
        for each in container.get("env", []):
            yield from _named(each.get("valueFrom", {}).get("secretKeyRef"), "Secret", "name")


def _named(reference: Any, kind: str, field: str) -> Iterator[tuple[str, str]]:
    if reference:
        yield kind, reference[field]


_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "kb": 1024, "mb": 1024**2, "gb": 1024**3}
_UNITS |= {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}


def size_in_bytes(quantity: str) -> int:
    """Return the bytes of a quantity of Kubernetes's or of Redis's."""
    match = re.fullmatch(r"([0-9]+)([A-Za-z]*)", quantity)
    assert match, quantity
    return int(match[1]) * _UNITS[match[2]]
