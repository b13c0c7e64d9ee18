{{/* Names end in at most 63 characters (DNS labels), with room for what is put behind them. */}}
{{- define "engine.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "engine.secret" -}}
{{- default (printf "%s-engine" (include "engine.name" .)) .Values.existingSecret -}}
{{- end }}

{{- define "engine.pullSecret" -}}
{{- printf "%s-pull" (include "engine.name" .) -}}
{{- end }}

{{- define "engine.claim" -}}
{{- default (printf "%s-persist" (include "engine.name" .)) .Values.persistence.existingClaim -}}
{{- end }}

{{- define "engine.makesPullSecret" -}}
{{- if and .Values.ociRegistry.createPullSecret .Values.ociRegistry.username (not .Values.existingSecret) -}}true{{- end -}}
{{- end }}

{{- define "engine.isEdge" -}}
{{- if or .Values.edgeBundle (and .Values.existingSecret .Values.edgeBundleInSecret) -}}true{{- end -}}
{{- end }}

{{- define "engine.persists" -}}
{{- if or (include "engine.isEdge" .) .Values.persistence.enabled -}}true{{- end -}}
{{- end }}

{{/* Never changes: a Deployment's selector is fixed, and an upgrade may bring the chart of another pipeline. */}}
{{- define "engine.selector" -}}
app.kubernetes.io/name: opscenter-engine
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "engine.labels" -}}
{{ include "engine.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
{{- end }}
