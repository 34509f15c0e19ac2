// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNameOfARunIsKnownByWhatMadeIt(t *testing.T) {
	hook := map[string]string{"helm.sh/hook": "pre-upgrade"}
	for name, c := range map[string]struct {
		kind   string
		object metav1.ObjectMeta
		want   string // empty for no warning
	}{
		"a fixed name":           {"Job", metav1.ObjectMeta{Name: "schema-migrate"}, ""},
		"a version":              {"Job", metav1.ObjectMeta{Name: "migrate-v2.14.3"}, ""},
		"a number":               {"Job", metav1.ObjectMeta{Name: "step-2"}, ""},
		"words of hex letters":   {"Job", metav1.ObjectMeta{Name: "feedface-facade"}, ""},
		"a hook":                 {"Job", metav1.ObjectMeta{Name: "schema-migrate", Annotations: hook}, ""},
		"a hook of a revision":   {"Job", metav1.ObjectMeta{Name: "shop-migrate-42", Annotations: hook}, "ends in a number"},
		"a day":                  {"Job", metav1.ObjectMeta{Name: "export-2026-12-01"}, "a date or a time"},
		"a day without dashes":   {"Job", metav1.ObjectMeta{Name: "export-20261201"}, "a date or a time"},
		"an instant":             {"Job", metav1.ObjectMeta{Name: "export-20261201t063000"}, "a date or a time"},
		"seconds of Unix":        {"Job", metav1.ObjectMeta{Name: "export-1796107800"}, "a date or a time"},
		"a commit":               {"Job", metav1.ObjectMeta{Name: "shop-migrate-3f2a9c1"}, "the hash of a version"},
		"generateName":           {"Job", metav1.ObjectMeta{GenerateName: "migrate-"}, "the Job has generateName"},
		"Argo CD's own name":     {"Job", metav1.ObjectMeta{Name: "app-job-test-9752f66-presync-1796107800", Annotations: map[string]string{"argocd.argoproj.io/hook": "PreSync"}}, "ends in a number"},
		"… and the made name":    {"Job", metav1.ObjectMeta{GenerateName: "migrate-", Name: "migrate-x7k2p"}, "the Job has generateName"},
		"a ReplicaSet":           {"ReplicaSet", metav1.ObjectMeta{Name: "web-20261201"}, ""},
		"a ReplicaSet made anew": {"ReplicaSet", metav1.ObjectMeta{GenerateName: "web-"}, "the ReplicaSet has generateName"},
	} {
		why := Apart(c.kind, c.object)
		if c.want == "" {
			assert.Empty(t, why, name)
			continue
		}
		require.Contains(t, why, c.want, name)
	}
}
