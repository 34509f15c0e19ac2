// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// standby is the pod of a two-replica application that does not hold.
func (s *space) standby(a app) *corev1.Pod {
	holder := s.holder(deploymentSlot(a.name))
	for _, pod := range s.all(a.name) {
		if holder != nil && pod.UID != holder.UID && pod.DeletionTimestamp == nil {
			return pod
		}
	}
	return nil
}

// awaitStandby waits for the pod that does not hold.
func (s *space) awaitStandby(a app) (standby *corev1.Pod) {
	s.Helper()
	s.await(soon, "a standby of "+a.name, func() bool {
		standby = s.standby(a)
		return standby != nil
	})
	return standby
}

// yields has the holder hand over, and returns the pod that holds then, and how
// often it had to be asked: who yields waits a second, and on a machine that stalls
// has the slot back before a standby has seen that it is free.
func (s *space) yields(a app) (now *corev1.Pod, asked int) {
	s.Helper()
	slot := deploymentSlot(a.name)
	before := s.awaitHolder(slot)
	hold := ""
	s.await(startTimeout, "a handover", func() bool {
		lease := s.lease(slot) // once: who holds, and in which hold
		if now = s.named(lease); now != nil && now.UID != before.UID {
			return true
		}
		if now != nil && lease.Annotations[api.HoldAnnotation] != hold {
			hold = lease.Annotations[api.HoldAnnotation]
			s.mustKubectl("", "exec", before.Name, "-c", api.AgentContainer, "--", "/agent", "yield")
			asked++
		}
		return false
	})
	return now, asked
}
