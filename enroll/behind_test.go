// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEnrollReportsHowManySlotsLackLeases(t *testing.T) {
	w := newWorld(t, deployment(nil, sharding(3)), worker("a", 3))
	r := w.process()
	behind := map[string]int{}
	r.Behind = func(namespace string, slots int) { behind[namespace] = slots }
	w.crashFrom(1)
	_, err := r.Namespace(t.Context(), shop)
	require.ErrorIs(t, err, errCrash)
	assert.Equal(t, map[string]int{shop: 3}, behind)
	w.before = nil
	w.settle(r)
	assert.Equal(t, map[string]int{shop: 0}, behind)
}
