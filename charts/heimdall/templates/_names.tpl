{{/* What things are called, and the labels that tell Heimdall's pods, Redis's and the test's apart. */}}

{{- define "heimdall.fullname" -}}
{{- $default := ternary .Release.Name (printf "%s-heimdall" .Release.Name) (contains "heimdall" .Release.Name) -}}
{{- default $default .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Heimdall looks for a Service of this very name, so it does not depend on the release's. */}}
{{- define "heimdall.redis.fullname" -}}
{{- printf "%s-redis" (default "heimdall" .Values.fullnameOverride | trunc 52 | trimSuffix "-") -}}
{{- end -}}

{{- define "heimdall.serviceAccountName" -}}
{{- $made := ternary (include "heimdall.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $made .Values.serviceAccount.name -}}
{{- end -}}

{{/* Call with (list $ "server"). The component is what keeps one selector from matching another's pods. */}}
{{- define "heimdall.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: heimdall
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "heimdall.labels" -}}
{{- $root := index . 0 -}}
{{ include "heimdall.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: heimdall
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Call with (list $ "component" "name"). */}}
{{- define "heimdall.metadata" -}}
name: {{ index . 2 }}
namespace: {{ (index . 0).Release.Namespace }}
labels:
  {{- include "heimdall.labels" (list (index . 0) (index . 1)) | nindent 2 }}
{{- end -}}

{{/* Call with (list image default-tag). */}}
{{- define "heimdall.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (index . 1) $image.tag }}
{{- end -}}
{{- end -}}

{{- define "heimdall.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
