// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// hoarder is a registry whose index has a long text in a descriptor. The registry never sends a
// manifest, and counts the requests for manifests that wait.
type hoarder struct {
	*httptest.Server
	waiting atomic.Int32
}

// newHoarder returns a hoarder. The argument "field" is the field with the long text, in JSON.
func newHoarder(t *testing.T, field string) *hoarder {
	t.Helper()
	h := new(hoarder)
	index := fmt.Sprintf(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%064d"},`+
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json",%s}]}`, 1, field)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(index)))
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, name, _ := strings.Cut(r.URL.Path, "/manifests/")
		switch name {
		case "":
		case "1", digest:
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			w.Header().Set("Docker-Content-Digest", digest)
			_, _ = fmt.Fprint(w, index) // the answer to HEAD has no body
		default:
			h.waiting.Add(1)
			<-r.Context().Done()
		}
	}))
	t.Cleanup(h.Close)
	return h
}

// An index of megabytes counts as a large answer only until it is decoded. So no long text of an
// index may stay in memory while the look-up waits for the next answer.
func TestHugeDescriptorsOfAnIndexAreRefused(t *testing.T) {
	long := base64.StdEncoding.EncodeToString(make([]byte, 1400<<10))
	for _, field := range []string{"data", "digest", "architecture"} {
		t.Run(field, func(t *testing.T) {
			text := fmt.Sprintf(`%q:%q`, field, long)
			if field == "architecture" {
				text = fmt.Sprintf(`"platform":{%s}`, text)
			}
			h := newHoarder(t, text)
			host := strings.TrimPrefix(h.URL, "http://")
			r := New(Options{PlainHTTP: []string{host}, Budget: time.Minute})
			before := heap()
			ctx, cancel := context.WithCancel(t.Context())
			var lookUps sync.WaitGroup
			var ended atomic.Int32
			for i := range maxOfNamespace {
				lookUps.Go(func() {
					_, _ = r.Command(ctx, fmt.Sprintf("%s/app%d:1", host, i), image.PullRights{Namespace: "evil"})
					ended.Add(1)
				})
			}
			require.Eventually(t, func() bool { return h.waiting.Load()+ended.Load() >= maxOfNamespace }, 50*time.Second, time.Millisecond)
			assert.Less(t, grew(before), uint64(4<<20))
			cancel()
			lookUps.Wait()
		})
	}
}

// A pod has up to a hundred images, and keeps the failure of each look-up until its refusal.
func TestFailuresOfLookUpsTakeLittleMemory(t *testing.T) {
	body := fmt.Sprintf(`{"config":{"digest":"sha256:%s"}}`, strings.Repeat("1", 1900<<10))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = fmt.Fprint(w, body) // the answer to HEAD has no body
		}
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	longest := 0
	r := New(Options{PlainHTTP: []string{host}, Budget: time.Minute, Failed: func(_, _ string, cause error) {
		longest = max(longest, len(cause.Error()))
	}})
	before := heap()
	failures := make([]error, 20)
	for i := range failures {
		_, failures[i] = r.Command(t.Context(), fmt.Sprintf("%s/app%d:1", host, i), image.PullRights{Namespace: "evil"})
		require.ErrorIs(t, failures[i], errNotImage)
	}
	assert.Less(t, grew(before), uint64(4<<20))
	assert.Less(t, longest, 1<<10)
	runtime.KeepAlive(failures)
}
