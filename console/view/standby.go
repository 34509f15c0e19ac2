// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// Standby is a gated pod that claims a slot, and does not hold it.
type Standby struct {
	Pod     string `json:"pod"`
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Program reports that the program of the pod bids for its slots by the local API. The cluster
	// does not show whether the program has a bid at present.
	Program bool `json:"program,omitempty"`
	// Deleted reports that the pod is being deleted, so it begins no hold.
	Deleted bool `json:"beingDeleted,omitempty"`
	// WaitsSince is the instant since which the pod waits: the last start of its shim, or its last
	// release according to Events. The field is absent if the pod's program bids by the local API.
	WaitsSince *time.Time `json:"waitsSince,omitempty"`

	// Identity is the identity by which the pod would hold.
	Identity string `json:"-"`

	uid types.UID
}

// claimant has the facts about a gated pod that are the same for all slots that the pod claims. Any
// tenant can make pods that claim thousands of slots, so the facts are computed once for each pod.
type claimant struct {
	identity string
	deleted  bool
	// standby is nil if the pod has ended.
	standby *Standby
	// onceKey is the key of the pod's once claim; empty without such a claim. The field "past" reports
	// that no main container of the pod has a shim, and that all init containers have ended.
	onceKey string
	past    bool
	// started reports that the agent's pod condition is True. If the pod has a start lock, the
	// application has then started.
	started bool
}

func claimantOf(pod *corev1.Pod) claimant {
	c := claimant{identity: IdentityOf(*pod), deleted: pod.DeletionTimestamp != nil, onceKey: onceKey(*pod)}
	said, ok := Condition(*pod)
	c.started = ok && said.Status == corev1.ConditionTrue
	waits := slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return api.IsShim(c.Command) })
	c.past = !waits && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodInitialized && c.Status == corev1.ConditionTrue
	})
	if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
		c.standby = standbyOf(pod)
	}
	return c
}

// standbyOf returns the pod as a standby.
func standbyOf(pod *corev1.Pod) *Standby {
	standby := &Standby{Pod: pod.Name, Identity: IdentityOf(*pod), Reason: "Unknown", Message: "its agent has said nothing yet", uid: pod.UID}
	switch said, ok := Condition(*pod); {
	case podspec.ServesLocal(&pod.Spec):
		standby.Program, standby.Ready = true, Ready(*pod)
		standby.Reason, standby.Message = localReason, AsksItself
	case ok:
		standby.Ready, standby.Reason, standby.Message = said.Status == corev1.ConditionTrue, api.Shortened(said.Reason, MaxWord), api.Shortened(said.Message, MaxMessage)
	}
	if trouble := Trouble(*pod); trouble != "" && !standby.Program {
		standby.Ready = false
		standby.Message += "; " + trouble
	}
	if pod.DeletionTimestamp != nil {
		standby.Deleted = true
		standby.Message += "; it is being deleted"
	}
	if since := waitsSince(*pod); !standby.Program && !since.IsZero() {
		standby.WaitsSince = instant(since)
	}
	return standby
}
