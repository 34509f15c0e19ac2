// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/mutate/load"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// allocated returns the bytes that a call allocates, garbage included, and the status of
// its answer.
func allocated(t *testing.T, handler admission.Handler, body string) (bytes int64, code int) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	Serve(handler, new(load.Limit)).ServeHTTP(w, r)
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc), w.Code
}

// repeated repeats an element of a JSON list, up to about the given number of bytes. The
// result has no brackets.
func repeated(element string, bytes int) string {
	return strings.TrimSuffix(strings.Repeat(element, bytes/len(element)), ",")
}

// claiming returns an object that claims a lock, with the given spec.
func claiming(spec string) string {
	return `{"metadata":{"name":"a","annotations":{"metaparticle.io/lock":"a"}},"spec":{` + spec + `}}`
}

// hollow returns objects that need far more memory than their text.
func hollow(bytes int) (pods, workloads map[string]string) {
	var keys strings.Builder
	for i := 0; keys.Len() < bytes; i++ {
		fmt.Fprintf(&keys, `"%x":"",`, i)
	}
	pods, workloads = map[string]string{}, map[string]string{}
	for _, element := range []string{"0,", "null,", `"",`, "[],", "{},"} {
		for _, list := range []string{"containers", "initContainers", "ephemeralContainers", "volumes", "tolerations", "args"} {
			pods[list+" "+element] = claiming(`"` + list + `":[` + repeated(element, bytes) + `]`)
		}
		workloads["containers "+element] = claiming(`"template":{"spec":{"containers":[` + repeated(element, bytes) + `]}}`)
		workloads["unknown "+element] = claiming(`"template":{"x":[` + repeated(element, bytes) + `]}`)
		pods["variables "+element] = claiming(`"containers":[{"name":"a","image":"a","env":[` + repeated(element, bytes) + `]}]`)
	}
	pods["arguments"] = claiming(`"containers":[{"name":"a","image":"a","command":["x"],"args":[` + repeated(`"",`, bytes) + `]}]`)
	workloads["arguments"] = claiming(`"template":{"spec":{"containers":[{"name":"a","command":["x"],"args":[` + repeated(`"",`, bytes) + `]}]}}`)
	workloads["members of one name"] = claiming(`"template":{` + repeated(`"a":0,`, bytes) + `}`)
	workloads["members"] = claiming(`"template":{"metadata":{` + keys.String() + `"x":0}}`)
	workloads["annotations"] = claiming(`"template":{"metadata":{"annotations":{` + keys.String() + `"x":"0"}}}`)
	return pods, workloads
}

// checkEstimate requires that the estimate of a call covers the memory that the call uses.
// The estimate is about the memory in use at one time. All allocations together may be three
// times as much, because a growing list leaves old copies to the garbage collector.
func checkEstimate(t *testing.T, handler admission.Handler, object string) {
	t.Helper()
	body := review(t, mutatetest.Request(object))
	limit := new(load.Limit)
	share := limit.Share()
	_, err := io.Copy(io.Discard, share.Meter(strings.NewReader(body)))
	require.NoError(t, err)
	require.NoError(t, share.Decode([]byte(body)))
	bytes, code := allocated(t, handler, body)
	assert.Equal(t, http.StatusOK, code)
	assert.LessOrEqual(t, bytes, 3*limit.Used())
}

// An argument that the patch cannot copy as it stands is decoded.
func TestMemoryEstimateCoversShortArguments(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	f := mutatetest.Facts{}
	handler := NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: f, Owners: f})
	for _, word := range []string{`"é",`, `"\/",`, `"a",`} {
		checkEstimate(t, handler, claiming(`"containers":[{"name":"a","image":"a","command":["x"],"args":[`+repeated(word, 250_000*len(word))+`]}]`))
	}
}

func TestMemoryEstimateCoversEmptyJSONObjects(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	f := mutatetest.Facts{}
	o := Options{AgentImage: mutatetest.AgentImage, Images: f, Owners: f}
	pods, workloads := hollow(24 << 10)
	measure := func(kind string, handler admission.Handler, objects map[string]string) {
		for name, object := range objects {
			t.Run(kind+" "+name, func(t *testing.T) {
				checkEstimate(t, handler, object)
			})
		}
	}
	measure("pod", NewPodHandler(o), pods)
	measure("workload", NewWorkloadHandler(o), workloads)
	measure("passed pod", NewPodHandler(o), recalled(48<<10))
}

func TestManyEmptyJSONObjectsAreRefusedBeforeDecoding(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	pods, workloads := hollow(2 << 20)
	passed := recalled(1536 << 10)
	delete(passed, "probes of many") // members, which the estimate counts for less
	for _, objects := range []map[string]string{pods, workloads, passed} {
		for name, object := range objects {
			t.Run(name, func(t *testing.T) {
				body := review(t, mutatetest.Request(object))
				bytes, code := allocated(t, NewPodHandler(Options{}), body)
				assert.Equal(t, http.StatusBadRequest, code)
				assert.Less(t, bytes, int64(8*len(body)), "the body is read, but not decoded")
			})
		}
	}
}

// largeWorkload returns a workload with many containers and environment variables. The text has
// the managed fields, as the API server sends them.
func largeWorkload(containers, variables int) string {
	var all, managed []string
	for c := range containers {
		var env, fields []string
		for v := range variables {
			env = append(env, fmt.Sprintf(`{"name":"VARIABLE_%d","valueFrom":{"secretKeyRef":{"name":"a-secret","key":"key-%d"}}}`, v, v))
			fields = append(fields, fmt.Sprintf(`"k:{\"name\":\"VARIABLE_%d\"}":{".":{},"f:name":{},"f:valueFrom":{".":{},"f:secretKeyRef":{}}}`, v))
		}
		all = append(all, fmt.Sprintf(`{"name":"c%d","image":"app:1","command":["a"],"env":[%s]}`, c, strings.Join(env, ",")))
		managed = append(managed, fmt.Sprintf(`"k:{\"name\":\"c%d\"}":{".":{},"f:env":{".":{},%s}}`, c, strings.Join(fields, ",")))
	}
	return `{"metadata":{"name":"a","annotations":{"metaparticle.io/lock":"a"},"managedFields":[{"manager":"a","operation":"Update","fieldsV1":` +
		`{"f:spec":{"f:template":{"f:spec":{"f:containers":{` + strings.Join(managed, ",") + `}}}}}}]},` +
		`"spec":{"template":{"spec":{"containers":[` + strings.Join(all, ",") + `]}}}}`
}

func TestLargeValidObjectsFitIntoTheLoadLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	update := func(object string) admission.Request {
		r := mutatetest.Request(object)
		r.Operation, r.OldObject = admissionv1.Update, apiruntime.RawExtension{Raw: []byte(object)}
		return r
	}
	arguments := func(words string) string {
		return claiming(`"template":{"spec":{"containers":[{"name":"a","image":"a","args":[` + words + `]}]}}`)
	}
	var annotations strings.Builder
	for i := 0; annotations.Len() < 256<<10; i++ { // the API server's limit for annotations
		fmt.Fprintf(&annotations, `"example.com/%d":"",`, i)
	}
	for name, r := range map[string]admission.Request{
		"20 containers of 50 variables, updated": update(largeWorkload(20, 50)),
		"3 MB of arguments":                      mutatetest.Request(arguments(repeated(`"--twelve=12",`, 3<<20))),
		"3 MB of arguments, updated":             update(arguments(repeated(`"--twelve=12",`, 3<<20))),
		"3 MB of an annotation":                  mutatetest.Request(`{"metadata":{"annotations":{"a":"` + strings.Repeat("x", 3<<20) + `"}},"spec":{}}`),
		"many annotations, updated":              update(`{"metadata":{"annotations":{` + annotations.String() + `"a":""}},"spec":{}}`),
	} {
		t.Run(name, func(t *testing.T) {
			body := review(t, r)
			limit := new(load.Limit)
			require.NoError(t, limit.Share().Decode([]byte(body)))
			t.Log(limit.Used() >> 20)
			_, code := allocated(t, NewWorkloadHandler(Options{}), body)
			assert.Equal(t, http.StatusOK, code)
		})
	}
}
