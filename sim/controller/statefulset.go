// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"

	"github.com/metaparticle-io/metaparticle/sim/world"
)

// StatefulSet models the controller of a StatefulSet, by its source in Kubernetes 1.37.
type StatefulSet struct {
	*Workload
	// Parallel selects the pod management policy Parallel instead of OrderedReady.
	Parallel bool
	// Unavailable is the number of unavailable pods that an update allows.
	Unavailable int
	// ordinals is the largest number of replicas so far. All pods have ordinals below that
	// number.
	ordinals int
}

// at returns the pod with the ordinal; nil for none. The pod may also belong to an earlier, deleted
// StatefulSet of the same name.
func (s *StatefulSet) at(ordinal int) *world.Pod {
	for _, p := range s.Pods {
		if p.Object && p.Name == s.name(ordinal) {
			return p
		}
	}
	return nil
}

func (s *StatefulSet) name(ordinal int) string {
	return fmt.Sprintf("%s-%d", s.Template.Workload, ordinal)
}

// sync makes missing pods, deletes surplus pods, and then deletes old pods ([StatefulSet.update]).
// With OrderedReady, the method continues with the next pod only if all pods with lower ordinals
// are available.
func (s *StatefulSet) sync() {
	s.ordinals = max(s.ordinals, s.Replicas)
	for i := range s.Replicas {
		p := s.at(i)
		if p == nil {
			s.start(s.Newest, s.place(), s.name(i))
		}
		if !s.Parallel && (p == nil || !s.Available(p)) {
			return
		}
	}
	if s.condemn() {
		s.update()
	}
}

// condemn deletes the pods whose ordinals are not below the number of replicas, and returns whether
// an update may follow. With OrderedReady, the method deals only with the last such pod, and
// returns false if such a pod exists.
func (s *StatefulSet) condemn() bool {
	for i := s.ordinals - 1; i >= s.Replicas; i-- {
		p := s.at(i)
		if p == nil {
			continue
		}
		if s.Parallel || s.Available(p) || p == s.unhealthy() {
			p.Shown.Delete()
		}
		if !s.Parallel {
			return false
		}
	}
	return true
}

// unhealthy returns the pod with the lowest ordinal that is not available; nil for none.
func (s *StatefulSet) unhealthy() *world.Pod {
	for i := range s.ordinals {
		if p := s.at(i); p != nil && !s.Available(p) {
			return p
		}
	}
	return nil
}

// update deletes old pods, the highest ordinal first, until as many pods are unavailable as the
// field Unavailable allows. With Parallel, the method first deletes all old pods that are not
// available.
func (s *StatefulSet) update() {
	left := s.Unavailable
	for i := range s.Replicas {
		p := s.at(i)
		if p != nil && s.Available(p) {
			continue
		}
		left--
		if s.Parallel && p != nil && p.Revision.Workload == s.UID && !s.Updated(p) {
			p.Shown.Delete()
		}
	}
	for i := s.Replicas - 1; i >= 0 && left > 0; i-- {
		if p := s.at(i); p != nil && s.Available(p) && !s.Updated(p) {
			p.Shown.Delete()
			left--
		}
	}
}
