{{- define "edgeyard.labels" -}}
app.kubernetes.io/name: edgeyard
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}
{{- define "edgeyard.selector" -}}
app.kubernetes.io/name: edgeyard
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
{{- define "edgeyard.tag" -}}{{ .Values.image.tag | default .Chart.AppVersion }}{{- end -}}
{{- define "edgeyard.image" -}}{{ .Values.image.repository }}/control-plane:{{ include "edgeyard.tag" . }}{{- end -}}
{{- define "edgeyard.workerImage" -}}{{ .Values.worker.image | default (printf "%s/worker:%s" .Values.image.repository (include "edgeyard.tag" .)) }}{{- end -}}
{{- define "edgeyard.workerImageArm64" -}}{{ .Values.worker.imageArm64 | default (printf "%s/worker-arm64:%s" .Values.image.repository (include "edgeyard.tag" .)) }}{{- end -}}
{{- define "edgeyard.compilerImage" -}}{{ .Values.worker.imageCompiler | default (printf "%s/compiler:%s" .Values.image.repository (include "edgeyard.tag" .)) }}{{- end -}}
{{- define "edgeyard.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}
{{- define "edgeyard.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
{{- define "edgeyard.operatorEnvironment" -}}
- {name: EDGEYARD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: EDGEYARD_WORKER_IMAGE, value: {{ include "edgeyard.workerImage" . | quote }}}
- {name: EDGEYARD_WORKER_IMAGE_ARM64, value: {{ include "edgeyard.workerImageArm64" . | quote }}}
- {name: EDGEYARD_COMPILER_IMAGE, value: {{ include "edgeyard.compilerImage" . | quote }}}
- {name: EDGEYARD_WORKER_PULL_POLICY, value: {{ .Values.image.pullPolicy }}}
- {name: EDGEYARD_STORE_URL, value: "https://edgeyard-store.{{ .Release.Namespace }}.svc:8443"}
- {name: EDGEYARD_STORE_CA, value: /etc/edgeyard/store-ca/ca.crt}
- {name: EDGEYARD_STORE_TOKEN_FILE, value: /var/run/secrets/edgeyard/store-token}
- {name: EDGEYARD_LOG_FORMAT, value: {{ .Values.operator.logFormat }}}
- {name: EDGEYARD_ALLOW_PRIVATE_ADDRESSES, value: {{ .Values.imports.allowPrivateAddresses | quote }}}
- {name: EDGEYARD_MAX_INPUT_BYTES, value: {{ .Values.imports.maxBytes | int64 | quote }}}
{{- if .Values.nodeAgent.enabled }}
- {name: EDGEYARD_NODE_AGENT_PORT, value: {{ .Values.nodeAgent.port | quote }}}
{{- end }}
{{- end -}}
{{- define "edgeyard.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
