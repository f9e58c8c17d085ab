{{/*
From `config` and `redis` to Heimdall's settings.

Every template here returns YAML or JSON that its callers read back. Rules: a secret is never among the variables; what
the operator says in `config` wins over what the chart would derive.
*/}}

{{/* Whether the chart's own Redis runs, and whether there is one at all: "true" or nothing. */}}
{{- define "heimdall.redis.external" -}}
{{- with .Values.redis.external }}{{ if or .url .urlKey }}true{{ end }}{{ end -}}
{{- end -}}
{{- define "heimdall.redis.bundled" -}}
{{- if and .Values.redis.enabled (not (include "heimdall.redis.external" .)) }}true{{ end -}}
{{- end -}}
{{- define "heimdall.redis.any" -}}
{{- or (include "heimdall.redis.external" .) (include "heimdall.redis.bundled" .) .Values.config.redisUrl -}}
{{- end -}}

{{/* The Redis Service's address, without DNS: Kubernetes puts it into the pod's environment. TLS needs the name. */}}
{{- define "heimdall.redis.linked" -}}
{{- if and (include "heimdall.redis.bundled" .) (not .Values.redis.tls.enabled) }}true{{ end -}}
{{- end -}}

{{- define "heimdall.redis.authSecret" -}}
{{- default (include "heimdall.redis.fullname" .) .Values.redis.auth.existingSecret -}}
{{- end -}}

{{/* A value as Heimdall reads it. Helm reads numbers as floats, and would print 268435456 as 2.68435456e+08. */}}
{{- define "heimdall.text" -}}
{{- if kindIs "float64" . -}}
{{- if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{- define "heimdall.secretSettings" -}}
["redisPassword", "redisSigningKey", "adminToken"]
{{- end -}}

{{/* The files of the secrets that Heimdall mounts: file name -> {secret, key}. */}}
{{- define "heimdall.secretFiles" -}}
{{- $files := dict -}}
{{- range include "heimdall.secretSettings" . | fromJsonArray -}}
{{- if index $.Values.config . -}}
{{- $_ := set $files (kebabcase .) (dict "secret" (include "heimdall.fullname" $) "key" (kebabcase .)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.existingSecret -}}
{{- if .name -}}
{{- $secret := .name -}}
{{- range .keys }}{{ $_ := set $files . (dict "secret" $secret "key" .) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- with .Values.redis -}}
{{- if include "heimdall.redis.bundled" $ -}}
{{- if .auth.enabled -}}
{{- $_ := set $files "redis-password" (dict "secret" (include "heimdall.redis.authSecret" $) "key" "password") -}}
{{- end -}}
{{- else if and .external.url .external.existingSecret .external.passwordKey -}}
{{- $_ := set $files "redis-password" (dict "secret" .external.existingSecret "key" .external.passwordKey) -}}
{{- end -}}
{{- if and .tls.existingSecret (include "heimdall.redis.any" $) -}}
{{- $_ := set $files "redis-ca-cert" (dict "secret" .tls.existingSecret "key" "ca.crt") -}}
{{- end -}}
{{- if and .tls.clientSecret (include "heimdall.redis.any" $) -}}
{{- $_ := set $files "redis-client-cert" (dict "secret" .tls.clientSecret "key" "tls.crt") -}}
{{- $_ := set $files "redis-client-key" (dict "secret" .tls.clientSecret "key" "tls.key") -}}
{{- end -}}
{{- end -}}
{{- toJson $files -}}
{{- end -}}

{{/* What the chart derives: setting -> value, in the names of `config`. */}}
{{- define "heimdall.derived" -}}
{{- $derived := dict -}}
{{- range $file, $_ := include "heimdall.secretFiles" . | fromJson -}}
{{- $setting := ternary $file (printf "%s-file" $file) (regexMatch "-(cert|client-key)$" $file) -}}
{{- $_ := set $derived ($setting | replace "-" "_" | camelcase | untitle) (printf "/run/secrets/heimdall/%s" $file) -}}
{{- end -}}
{{- $_ := set $derived "redisEnabled" (ternary "true" "false" (not (empty (include "heimdall.redis.any" .)))) -}}
{{- with .Values.redis -}}
{{- if .external.url -}}
{{- $_ := set $derived "redisUrl" .external.url -}}
{{- else if and (include "heimdall.redis.bundled" $) .tls.enabled -}}
{{- $_ := set $derived "redisUrl" (printf "rediss://%s:6379" (include "heimdall.redis.fullname" $)) -}}
{{- end -}}
{{- end -}}
{{- toJson $derived -}}
{{- end -}}

{{/* The ConfigMap's data. */}}
{{- define "heimdall.variables" -}}
{{- $derived := include "heimdall.derived" . | fromJson -}}
{{- $secret := include "heimdall.secretSettings" . | fromJsonArray -}}
{{- range $setting := concat (keys .Values.config) (keys $derived) | uniq | sortAlpha -}}
{{- $given := include "heimdall.text" (get $.Values.config $setting) -}}
{{- $value := default (get $derived $setting) $given -}}
{{- if and $value (not (has $setting $secret)) }}
HEIMDALL_{{ $setting | snakecase | upper }}: {{ $value | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The Secret's data: the secrets that `config` has. */}}
{{- define "heimdall.secrets" -}}
{{- range $setting := include "heimdall.secretSettings" . | fromJsonArray -}}
{{- with index $.Values.config $setting }}
{{ kebabcase $setting }}: {{ . | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* How long a pod may take to stop: preStop, drain, the queries in flight, queued writes to Redis (1 s), and a margin. */}}
{{- define "heimdall.terminationGracePeriodSeconds" -}}
{{- add .Values.preStopSeconds (ceil .Values.config.drainSeconds) (ceil .Values.config.queryTimeout) 5 -}}
{{- end -}}
