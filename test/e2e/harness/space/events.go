// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package space

import (
	"slices"
	"strings"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Events returns all Events of the namespace.
func (s *Space) Events() []*corev1.Event {
	events, err := s.events.List(everything)
	require.NoError(s, err)
	return events
}

// Event returns an Event about an object, or nil.
func (s *Space) Event(kind, name, reason string) *corev1.Event {
	for _, e := range s.Events() {
		if e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name && e.Reason == reason {
			return e
		}
	}
	return nil
}

// EventMessages returns the messages of the pod's Events that have the given reason, in alphabetical order.
// The word IP replaces the pod's address in the messages.
func (s *Space) EventMessages(pod *corev1.Pod, reason string) []string {
	var all []string
	for _, e := range s.Events() {
		if e.InvolvedObject.UID == pod.UID && e.Reason == reason {
			all = append(all, strings.ReplaceAll(e.Message, pod.Status.PodIP, "IP"))
		}
	}
	slices.Sort(all)
	return all
}

// everything selects all objects of the namespace.
var everything = labels.Everything()
