"""The sets of values that the chart is rendered with: each toggle once off its default, and what operators combine."""

from typing import Any

import yaml

from charts.render import CHART

Values = dict[str, Any]

PRODUCTION: Values = yaml.safe_load((CHART / "values-production.yaml").read_text(encoding="utf-8"))
PASSWORD = "a password that must stay in a Secret"
SIGNING_KEY = "a-signing-key-for-a-Secret"
ADMIN_TOKEN = "an-admin-token-for-a-Secret"
SECRETS = (PASSWORD, SIGNING_KEY, ADMIN_TOKEN)
_CLUSTER_DNS: Values = {"dnsPolicy": "ClusterFirst", "config": {"upstreamServers": "192.0.2.53"}}
_EXTERNAL_URL = "rediss://cache.example:6380/1"

CASES: dict[str, Values] = {
    "defaults": {},
    "production": PRODUCTION,
    "no Redis": {"redis": {"enabled": False}},
    "no persistence": {"redis": {"persistence": {"enabled": False}}},
    "storage class": {"redis": {"persistence": {"storageClass": "fast", "size": "1Gi"}}},
    "external Redis": {"redis": {"external": {"url": "redis+sentinel://a:26379,b:26379/main/0"}}},
    "external Redis, password in a Secret": {"redis": {"external": {"url": _EXTERNAL_URL, "existingSecret": "cache"}}},
    "external Redis, URL in a Secret": {"redis": {"external": {"existingSecret": "cache", "urlKey": "url"}}},
    "external Redis, mutual TLS": {
        "redis": {"external": {"url": _EXTERNAL_URL}, "tls": {"existingSecret": "ca", "clientSecret": "me"}},
        "config": {"redisUsername": "heimdall", "redisPassword": PASSWORD},
    },
    "auth": {"redis": {"auth": {"enabled": True, "password": PASSWORD}}},
    "auth, Secret of the operator": {"redis": {"auth": {"enabled": True, "existingSecret": "redis-auth"}}},
    "TLS": _CLUSTER_DNS | {"redis": {"tls": {"enabled": True, "existingSecret": "redis-tls"}}},
    "mutual TLS and auth": _CLUSTER_DNS
    | {
        "redis": {
            "tls": {"enabled": True, "existingSecret": "redis-tls", "clientSecret": "me"},
            "auth": {"enabled": True, "password": PASSWORD},
        }
    },
    "secrets of Heimdall": {"config": {"adminToken": ADMIN_TOKEN, "redisSigningKey": SIGNING_KEY}},
    "secrets in a Secret of the operator": {
        "existingSecret": {"name": "mine", "keys": ["admin-token", "redis-signing-key"]}
    },
    "DaemonSet": {
        "kind": "DaemonSet",
        "service": {"internalTrafficPolicy": "Local", "clusterIP": "10.96.0.53"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}]
                }
            }
        },
    },
    "load balancer": {
        "service": {
            "type": "LoadBalancer",
            "annotations": {"example.com/internal": "true"},
            "loadBalancerIP": "192.0.2.10",
            "loadBalancerClass": "example.com/lb",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "externalTrafficPolicy": "Local",
            "ipFamilyPolicy": "PreferDualStack",
            "ipFamilies": ["IPv4", "IPv6"],
        },
        "config": {"bindAddr": "0.0.0.0:1053,[::]:1053"},
    },
    "node port": {
        "service": {
            "type": "NodePort",
            "nodePort": 30053,
            "port": 5353,
            "externalTrafficPolicy": "Cluster",
            "ipFamilyPolicy": "RequireDualStack",
        },
        "config": {"bindAddr": "0.0.0.0:1053,[::]:1053"},
    },
    "IPv6 only": {
        "service": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]},
        "config": {"bindAddr": "[::]:1053", "httpBindAddr": "[::]:8080"},
    },
    "autoscaling": {"autoscaling": {"enabled": True, "targetQueriesPerSecond": 5000}},
    "autoscaling by queries only": {
        "autoscaling": {"enabled": True, "targetCPUUtilizationPercentage": 0, "targetQueriesPerSecond": 5000}
    },
    "ServiceMonitor": {"metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}},
    "PodMonitor": {"metrics": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}},
    "rules and dashboard": {"metrics": {"prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}},
    "no network policy": {"networkPolicy": {"enabled": False}},
    "narrow network policy": {
        "networkPolicy": {
            "dnsFrom": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}],
            "metricsFrom": [],
            "upstreamPorts": [853],
            "extraEgress": [{"ports": [{"port": 443}], "to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}],
        }
    },
    "no budget, spread, affinity": {
        "podDisruptionBudget": {"enabled": False},
        "topologySpread": {"enabled": False},
        "podAntiAffinity": "none",
    },
    "hard anti-affinity": {
        "podAntiAffinity": "hard",
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    },
    "service account of the operator": {"serviceAccount": {"create": False, "name": "dns"}},
    "image by digest": {
        "image": {"repository": "registry.example/heimdall", "digest": f"sha256:{'a' * 64}", "pullPolicy": "Always"},
        "redis": {"image": {"digest": f"sha256:{'b' * 64}"}},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "everything extra": {
        "extraEnv": [{"name": "HEIMDALL_LOG_LEVEL", "value": "debug"}],
        "extraVolumes": [{"name": "extra", "configMap": {"name": "extra"}}],
        "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra", "readOnly": True}],
        "podAnnotations": {"example.com/a": "b"},
        "podLabels": {"example.com/c": "d"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dns", "operator": "Exists"}],
        "priorityClassName": "system-cluster-critical",
        "preStopSeconds": 0,
        "redis": {
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "dns", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "high",
            "podAnnotations": {"example.com/a": "b"},
        },
        "metrics": {"service": {"annotations": {"prometheus.io/scrape": "true"}}},
        "serviceAccount": {"annotations": {"example.com/a": "b"}},
    },
    "another name": {"fullnameOverride": "dns-cache"},
}
