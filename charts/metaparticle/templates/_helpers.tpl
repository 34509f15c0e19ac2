{{- /* "image" returns the reference of one of the two images. */}}
{{- define "metaparticle.image" -}}
{{- $image := index .Values.image .name -}}
{{- .Values.image.registry }}/{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .Chart.AppVersion $image.tag }}{{ end }}
{{- end }}

{{- /* "replicas" returns the number of the webhook's pods. Both names for the number are in use; two
is the default of the first. */}}
{{- define "metaparticle.replicas" -}}
{{- $replicas := int .Values.replicas }}
{{- $count := int (default $replicas .Values.replicaCount) }}
{{- if and (ne $replicas 2) (ne $replicas $count) }}
{{- fail (printf "TwoReplicaCounts: replicas is %d, and replicaCount is %d: set only one of them" $replicas $count) }}
{{- end }}
{{- $count }}
{{- end }}

{{- /* "hook" returns the labels and annotations of an object that exists during a hook only. A
failed Job or Pod stays, because its log names the cause. */}}
{{- define "metaparticle.hook" -}}
labels:
  app.kubernetes.io/part-of: metaparticle
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  helm.sh/hook: {{ .hook }}
  helm.sh/hook-weight: {{ .weight | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{- /* "step" returns the spec of a pod that takes one step of an installation. */}}
{{- define "metaparticle.step" -}}
serviceAccountName: {{ .account }}
restartPolicy: Never
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
nodeSelector:
  {{- toYaml .Values.nodeSelector | nindent 2 }}
tolerations:
  {{- toYaml .Values.tolerations | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
containers:
  - name: step
    image: {{ include "metaparticle.image" (merge (dict "name" "webhook") .) | quote }}
    {{- with .Values.image.pullPolicy }}
    imagePullPolicy: {{ . }}
    {{- end }}
    args:
      {{- toYaml .args | nindent 6 }}
    resources:
      requests: {cpu: 10m, memory: 32Mi}
      limits: {memory: 256Mi}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
{{- end }}
