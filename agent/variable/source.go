// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package variable

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

const (
	// patience bounds the time of one call. requestTimeout bounds the time of each request to the
	// API server.
	patience       = 10 * time.Second
	requestTimeout = 3 * time.Second
	// mostCalls bounds the calls that wait for one Variable: actions, reads and watches.
	mostCalls = 256
	// mostAtOnce bounds the calls that one write carries out. Each of these calls stores at
	// most one idempotency key. A Variable keeps more keys than mostAtOnce ([api.MaxKeys]), so
	// no write drops a key that the same write has stored.
	mostAtOnce = 32
)

// Requests has the requests for Variables. agent/kube implements Requests.
type Requests interface {
	// GetVariable reads a Variable consistently.
	GetVariable(ctx context.Context, name string) (*kube.Variable, error)
	// UpdateVariable replaces the Variable by v, if the Variable still has the uid and the
	// resourceVersion of v.
	UpdateVariable(ctx context.Context, v *kube.Variable) (*kube.Variable, error)
	// WatchVariable calls fn with each event until the watch ends. WatchVariable returns nil if
	// the watch ends without an error.
	WatchVariable(ctx context.Context, name, resourceVersion string, fn func(v *kube.Variable, gone bool)) error
}

// Config has the settings of a Variable. Each field must be set.
type Config struct {
	Name     string
	Requests Requests
	// PodUID is the uid of the agent's pod. Process identifies this process of the agent.
	PodUID, Process string
	// Random is the only source of randomness. It is used only by [New] and [Variable.Run].
	Random rand.Source
	Log    *slog.Logger
}

// source reads one Variable.
type source struct{ Config }

func (s source) read(ctx context.Context) (*kube.Variable, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return s.Requests.GetVariable(ctx, s.Name)
}

// tasks are the goroutines of a Variable beside its loop. They end when the loop ends.
type tasks struct {
	ctx   context.Context //nolint:containedctx // the context of all tasks, which many calls share
	end   context.CancelFunc
	mu    sync.Mutex
	over  bool
	group sync.WaitGroup
}

func newTasks() *tasks {
	t := new(tasks)
	t.ctx, t.end = context.WithCancel(context.Background())
	return t
}

// start starts a task, unless the loop has ended.
func (t *tasks) start(f func(ctx context.Context)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.group.Go(func() { f(t.ctx) })
	}
}

// wait ends all tasks, and waits until they have ended.
func (t *tasks) wait() {
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	t.end()
	t.group.Wait()
}
