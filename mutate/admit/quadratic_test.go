// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"fmt"
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
