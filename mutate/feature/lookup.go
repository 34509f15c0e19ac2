// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/load"
)

const (
	// maxLookUps bounds the concurrent look-ups of one pod, so that a pod with many containers
	// cannot fill its namespace's queue of look-ups.
	maxLookUps = 8
	// maxCommands bounds the bytes of the commands that a pod's containers get from their images.
	// The bound is above the longest command of one image, even if an escape replaces each byte.
	maxCommands = 512 << 10
	// wordCost is the size of Go's string header, which each word of a command has.
	wordCost = 16
	// escapeCost is the number of further letters that an escape may have in the patch. The
	// commands of platforms are JSON in an argument, so the encoder of the patch escapes twice. The
	// function literals doubles each dollar.
	escapeCost = 6
	// slowFailure is the time after which a failed look-up counts as hanging. A healthy registry
	// reports a failure sooner.
	slowFailure = time.Second
)

// errSkipped is the error of a look-up that readImages does not start. The pod is refused in any
// case, and should not occupy the webhook any longer.
var errSkipped = errors.New("not asked, because another image of the pod had no answer in time")

var errCommands = fmt.Errorf("the commands of the pod's images have more than %d KiB together", maxCommands>>10)

// lookUp is the result of a look-up; zero for a container whose image need not be read.
type lookUp struct {
	command image.Command
	err     error
}

// tally counts the bytes of the commands that one pod gets from its images.
type tally struct {
	mu    sync.Mutex
	bytes int
	// err is set once a command had no room.
	err error
}

// hang notes that a look-up failed late.
func (t *tally) hang() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = errSkipped
	}
}

// failed returns the error of the first command without room, or of a look-up that failed late.
func (t *tally) failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// add counts a command, and adds the command to the load. Without room, add returns an error.
func (t *tally) add(ctx context.Context, command image.Command) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	bytes := lengthOf(command)
	switch {
	case errors.Is(t.err, errSkipped):
		return nil // the pod is refused for another image, and this image has an answer
	case t.err == nil && t.bytes+bytes > maxCommands:
		t.err = errCommands
	case t.err == nil:
		t.err = load.AddCommand(ctx, bytes)
	}
	t.bytes += bytes
	return t.err
}

// readImages reads the images of the containers at the given places, at most [maxLookUps] at the
// same time. For a container that needs nothing from its image, the result is zero. After a command
// without room, or a needed look-up that failed late, the function starts no further look-up. The
// error is [load.ErrOverloaded].
func (p *Pod) readImages(ctx context.Context, places []place, images image.Images) ([]lookUp, error) {
	reader := images.For(p.pullRights())
	answers := make([]lookUp, len(places))
	var all tally
	room := make(chan struct{}, maxLookUps)
	var wait sync.WaitGroup
	for i, at := range places {
		c := p.container(at)
		if !needsImage(c) {
			continue
		}
		read := func() { answers[i] = readImage(ctx, reader, c, &all) }
		if isKnown(images, c.Image) {
			read()
			continue
		}
		room <- struct{}{}
		if err := all.failed(); err != nil {
			answers[i].err = err
			<-room
			continue
		}
		wait.Go(func() {
			defer func() { <-room }()
			read()
		})
	}
	wait.Wait()
	if err := all.failed(); errors.Is(err, load.ErrOverloaded) {
		return nil, err
	}
	return answers, nil
}

// readImage reads the image of one container. The result has no command that the container does not
// need.
func readImage(ctx context.Context, reader image.Reader, c *corev1.Container, all *tally) lookUp {
	began := time.Now()
	command, err := reader.Command(ctx, c.Image)
	switch answer := (lookUp{command, err}); {
	case err != nil:
		if len(c.Command) == 0 && time.Since(began) > slowFailure {
			all.hang()
		}
		return answer
	case len(c.Command) > 0:
		return lookUp{command: image.Command{StopSignal: answer.signal()}}
	}
	if err := all.add(ctx, command); err != nil {
		return lookUp{err: err}
	}
	return lookUp{command: command}
}

// lengthOf returns the most bytes that an image's command may have in the patch.
func lengthOf(command image.Command) int {
	length := 0
	for _, word := range slices.Concat(command.Entrypoint, command.Cmd) {
		length += wordCost + len(word)
		for i := range len(word) {
			switch c := word[i]; {
			case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&', c == '$':
				length += escapeCost
			}
		}
	}
	for _, its := range command.Platforms {
		length += lengthOf(its)
	}
	return length
}

// pullRights returns the rights with which the pod's images are read.
func (p *Pod) pullRights() image.PullRights {
	rights := image.PullRights{Namespace: p.Namespace, ServiceAccount: p.Spec.ServiceAccountName}
	for _, s := range p.Spec.ImagePullSecrets {
		rights.Secrets = append(rights.Secrets, s.Name)
	}
	return rights
}

// needsImage reports whether the shim of a container needs anything from the image.
func needsImage(c *corev1.Container) bool { return len(c.Command) == 0 || needsSignal(c) }

// needsSignal reports whether the image of a container with an explicit command must be
// read for its stop signal. The shim runs the preStop hook at that signal.
func needsSignal(c *corev1.Container) bool {
	if len(c.Command) == 0 || c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.StopSignal != nil {
		return false
	}
	_, before := unshim(slices.Concat(c.Command, c.Args))
	return before.StopSignal == "" && before.Platforms == nil
}

// isKnown reports whether the command of an image is in memory, so that the webhook sends no
// request.
func isKnown(images image.Images, named string) bool {
	remembering, ok := images.(interface {
		Known(image string) (image.Command, bool)
	})
	if ok {
		_, ok = remembering.Known(named)
	}
	return ok
}

// signal returns the image's stop signal if all architectures have the same signal, and an empty
// text otherwise. After a failed look-up the result is empty, too, and the failure causes no
// refusal. So the webhook admits a pod with an explicit command even if nobody can read its image.
func (l lookUp) signal() string {
	if l.err != nil {
		return ""
	}
	signals := []string{}
	for _, its := range l.command.Platforms {
		signals = append(signals, its.StopSignal)
	}
	switch slices.Sort(signals); {
	case len(signals) == 0:
		return l.command.StopSignal
	case signals[0] == signals[len(signals)-1]:
		return signals[0]
	}
	return ""
}
