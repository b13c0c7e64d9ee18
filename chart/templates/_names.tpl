{{/* Names end in at most 63 characters (DNS labels), with room for what is put behind them. */}}
{{- define "center.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "center.secret" -}}
{{- default (printf "%s-center" (include "center.name" .)) .Values.existingSecret -}}
{{- end }}

{{- define "center.claim" -}}
{{- default (printf "%s-data" (include "center.name" .)) .Values.persistence.existingClaim -}}
{{- end }}

{{- define "center.url" -}}
{{- required "Set publicUrl: the address that people and edges use, for example https://ops.example.com" .Values.publicUrl -}}
{{- end }}

{{- define "center.selector" -}}
app.kubernetes.io/name: opscenter
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "center.labels" -}}
{{ include "center.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
