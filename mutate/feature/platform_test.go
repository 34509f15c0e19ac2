// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func TestWindowsPodIsFoundHoweverItAsks(t *testing.T) {
	required := func(terms string) string {
		return "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [" + terms + "]}}}"
	}
	for text, want := range map[string]string{
		"os: {name: windows}":                                 "os",
		"os: {name: linux}":                                   "",
		"nodeSelector: {kubernetes.io/os: windows}":           "nodeSelector",
		"nodeSelector: {beta.kubernetes.io/os: windows}":      "nodeSelector",
		"nodeSelector: {node.kubernetes.io/windows-build: a}": "nodeSelector",
		"nodeSelector: {kubernetes.io/os: linux}":             "",
		required("{matchExpressions: [{key: kubernetes.io/os, operator: In, values: [windows]}]}"):                                                      "nodeAffinity",
		required("{matchExpressions: [{key: pool, operator: Exists}, {key: beta.kubernetes.io/os, operator: NotIn, values: [linux]}]}"):                 "nodeAffinity",
		required("{matchExpressions: [{key: node.kubernetes.io/windows-build, operator: Exists}]}"):                                                     "nodeAffinity",
		required("{matchExpressions: [{key: kubernetes.io/os, operator: In, values: [windows, linux]}]}"):                                               "",
		required("{matchExpressions: [{key: kubernetes.io/os, operator: NotIn, values: [windows]}]}"):                                                   "",
		required("{matchExpressions: [{key: kubernetes.io/os, operator: In, values: [windows]}]}, {matchExpressions: [{key: pool, operator: Exists}]}"): "",
		"securityContext: {windowsOptions: {hostProcess: true}}":                                                                                        "windowsOptions",
		"containers: [{name: a, securityContext: {windowsOptions: {runAsUserName: b}}}]":                                                                "windowsOptions",
		"{nodeSelector: {kubernetes.io/os: linux}, securityContext: {windowsOptions: {runAsUserName: b}}}":                                              "",
		"tolerations: [{key: os, value: windows, effect: NoSchedule}]":                                                                                  "",
		"{}": "",
	} {
		var spec corev1.PodSpec
		require.NoError(t, yaml.UnmarshalStrict([]byte(text), &spec), text)
		assert.Equal(t, want, windows(&spec), text)
	}
}
