// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/load"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// longImage returns images whose name is "app:1" and whose command has the given words, on one
// platform or on two platforms.
func longImage(platforms bool, words ...string) mutatetest.Facts {
	command := image.Command{Entrypoint: words}
	if platforms {
		command = image.Command{Platforms: map[string]image.Command{"amd64": command, "arm64": {Entrypoint: []string{"a"}}}}
	}
	return mutatetest.Facts{Images: map[string]mutatetest.Image{"app:1": {Command: command}}}
}

// imageOnly returns a pod whose containers have no commands of their own.
func imageOnly(containers int) string {
	var all []string
	for i := range containers {
		all = append(all, fmt.Sprintf(`{"name":"c%d","image":"app:1"}`, i))
	}
	return claiming(`"containers":[` + strings.Join(all, ",") + `]`)
}

// filled is the recorder of an answer. The field "used" is the load while the answer is written.
type filled struct {
	httptest.ResponseRecorder

	limit *load.Limit
	used  int64
}

func (f *filled) Write(text []byte) (int, error) {
	f.used = f.limit.Used()
	return len(text), nil
}

// The tests of the estimate allow the same factor for garbage as checkEstimate.
func TestMemoryEstimateCoversThePatch(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	probe := func(word string) string {
		exec := `{"exec":{"command":["` + strings.Repeat(word, 256<<10/len(word)) + `"]}}`
		return claiming(`"containers":[{"name":"a","image":"a","command":["x"],"readinessProbe":` + exec + `,"livenessProbe":` + exec + `}]`)
	}
	word := strings.Repeat("x", 60<<10)
	for name, c := range map[string]struct {
		facts mutatetest.Facts
		pod   string
	}{
		"commands of images":             {longImage(false, word), imageOnly(8)},
		"short words of images":          {longImage(false, strings.Split(strings.Repeat("x", 3<<10), "")...), imageOnly(8)},
		"commands of platforms":          {longImage(true, word), imageOnly(8)},
		"quotes in commands of images":   {longImage(false, strings.ReplaceAll(word, "x", `"`)), imageOnly(1)},
		"quotes in platforms' commands":  {longImage(true, strings.ReplaceAll(word, "x", `"`)), imageOnly(1)},
		"escapes in platforms' commands": {longImage(true, strings.ReplaceAll(word, "x", "\x01")), imageOnly(1)},
		"a long command":                 {mutatetest.Facts{}, claiming(`"containers":[{"name":"a","image":"a","command":["` + strings.Repeat(word, 8) + `"]}]`)},
		"long probes":                    {mutatetest.Facts{}, probe("x")},
		"quotes in probes":               {mutatetest.Facts{}, probe(`\"`)},
		"escapes in probes":              {mutatetest.Facts{}, probe("<")},
	} {
		t.Run(name, func(t *testing.T) {
			limit := new(load.Limit)
			webhook := Serve(NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: c.facts, Owners: c.facts}), limit)
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(review(t, mutatetest.Request(c.pod))))
			r.Header.Set("Content-Type", "application/json")
			w := &filled{limit: limit}
			var before, after runtime.MemStats
			// Two collections empty the pools of buffers, so each row measures the call of a new webhook.
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&before)
			webhook.ServeHTTP(w, r)
			runtime.ReadMemStats(&after)
			require.NotZero(t, w.used)
			assert.LessOrEqual(t, int64(after.TotalAlloc-before.TotalAlloc), 3*w.used)
			assert.Zero(t, limit.Used(), "what was taken is given back")
		})
	}
}

// counted counts the look-ups of images.
type counted struct {
	mutatetest.Facts

	all atomic.Int32
}

func (c *counted) For(image.PullRights) image.Reader { return c }

func (c *counted) Command(ctx context.Context, named string) (image.Command, error) {
	c.all.Add(1)
	return c.Facts.Command(ctx, named)
}

func TestImageCommandsOfOnePodAreBounded(t *testing.T) {
	images := &counted{Facts: longImage(false, strings.Repeat("x", 60<<10))}
	response := NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: images, Owners: images.Facts}).Handle(t.Context(), mutatetest.Request(imageOnly(99)))
	require.False(t, response.Allowed)
	assert.True(t, strings.HasPrefix(response.Result.Message, string(reason.ImageUnreadable)+": "), response.Result.Message)
	assert.Contains(t, response.Result.Message, "the commands of the pod's images have more than 512 KiB together: write the container's command out")
	assert.Less(t, len(response.Result.Message), 8<<10)
	assert.LessOrEqual(t, images.all.Load(), int32(17), "no look-up starts after the bound, and eight run at once")
}

// Of two containers, each has its command in the pod. So the webhook reads their images only for the
// stop signal, and the length of the images' commands does not matter.
func TestUnusedImageCommandsNeverCount(t *testing.T) {
	images := longImage(false, strings.Repeat("\"", 60<<10))
	hooks := `"lifecycle":{"preStop":{"exec":{"command":["a"]}}}`
	response := NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: images, Owners: images}).Handle(t.Context(), mutatetest.Request(claiming(
		`"containers":[{"name":"a","image":"app:1","command":["a"],`+hooks+`},{"name":"b","image":"app:1","command":["a"],`+hooks+`}]`)))
	assert.True(t, response.Allowed, "%v", response.Result)
}

func TestPatchBeyondTheLoadLimitIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		facts mutatetest.Facts
		pod   string
	}{
		"the command of an image": {longImage(false, strings.Repeat("x", 60<<10)), imageOnly(1)},
		"the patch":               {mutatetest.Facts{}, claiming(`"containers":[{"name":"a","image":"a","command":["` + strings.Repeat("x", 48<<10) + `"]}]`)},
	} {
		t.Run(name, func(t *testing.T) {
			limit := &load.Limit{Max: 640 << 10}
			other := limit.Share()
			require.NoError(t, other.Decode(nil))
			var seen []Outcome
			webhook := Serve(NewPodHandler(Options{
				AgentImage: mutatetest.AgentImage, Images: c.facts, Owners: c.facts,
				Observe: func(o Outcome) { seen = append(seen, o) },
			}), limit)
			body := review(t, mutatetest.Request(c.pod))
			call := func() int {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				w := httptest.NewRecorder()
				webhook.ServeHTTP(w, r)
				return w.Code
			}
			assert.Equal(t, http.StatusTooManyRequests, call())
			for _, o := range seen {
				assert.False(t, o.Denied)
			}
			other.Free()
			assert.Equal(t, http.StatusOK, call(), "alone")
			assert.Zero(t, limit.Used())
		})
	}
}

// The API server allows at most 63 bytes for the name of a container, and validates names only after
// the webhook's answer.
func TestPodWithALongContainerNameIsRefused(t *testing.T) {
	pod := func(list string, length int) string {
		return claiming(`"` + list + `":[{"name":"` + strings.Repeat("n", length) + `","image":"a","command":["a"]}],"containers":[{"name":"a","image":"a","command":["a"]}]`)
	}
	f := mutatetest.Facts{}
	for text, want := range map[string]bool{pod("initContainers", 63): true, pod("initContainers", 64): false} {
		response := NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: f, Owners: f}).Handle(t.Context(), mutatetest.Request(text))
		assert.Equal(t, want, response.Allowed, "%v", response.Result)
	}
	answer := call(t, NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: f, Owners: f}), "application/json", review(t,
		mutatetest.Request(claiming(`"containers":[{"name":"`+strings.Repeat("n", 1<<20)+`","image":"a","command":["a"]}]`))))
	var got admissionv1.AdmissionReview
	require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &got))
	assert.False(t, got.Response.Allowed)
	assert.Contains(t, got.Response.Result.Message, "the name of a container has more than 63 bytes")
}
