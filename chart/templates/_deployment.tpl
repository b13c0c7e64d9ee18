{{/* A role of the center: dict "root" the chart's context, "role", "replicas", "resources", "probe" the health command. */}}
{{- define "center.deployment" -}}
{{- $root := .root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "center.name" $root }}-{{ .role }}
  labels:
    {{- include "center.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
spec:
  replicas: {{ .replicas }}
  strategy:
    # There is one clock at a time.
    type: {{ if eq .role "beat" }}Recreate{{ else }}RollingUpdate{{ end }}
  selector:
    matchLabels:
      {{- include "center.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ .role }}
  template:
    metadata:
      labels:
        {{- include "center.labels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .role }}
        {{- with $root.Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        checksum/secret: {{ include (print $root.Template.BasePath "/secret.yaml") $root | sha256sum }}
        checksum/settings: {{ include (print $root.Template.BasePath "/settings.yaml") $root | sha256sum }}
        {{- with $root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 30
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: {type: RuntimeDefault}
      {{- if eq $root.Values.persistence.accessMode "ReadWriteOnce" }}
      affinity:
        # The volume is on one node, so all of us are.
        podAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector:
                matchLabels:
                  {{- include "center.selector" $root | nindent 18 }}
      {{- end }}
      initContainers:
        # Whoever comes first brings the database up to date, the others wait for it.
        - name: bootstrap
          {{- include "center.container" $root | nindent 10 }}
          args: [bootstrap]
      containers:
        - name: {{ .role }}
          {{- include "center.container" $root | nindent 10 }}
          args: [{{ .role }}]
          {{- if eq .role "web" }}
          ports:
            - {name: http, containerPort: 8000}
          startupProbe:
            httpGet: &ready {path: /readyz, port: http, httpHeaders: [{name: Host, value: localhost}]}
            periodSeconds: 2
            failureThreshold: 60
          readinessProbe:
            httpGet: *ready
            periodSeconds: 5
          livenessProbe:
            httpGet: {path: /healthz, port: http, httpHeaders: [{name: Host, value: localhost}]}
            periodSeconds: 10
            failureThreshold: 6
          {{- else }}
          livenessProbe:
            exec: {command: [python, -m, opscenter.health, {{ .role }}]}
            initialDelaySeconds: 30
            periodSeconds: 60
            timeoutSeconds: 20
          {{- end }}
          resources:
            {{- toYaml .resources | nindent 12 }}
      volumes:
        - name: data
          persistentVolumeClaim:
            claimName: {{ include "center.claim" $root }}
        - name: tmp
          emptyDir: {}
      {{- with $root.Values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}

{{/* What all containers of the center have in common. */}}
{{- define "center.container" -}}
image: {{ .Values.image | quote }}
imagePullPolicy: {{ .Values.imagePullPolicy }}
envFrom:
  - configMapRef:
      name: {{ include "center.name" . }}-settings
  - secretRef:
      name: {{ include "center.secret" . }}
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
{{- end }}
