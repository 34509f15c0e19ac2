// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// patience bounds the work on one call. Quadratic work takes many seconds, and no timeout
// ends it.
const patience = 3 * time.Second

func TestUnterminatedShimsCostLittleTime(t *testing.T) {
	f := mutatetest.Facts{}
	words := repeated(`"/metaparticle/bin/agent","exec",`, 2<<20)
	begin := time.Now()
	response := NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: f, Owners: f}).
		Handle(t.Context(), mutatetest.Request(claiming(`"containers":[{"name":"a","image":"a","command":[`+words+`]}]`)))
	assert.True(t, response.Allowed)
	assert.Less(t, time.Since(begin), patience)
}

func TestRemovalOfManyAnnotationsCostsLittleTime(t *testing.T) {
	var all []string
	for i := range 10000 { // as many as the API server accepts
		all = append(all, fmt.Sprintf(`"metaparticle.io/%x":""`, i))
	}
	annotations := `"annotations":{` + strings.Join(all, ",") + `}`
	r := mutatetest.Request(`{"metadata":{"name":"a"},"spec":{"template":{"metadata":{` + annotations + `}}}}`)
	r.Operation = admissionv1.Update
	r.OldObject = runtime.RawExtension{Raw: []byte(`{"metadata":{"name":"a",` + annotations + `},"spec":{}}`)}
	begin := time.Now()
	response := NewWorkloadHandler(Options{}).Handle(t.Context(), r)
	assert.True(t, response.Allowed)
	assert.Len(t, response.Patches, len(all))
	assert.Less(t, time.Since(begin), patience)
}
