// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A tenant can write Events and conditions of megabytes.
func TestExplainCommandShortensHugeTextsOfTenants(t *testing.T) {
	huge := strings.Repeat("é", 1<<19)
	shown := answer(t, true, "Deployment/biller", together(deployment(claim, claim), leaseOf("a"),
		gatedPod("a", corev1.ConditionTrue, "Holding", huge), event("Pod", "a", "FailedCreate", "metaparticle- "+huge))...)
	for line := range strings.Lines(shown) {
		assert.Less(t, len(line), 20<<10)
	}
	assert.Contains(t, shown, "a  holds singleton.deployment.biller")
}

// A tenant makes many Leases whose holder never yields. These Leases must not push the Leases of other
// namespaces out of the output.
func TestRecoverCommandNamesStubbornHoldersOfEachNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		honest := slotLease("lock.a", "b", nil)
		all := []client.Object{honest}
		for n := range 30 {
			forged := slotLease(fmt.Sprintf("lock.f%02d", n), "a", nil)
			forged.Namespace = "attacker"
			all = append(all, forged)
		}
		w := newRestored(t, 5000, all...)
		code, err := recovering{cluster: cluster{WithWatch: w.WithWatch}, std: stdio{out: &w.out, err: &w.err}, timeout: time.Second}.await(t.Context(), 6000, nil)
		require.NoError(t, err)
		assert.Equal(t, exitUnreached, code)
		assert.Contains(t, w.err.String(), "lock.a in shop: b still holds")
		assert.Equal(t, 10, strings.Count(w.err.String(), "in attacker: a still holds"))
		assert.Contains(t, w.err.String(), "20 more holders in attacker")
	})
}
