{{/* The pod of the Deployment and of the DaemonSet. */}}
{{- define "heimdall.pod" -}}
metadata:
  labels:
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "heimdall.selector" (list . "server") | nindent 4 }}
  annotations:
    checksum/config: {{ list (include "heimdall.variables" .) (include "heimdall.secrets" .) .Values.redis.auth.password | join "\n" | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "heimdall.serviceAccountName" . }}
  automountServiceAccountToken: false
  # Variables with the address of the Redis Service; without a need for them, they only slow the start down.
  enableServiceLinks: {{ eq "true" (include "heimdall.redis.linked" .) }}
  dnsPolicy: {{ .Values.dnsPolicy }}
  dnsConfig:
    options:
      - {name: ndots, value: "1"}
  terminationGracePeriodSeconds: {{ include "heimdall.terminationGracePeriodSeconds" . }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: heimdall
      image: {{ include "heimdall.image" (list .Values.image .Chart.AppVersion) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      envFrom:
        - configMapRef: {name: {{ include "heimdall.fullname" . }}}
      {{- with include "heimdall.env" . | trim }}
      env:
        {{- . | nindent 8 }}
      {{- end }}
      ports:
        - {name: dns-udp, containerPort: 1053, protocol: UDP}
        - {name: dns-tcp, containerPort: 1053, protocol: TCP}
        - {name: http, containerPort: 8080, protocol: TCP}
      # /healthz asks a DNS question over the real UDP socket, /readyz over UDP and TCP. That turns false for the drain,
      # and never for Redis or an upstream server: all replicas would leave the Service while they still have answers.
      startupProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 1
        timeoutSeconds: 2
        failureThreshold: 30
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 2
        timeoutSeconds: 3
        failureThreshold: 2
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        periodSeconds: 10
        timeoutSeconds: 3
        failureThreshold: 3
      {{- if .Values.preStopSeconds }}
      lifecycle:
        preStop:
          exec: {command: [sleep, {{ .Values.preStopSeconds | toString | quote }}]}
      {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "heimdall.containerSecurityContext" . | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if include "heimdall.secretFiles" . | fromJson }}
        - {name: secrets, mountPath: /run/secrets/heimdall, readOnly: true}
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {medium: Memory, sizeLimit: 16Mi}
    {{- with include "heimdall.secretFiles" . | fromJson }}
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          {{- range $file, $from := . }}
          - secret:
              name: {{ $from.secret }}
              items:
                - {key: {{ $from.key | quote }}, path: {{ $file | quote }}}
          {{- end }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .Values.kind "Deployment" }}
  {{- with include "heimdall.affinity" . | fromYaml }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.topologySpread.enabled }}
  topologySpreadConstraints:
    {{- range $key, $unsatisfiable := dict "kubernetes.io/hostname" .Values.topologySpread.whenUnsatisfiable "topology.kubernetes.io/zone" "ScheduleAnyway" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: {{ $unsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "heimdall.selector" (list $ "server") | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- else }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
{{- end -}}

{{- define "heimdall.env" -}}
{{- if include "heimdall.redis.linked" . -}}
{{- $redis := include "heimdall.redis.fullname" . -}}
{{- if ne $redis "heimdall-redis" }}
# Heimdall looks for the variables of a Service called heimdall-redis: here it has another name.
{{- range list "HOST" "PORT" }}
- name: HEIMDALL_REDIS_SERVICE_{{ . }}
  value: $({{ $redis | upper | replace "-" "_" }}_SERVICE_{{ . }})
{{- end }}
{{- end -}}
{{- end -}}
{{- with .Values.redis.external -}}
{{- if .urlKey }}
- name: HEIMDALL_REDIS_URL
  valueFrom:
    secretKeyRef: {name: {{ .existingSecret }}, key: {{ .urlKey | quote }}}
{{- end -}}
{{- end -}}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{- define "heimdall.affinity" -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "heimdall.selector" (list . "server") | fromYaml)) -}}
{{- $apart := dict -}}
{{- if eq .Values.podAntiAffinity "hard" -}}
{{- $apart = dict "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term)) -}}
{{- else if eq .Values.podAntiAffinity "soft" -}}
{{- $weighted := dict "weight" 100 "podAffinityTerm" $term -}}
{{- $apart = dict "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list $weighted)) -}}
{{- end -}}
{{- merge (deepCopy .Values.affinity) $apart | toYaml -}}
{{- end -}}
