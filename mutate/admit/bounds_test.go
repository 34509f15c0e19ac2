// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// slowImages answers each look-up of an image after one second. The field "now" counts the look-ups
// in flight, "most" is their maximum, "all" counts all look-ups, and "pods" counts the calls of
// For.
type slowImages struct{ now, most, all, pods atomic.Int32 }

func (s *slowImages) For(image.PullRights) image.Reader {
	s.pods.Add(1)
	return s
}

func (s *slowImages) Command(ctx context.Context, _ string) (image.Command, error) {
	s.all.Add(1)
	now := s.now.Add(1)
	defer s.now.Add(-1)
	for most := s.most.Load(); now > most && !s.most.CompareAndSwap(most, now); most = s.most.Load() {
	}
	select {
	case <-time.After(time.Second):
		return image.Command{Cmd: []string{"app"}}, nil
	case <-ctx.Done():
		return image.Command{}, ctx.Err()
	}
}

// podOf returns a pod that claims a singleton and has the given number of containers.
func podOf(containers int) string {
	var all []string
	for i := range containers {
		all = append(all, fmt.Sprintf(`{"name":"c%d","image":"app:%d"}`, i, i))
	}
	return `{"metadata":{"name":"a","annotations":{"metaparticle.io/singleton":"true"}},"spec":{"containers":[` + strings.Join(all, ",") + `]}}`
}

func TestConcurrentImageLookUpsPerPodAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		images := new(slowImages)
		f := mutatetest.Facts{Group: &api.Workload{Kind: "Pod", Name: "a"}}
		response := NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: images, Owners: f, Timeout: time.Minute}).Handle(t.Context(), mutatetest.Request(podOf(40)))
		require.True(t, response.Allowed, "%v", response.Result)
		assert.EqualValues(t, 8, images.most.Load())
		assert.EqualValues(t, 40, images.all.Load())
		assert.EqualValues(t, 1, images.pods.Load(), "pull secrets are the pod's, not each image's")
	})
}

func TestTimedOutImageLookUpsCauseARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		f := mutatetest.Facts{Group: &api.Workload{Kind: "Pod", Name: "a"}}
		response := NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: new(slowImages), Owners: f, Timeout: 3500 * time.Millisecond}).Handle(t.Context(), mutatetest.Request(podOf(100)))
		assert.False(t, response.Allowed)
		assert.Equal(t, 3500*time.Millisecond, time.Since(began))
	})
}

// hanging is a registry without an answer. Each look-up ends after the time that package registry
// gives to a look-up.
type hanging struct{ all atomic.Int32 }

func (h *hanging) For(image.PullRights) image.Reader { return h }

func (h *hanging) Command(context.Context, string) (image.Command, error) {
	h.all.Add(1)
	<-time.After(2500 * time.Millisecond)
	return image.Command{}, context.DeadlineExceeded
}

func TestPodWaitsOnlyOnceForAHangingRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, images := time.Now(), new(hanging)
		f := mutatetest.Facts{Group: &api.Workload{Kind: "Pod", Name: "a"}}
		response := NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: images, Owners: f, Timeout: time.Minute}).Handle(t.Context(), mutatetest.Request(podOf(100)))
		assert.False(t, response.Allowed)
		assert.Contains(t, response.Result.Message, "another image of the pod had no answer in time")
		assert.Equal(t, 2500*time.Millisecond, time.Since(began))
		assert.EqualValues(t, 8, images.all.Load())
	})
}

func TestHugePodCausesNoImageLookUp(t *testing.T) {
	response := NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: asked{t}, Owners: mutatetest.Facts{}}).Handle(t.Context(), mutatetest.Request(podOf(6000)))
	require.False(t, response.Allowed)
	assert.True(t, strings.HasPrefix(response.Result.Message, string(reason.ContainerLimit)+": "), response.Result.Message)
	assert.Less(t, len(response.Result.Message), 1000)
}
