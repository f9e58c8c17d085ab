{{/* What values.schema.json cannot say: combinations that would fail later, or work differently than they look. */}}
{{- define "heimdall.checks" -}}
{{- $bundled := include "heimdall.redis.bundled" . -}}
{{- with .Values -}}
{{- if and (eq .kind "DaemonSet") .autoscaling.enabled -}}
{{- fail "autoscaling.enabled: a DaemonSet has one pod on each node and is not scaled" -}}
{{- end -}}
{{- if and .autoscaling.enabled (not .autoscaling.targetCPUUtilizationPercentage) (not .autoscaling.targetQueriesPerSecond) -}}
{{- fail "autoscaling.enabled: needs targetCPUUtilizationPercentage or targetQueriesPerSecond" -}}
{{- end -}}
{{- if and (eq .dnsPolicy "ClusterFirst") (eq (lower .config.upstreamServers) "auto") -}}
{{- fail "dnsPolicy: ClusterFirst needs config.upstreamServers: auto would be the cluster's DNS, which may be forwarding to Heimdall" -}}
{{- end -}}
{{- if and $bundled .redis.auth.enabled -}}
{{- if not (or .redis.auth.password .redis.auth.existingSecret) -}}
{{- fail "redis.auth.enabled: needs redis.auth.password or redis.auth.existingSecret" -}}
{{- end -}}
{{- if .config.redisPassword -}}
{{- fail "config.redisPassword: the password of the chart's own Redis is redis.auth.password" -}}
{{- end -}}
{{- end -}}
{{- if and $bundled .redis.tls.enabled -}}
{{- if not .redis.tls.existingSecret -}}
{{- fail "redis.tls.enabled: needs redis.tls.existingSecret with tls.crt, tls.key and ca.crt" -}}
{{- end -}}
{{- if ne .dnsPolicy "ClusterFirst" -}}
{{- fail (printf "redis.tls.enabled: the certificate is checked against the name %s, which only dnsPolicy ClusterFirst finds" (include "heimdall.redis.fullname" $)) -}}
{{- end -}}
{{- end -}}
{{- if and $bundled (not .redis.tls.enabled) (or .redis.tls.existingSecret .redis.tls.clientSecret) -}}
{{- fail "redis.tls: secrets are given, but redis.tls.enabled is false" -}}
{{- end -}}
{{- if and .redis.external.url .redis.external.existingSecret .redis.external.passwordKey .config.redisPassword -}}
{{- fail "config.redisPassword: redis.external.existingSecret has the password already" -}}
{{- end -}}
{{- if and .redis.external.url (not (hasPrefix "rediss" .redis.external.url)) (or .redis.tls.existingSecret .redis.tls.clientSecret) -}}
{{- fail "redis.tls: secrets are given, but redis.external.url is not a TLS URL (rediss://, rediss+sentinel://, rediss+cluster://)" -}}
{{- end -}}
{{- if and .redis.external.urlKey (not .redis.external.existingSecret) -}}
{{- fail "redis.external.urlKey: needs redis.external.existingSecret" -}}
{{- end -}}
{{- if and .redis.external.existingSecret (not .redis.external.url) (not .redis.external.urlKey) -}}
{{- fail "redis.external.existingSecret: needs redis.external.url, or urlKey with the key that holds the URL" -}}
{{- end -}}
{{- if and .redis.external.url .redis.external.urlKey -}}
{{- fail "redis.external: url and urlKey are two places for one URL" -}}
{{- end -}}
{{- if and .metrics.serviceMonitor.enabled .metrics.podMonitor.enabled -}}
{{- fail "metrics: serviceMonitor and podMonitor together would scrape every pod twice" -}}
{{- end -}}
{{- /* Not in the schema: its errors would repeat the secret. */ -}}
{{- range $name, $url := dict "config.redisUrl" .config.redisUrl "redis.external.url" .redis.external.url -}}
{{- if contains "@" (default "" $url) -}}
{{- fail (printf "%s: without user and password, for which there are config.redisUsername and redis.external.existingSecret" $name) -}}
{{- end -}}
{{- if and $url (not (regexMatch "^(rediss?([+](sentinel|cluster))?://.|unix:///)" $url)) -}}
{{- fail (printf "%s: redis://…, rediss://…, redis+sentinel://…, redis+cluster://… or unix:///…" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "adminToken" "redisSigningKey" -}}
{{- if not (regexMatch "^([!-~]{16,})?$" (default "" (get $.Values.config $name))) -}}
{{- fail (printf "config.%s: at least 16 printable ASCII characters, no spaces" $name) -}}
{{- end -}}
{{- end -}}
{{- range include "heimdall.secretSettings" $ | fromJsonArray -}}
{{- if and (index $.Values.config .) (index $.Values.config (printf "%sFile" .)) -}}
{{- fail (printf "config.%s: not together with config.%sFile" . .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
