{{/* The files of the Redis pod. Its password is in none of them: start.sh reads it where the Secret is mounted. */}}
{{- define "heimdall.redis.files" -}}
redis.conf: |
  dir /data
  maxmemory {{ .Values.redis.maxmemory }}
  maxmemory-policy {{ .Values.redis.maxmemoryPolicy }}
  save ""
  appendonly {{ ternary "yes" "no" .Values.redis.persistence.enabled }}
  {{- if .Values.redis.tls.enabled }}
  port 0
  tls-port 6379
  tls-cert-file /run/secrets/tls/tls.crt
  tls-key-file /run/secrets/tls/tls.key
  tls-ca-cert-file /run/secrets/tls/ca.crt
  tls-auth-clients {{ ternary "yes" "no" (not (empty .Values.redis.tls.clientSecret)) }}
  {{- else }}
  port 6379
  {{- end }}
  {{- /* Without a password, Redis would refuse all but loopback; the NetworkPolicy keeps others out. */}}
  protected-mode no
start.sh: |
  set -eu
  umask 077
  {
      cat /etc/heimdall-redis/redis.conf
      {{- if .Values.redis.auth.enabled }}
      sed 's/[\\"]/\\&/g; s/.*/requirepass "&"/' /run/secrets/redis/password
      {{- end }}
  } >/run/heimdall-redis/redis.conf
  exec redis-server /run/heimdall-redis/redis.conf
ping.sh: |
  set -eu
  {{- if .Values.redis.auth.enabled }}
  REDISCLI_AUTH=$(cat /run/secrets/redis/password)
  export REDISCLI_AUTH
  {{- end }}
  set -- -p 6379
  {{- if .Values.redis.tls.enabled }}
  set -- "$@" --tls --cacert /run/secrets/tls/ca.crt --cert /run/secrets/tls/tls.crt --key /run/secrets/tls/tls.key
  {{- end }}
  [ "$(redis-cli "$@" ping)" = PONG ]
{{- end -}}
