// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestOwnerThatNoObjectCanBeIsInvalid(t *testing.T) {
	text := strings.Repeat
	for name, c := range map[string]struct {
		change func(*metav1.OwnerReference)
		valid  bool
	}{
		"ordinary":          {func(*metav1.OwnerReference) {}, true},
		"core group":        {func(o *metav1.OwnerReference) { o.APIVersion, o.Kind = "v1", "Pod" }, true},
		"longest version":   {func(o *metav1.OwnerReference) { o.APIVersion = "apps/" + text("v", 63) }, true},
		"longest UID":       {func(o *metav1.OwnerReference) { o.UID = types.UID(text("u", 64)) }, true},
		"longer version":    {func(o *metav1.OwnerReference) { o.APIVersion = "apps/" + text("v", 64) }, false},
		"longer UID":        {func(o *metav1.OwnerReference) { o.UID = types.UID(text("u", 65)) }, false},
		"long group":        {func(o *metav1.OwnerReference) { o.APIVersion = text("g", 254) + "/v1" }, false},
		"long kind":         {func(o *metav1.OwnerReference) { o.Kind = text("K", 1000) }, false},
		"long name":         {func(o *metav1.OwnerReference) { o.Name = text("n", 254) }, false},
		"version of parts":  {func(o *metav1.OwnerReference) { o.APIVersion = "a/b/c" }, false},
		"name with a slash": {func(o *metav1.OwnerReference) { o.Name = "a/b" }, false},
	} {
		owner := &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-1", UID: "uid"}
		c.change(owner)
		assert.Equal(t, c.valid, IsValidOwner(owner), name)
	}
}
