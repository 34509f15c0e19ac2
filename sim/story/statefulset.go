// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"

	"github.com/metaparticle-io/metaparticle/sim/world"
)

// statefulSet models the controller of a StatefulSet, after the source code of Kubernetes 1.37.
type statefulSet struct {
	*workload
	// parallel selects the pod management policy Parallel instead of OrderedReady.
	parallel    bool
	unavailable int
	// ordinals is the largest number of replicas so far. All pods have ordinals below that
	// number.
	ordinals int
}

// at returns the pod with the ordinal; nil for none. The pod may also belong to a
// StatefulSet of the same name that was deleted.
func (s *statefulSet) at(ordinal int) *world.Pod {
	for _, p := range s.Pods {
		if p.Object && p.Name == s.name(ordinal) {
			return p
		}
	}
	return nil
}

func (s *statefulSet) name(ordinal int) string {
	return fmt.Sprintf("%s-%d", s.template.Workload, ordinal)
}

// sync makes missing pods, deletes surplus pods, and then deletes old pods ([statefulSet.update]).
// With OrderedReady, sync continues with the next pod only if all pods with lower ordinals are
// available.
func (s *statefulSet) sync() {
	s.ordinals = max(s.ordinals, s.replicas)
	for i := range s.replicas {
		p := s.at(i)
		if p == nil {
			s.start(s.newest, s.place(), s.name(i))
		}
		if !s.parallel && (p == nil || !s.available(p)) {
			return
		}
	}
	if s.condemn() {
		s.update()
	}
}

// condemn deletes the pods whose ordinals are not below the number of replicas, and returns whether
// an update may follow. With OrderedReady, condemn looks only at the last such pod, and returns
// false if there is one.
func (s *statefulSet) condemn() bool {
	for i := s.ordinals - 1; i >= s.replicas; i-- {
		p := s.at(i)
		if p == nil {
			continue
		}
		if s.parallel || s.available(p) || p == s.unhealthy() {
			p.Shown.Delete()
		}
		if !s.parallel {
			return false
		}
	}
	return true
}

// unhealthy returns the pod with the lowest ordinal that is not available; nil for none.
func (s *statefulSet) unhealthy() *world.Pod {
	for i := range s.ordinals {
		if p := s.at(i); p != nil && !s.available(p) {
			return p
		}
	}
	return nil
}

// update deletes old pods, the highest ordinal first, until as many pods are unavailable as the
// field "unavailable" allows. With Parallel, update first deletes all old pods that are not
// available.
func (s *statefulSet) update() {
	left := s.unavailable
	for i := range s.replicas {
		p := s.at(i)
		if p != nil && s.available(p) {
			continue
		}
		left--
		if s.parallel && p != nil && p.Revision.Workload == s.uid && !s.updated(p) {
			p.Shown.Delete()
		}
	}
	for i := s.replicas - 1; i >= 0 && left > 0; i-- {
		if p := s.at(i); p != nil && s.available(p) && !s.updated(p) {
			p.Shown.Delete()
			left--
		}
	}
}
