// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// Hanging registries occupy all look-ups that a hostile namespace may run at the same time. So a
// further look-up of that namespace waits, but another namespace's look-up of the same image does
// not.
func TestImageLookUpNeverWaitsForHostileNamespace(t *testing.T) {
	f := newRegistry(t, false)
	popular := f.push(t, "library/nginx:latest", redis)
	hanging := newBusy(t)
	r := f.resolver(Options{PlainHTTP: []string{hanging.host(), f.host()}, Budget: time.Minute})

	ctx, cancel := context.WithCancel(t.Context())
	attack := hanging.askMany(ctx, r, 1, maxOfNamespace)
	require.Eventually(t, func() bool { return hanging.now.Load() >= maxOfNamespace }, time.Minute, time.Millisecond)
	attack.Go(func() { _, _ = r.Command(ctx, popular, image.PullRights{Namespace: "evil0"}) })
	require.Eventually(t, func() bool { return r.flights.begun("evil0", popular) }, time.Minute, time.Millisecond)

	patience, end := context.WithTimeout(t.Context(), 10*time.Second)
	defer end()
	_, err := r.Command(patience, popular, image.PullRights{Namespace: "victim"})
	assert.NoError(t, err)
	cancel()
	attack.Wait()
}

// begun reports whether a look-up of the image is under way for the namespace, or for all
// namespaces together.
func (f *flights) begun(namespace, image string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.going {
		if strings.HasSuffix(key, image) && (strings.HasPrefix(key, namespace+" ") || strings.HasPrefix(key, " ")) {
			return true
		}
	}
	return false
}

// A registry may send JSON with a repeated key. The command must not grow with each repetition.
func TestRepeatedJSONKeyDoesNotLengthenImageCommand(t *testing.T) {
	one := `"Entrypoint":[` + strings.TrimSuffix(strings.Repeat(`"",`, 4000), ",") + `],`
	var file configuration
	require.NoError(t, decode([]byte(`{"config":{`+strings.Repeat(one, 100)+`"x":0}}`), &file))
	assert.LessOrEqual(t, len(file.Config.Entrypoint)*wordCost, maxCommand)
}
