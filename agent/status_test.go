// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// Nothing is known of what an earlier process has stored.
func TestTheFirstStatusIsWrittenAtOnceAndIsOfNow(t *testing.T) {
	simulate(t, func(w *world) {
		l := &link{server: w.server}
		s := newStatus(Config{API: l, PodName: "a", Wall: time.Now, Calm: func() {}, Log: slog.New(slog.DiscardHandler)}, api.Budget{RequestTimeout: time.Second}, rand.New(rand.NewPCG(1, 1)))
		go s.run(w.t.Context())
		s.show(appearance{Reason: readyStandingBy})
		w.pass(0)
		require.Len(t, l.patches, 1)
		assert.Contains(t, l.patches[0], time.Now().UTC().Format(time.RFC3339))
	})
}
