// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// Appearance is the pod's status as Services, rollouts and people see it.
type Appearance struct {
	// Ready, Reason and Message are the fields of the pod condition [api.ReadyCondition].
	Ready           bool
	Reason, Message string
	// Hold is the hold of the pod; empty for none. A pod with a hold gets the label of a
	// holder. Such a pod also gets the highest deletion cost, unless a person has set another
	// cost.
	Hold string
	// Shard is the number of the shard that the pod holds; empty for none.
	Shard string
}

// Status writes an Appearance into the pod's status, in a goroutine beside that of the agent's
// loop. So no renewal waits for a write. Only the last Appearance is written.
type Status struct {
	config  Config
	changed chan struct{}
	// last is the pod in the answer to the last stored write. If the stored state is not known, or
	// the kubelet has probably changed the pod since, the field is zero. Only Run uses this field.
	last kube.Pod

	mu   sync.Mutex
	want Appearance
	some bool
}

// NewStatus returns a Status that writes nothing before the call of Run.
func NewStatus(config Config) *Status {
	return &Status{config: config, changed: make(chan struct{}, 1)}
}

// Show sets the Appearance that Run writes.
func (s *Status) Show(want Appearance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.some && s.want == want {
		return
	}
	s.want, s.some = want, true
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *Status) wanted() Appearance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want
}

// readyPause is the least average time between two changes of a standby's readiness. After each
// pause, the next change follows at once, so the rate can be twice as high. readyBurst is the number of
// changes that a standby may write in direct succession. Without these bounds, a thief of the holder's
// rights could cause very many writes: the Lease decides whether the standbys are Ready. Nodes and
// Services follow each of these writes.
const (
	readyPause = 6 * time.Second
	readyBurst = 10
)

// Run writes the Appearance that Show set last. Run writes again after each change, and after each
// write that failed, until ctx ends.
func (s *Status) Run(ctx context.Context) {
	var written Appearance
	var since time.Time // the time at which written.Ready got its present value
	// unsure reports that the API server may have stored a status other than "written". A write
	// whose answer was lost, or an earlier agent process, may have sent that status.
	unsure := true
	misses := 0
	// delayed reports that a write of a standby's reason or message waits for the timer.
	delayed := false
	retry := time.NewTimer(Calm)
	retry.Stop()
	began, standby := time.Now(), pace.Pace{Every: readyPause, Burst: readyBurst}
	for {
		select {
		case <-s.changed:
			switch want := s.wanted(); {
			case unsure || want.Ready != written.Ready:
				if now := time.Since(began); want.Hold == "" && written.Hold == "" && !standby.TrySpend(now) {
					delayed = true // until the timer, the readiness may change any number of times
					retry.Reset(standby.NextAt() - now)
					continue
				}
			case want.Hold != "" || written.Hold != "":
				// The readiness is still the same. The other fields may change again soon, so
				// the write waits.
				delayed = false
				retry.Reset(Calm)
				continue
			default:
				// Only the reason or message of a standby has changed. During a short handover they
				// change and soon change back, so the write waits. Later changes do not delay the
				// write any further.
				if !delayed {
					delayed = true
					retry.Reset(s.config.Delay())
				}
				continue
			}
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return
		}
		delayed = false
		want := s.wanted()
		if !unsure && want == written {
			s.config.Stored(ctx, written.Ready)
			continue
		}
		at, changed := since, unsure || want.Ready != written.Ready
		if changed {
			at = s.config.Wall()
		}
		// Two holds may have the same status. The API server then stores nothing, the write
		// returns ErrUnchanged, and the stored status is right.
		if err := s.write(ctx, want, at, changed); err != nil && (unsure || !errors.Is(err, kube.ErrUnchanged)) {
			s.config.Log.Debug("status is not written", "err", err)
			unsure = true // a proxy may have repeated a stored write, and so cause a conflict
			retry.Reset(s.config.Backoff(misses))
			misses++
			continue
		}
		written, since, misses, unsure = want, at, 0, false
		s.config.Stored(ctx, written.Ready)
		s.config.Idle()
	}
}

// Anything is an empty patch. The agent has no right to read its pod, but learns the pod's
// resourceVersion from the answer to this patch.
var Anything = []byte("{}")

// write stores the status under the last known resourceVersion of the pod. If somebody else has
// changed the pod since, write reads the resourceVersion again. A delayed earlier write
// names an older resourceVersion. So once this write has changed the pod, the API server refuses
// the delayed write.
func (s *Status) write(ctx context.Context, want Appearance, since time.Time, changed bool) error {
	if s.last.ResourceVersion != "" {
		// In most handovers of Ready pods nobody has changed the pod since the last write.
		if err := s.replace(ctx, want, since, changed, s.last); !errors.Is(err, kube.ErrConflict) {
			return err
		}
	}
	pod, err := s.send(ctx, Anything)
	if err != nil {
		return err
	}
	s.config.Answered(ctx, want.Hold, pod.Deleted)
	return s.replace(ctx, want, since, changed, pod)
}

// replace stores the status if the pod still has the resourceVersion of the argument "pod". The
// argument "changed" reports that the write can change the pod's readiness.
func (s *Status) replace(ctx context.Context, want Appearance, since time.Time, changed bool, pod kube.Pod) error {
	s.last = kube.Pod{}
	metadata := want.metadata(pod, s.config.Shards > 0)
	stored, err := s.sendAll(ctx, want, since, metadata)
	if errors.Is(err, kube.ErrForbidden) {
		// A policy lets an agent change neither labels nor annotations of a pod that has very many.
		// The readiness matters more.
		stored, err = s.sendAll(ctx, want, since, map[string]any{"resourceVersion": pod.ResourceVersion})
	}
	if err != nil {
		return err
	}
	if !changed {
		s.last = stored
	} // otherwise the kubelet soon writes the pod's condition Ready, which depends on this readiness
	s.config.Answered(ctx, want.Hold, stored.Deleted)
	if stored.ResourceVersion == pod.ResourceVersion {
		return kube.ErrUnchanged
	}
	return nil
}

// sendAll sends the pod's condition and the metadata.
func (s *Status) sendAll(ctx context.Context, want Appearance, since time.Time, metadata map[string]any) (kube.Pod, error) {
	patch, err := want.patch(since, metadata)
	if err != nil {
		return kube.Pod{}, err
	}
	return s.send(ctx, patch)
}

// send sends one patch, with the timeout of a renewal. So an API server that is fast enough for
// renewals is also fast enough for the pod's readiness.
func (s *Status) send(ctx context.Context, patch []byte) (kube.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	return s.config.API.PatchPodStatus(ctx, s.config.PodName, patch)
}

// Disrupt stores the pod's condition DisruptionTarget. The UID keeps the write from a later pod of the
// same name.
func (s *Status) Disrupt(ctx context.Context, reason, message string) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": s.config.PodUID},
		"status": map[string]any{"conditions": []any{map[string]any{
			"type":               api.DisruptionCondition,
			"status":             "True",
			"reason":             reason,
			"message":            printable(message),
			"lastTransitionTime": s.config.Wall().UTC().Format(time.RFC3339),
		}}},
	})
	if err != nil {
		return err
	}
	_, err = s.send(ctx, patch)
	return err
}

// metadata returns the metadata of a strategic merge patch of the pod, which removes a key with the
// value null. A deletion cost that a person has set stays. The argument "sharded" reports that the pod
// claims a shard.
func (a Appearance) metadata(pod kube.Pod, sharded bool) map[string]any {
	value := func(v string) any {
		if a.Hold == "" || v == "" {
			return nil
		}
		return v
	}
	labels := map[string]any{api.RoleLabel: value(api.RoleHolder)}
	if sharded {
		labels[api.ShardLabel] = value(a.Shard)
	}
	metadata := map[string]any{
		"resourceVersion": pod.ResourceVersion,
		"labels":          labels,
	}
	if pod.DeletionCost == "" || pod.DeletionCost == api.HolderDeletionCost {
		metadata["annotations"] = map[string]any{api.DeletionCostAnnotation: value(api.HolderDeletionCost)}
	}
	return metadata
}

// patch returns a strategic merge patch of the pod. The API server merges conditions by their type.
func (a Appearance) patch(since time.Time, metadata map[string]any) ([]byte, error) {
	ready := "False"
	if a.Ready {
		ready = "True"
	}
	return json.Marshal(map[string]any{
		"metadata": metadata,
		"status": map[string]any{"conditions": []any{map[string]any{
			"type":               api.ReadyCondition,
			"status":             ready,
			"reason":             a.Reason,
			"message":            printable(a.Message),
			"lastTransitionTime": since.UTC().Format(time.RFC3339),
		}}},
	})
}
