// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	admissionv1 "k8s.io/api/admission/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"

	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// mostWork bounds the processor time of one call with a huge object. A handler with
// quadratic work needs many seconds for such a call, and no timeout ends the work.
const mostWork = 5 * time.Second

// work returns the processor time that this thread has used. Other processes do not change
// that time, however many there are.
func work(t *testing.T) time.Duration {
	var used unix.Timespec
	require.NoError(t, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &used))
	return time.Duration(used.Nano())
}

func TestWebhookQuicklyAdmitsCommandOfManyNestedShims(t *testing.T) {
	f := mutatetest.Facts{}
	words := repeated(`"/metaparticle/bin/agent","exec",`, 2<<20)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := work(t)
	response := NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: f, Owners: f}).
		Handle(t.Context(), mutatetest.Request(claiming(`"containers":[{"name":"a","image":"a","command":[`+words+`]}]`)))
	assert.True(t, response.Allowed)
	assert.Less(t, work(t)-before, mostWork)
}

func TestRemovalOfManyAnnotationsCostsLittleTime(t *testing.T) {
	var all []string
	for i := range 10000 { // about as many annotations as the API server accepts
		all = append(all, fmt.Sprintf(`"metaparticle.io/%x":""`, i))
	}
	annotations := `"annotations":{` + strings.Join(all, ",") + `}`
	r := mutatetest.Request(`{"metadata":{"name":"a"},"spec":{"template":{"metadata":{` + annotations + `}}}}`)
	r.Operation = admissionv1.Update
	r.OldObject = apiruntime.RawExtension{Raw: []byte(`{"metadata":{"name":"a",` + annotations + `},"spec":{}}`)}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := work(t)
	response := NewWorkloadHandler(Options{}).Handle(t.Context(), r)
	assert.True(t, response.Allowed)
	assert.Len(t, response.Patches, len(all))
	assert.Less(t, work(t)-before, mostWork)
}

// The API server allows 256 KiB of annotations, and validates annotations only after the webhook's
// answer.
func TestPodWithHugeAnnotationsIsRefusedAtOnce(t *testing.T) {
	pod := func(slots int) string {
		return `{"metadata":{"name":"a","annotations":{"metaparticle.io/lock":"x","metaparticle.io/slots":"` + strings.Repeat(",", slots) + `"}},
			"spec":{"containers":[{"name":"a","image":"a","command":["a"]}]}}`
	}
	handler := NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: mutatetest.Facts{}, Owners: mutatetest.Facts{}})
	rest := len("metaparticle.io/lock" + "x" + "metaparticle.io/slots")
	for length, want := range map[int]bool{256<<10 - rest: true, 256<<10 - rest + 1: false} {
		response := handler.Handle(t.Context(), mutatetest.Request(pod(length)))
		assert.Equal(t, want, response.Allowed, "%v", response.Result)
	}
	body := review(t, mutatetest.Request(pod(3<<20)))
	bytes, code := allocated(t, handler, body)
	assert.Equal(t, http.StatusOK, code)
	assert.Less(t, bytes, int64(12*len(body)), "the annotations are decoded, and not read")
}
