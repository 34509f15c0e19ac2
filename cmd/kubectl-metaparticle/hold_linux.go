// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// run holds the lock while the command runs. The claim decides as in an agent, and the guard is the
// shim.
func (h holding) run(ctx context.Context, c cluster) (int, error) {
	budget, err := api.NewBudget(h.leaseDuration)
	if err != nil {
		return exitError, fmt.Errorf("--lease-duration: %w", err)
	}
	if _, err := exec.LookPath(h.command[0]); err != nil { // not only after the wait
		return exitError, err
	}
	user, err := h.identify(ctx, c)
	if err != nil {
		return exitError, err
	}
	boot, err := linux.BootID()
	if err != nil {
		return exitError, err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return exitError, fmt.Errorf("become the parent of orphans: %w", err)
	}
	d := &driver{
		holding: h, now: linux.Now, start: startGuard, orphans: killOrphans,
		events: make(chan func(time.Duration), 16), signals: make(chan os.Signal, 8),
		self: lease.Self{Identity: api.PersonIdentity(fmt.Sprintf("%016x", rand.Uint64()), user), BootID: boot, Budget: budget},
	}
	signal.Notify(d.signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	ctx = context.WithoutCancel(ctx) // a signal is for the command
	d.leaps = linux.NewLeaps().Watch(ctx)
	return d.run(ctx, leases{c, h.namespace})
}

// unswept are the namespaces in which the policy metaparticle-enroll forbids the sweep of unused Leases.
var unswept = []string{"kube-system", "kube-node-lease", "kube-public", "metaparticle-system"}

// identify returns the person's name, as the API server knows it, if the person may read the lock's Lease.
func (h holding) identify(ctx context.Context, c cluster) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	review := new(authenticationv1.SelfSubjectReview)
	if err := c.Create(ctx, review); err != nil {
		return "", fmt.Errorf("ask the API server for your name: %w", err)
	}
	err := c.Get(ctx, types.NamespacedName{Namespace: h.namespace, Name: h.slot}, newLease())
	switch {
	case apierrors.IsNotFound(err) && slices.Contains(unswept, h.namespace):
		return "", refusal(fmt.Sprintf("enroll keeps no locks in the namespace %s: hold the lock in another one (-n)", h.namespace))
	case apierrors.IsForbidden(err):
		return "", fmt.Errorf("%w (%s)", err, rolePage)
	}
	return review.Status.UserInfo.Username, client.IgnoreNotFound(err)
}

// process is a guard with its command. The guard ends after the last process of the command.
type process interface {
	send(message string, numbers ...int64)
	// resume continues a guard that somebody has stopped, so that it enforces its grant.
	resume()
	// ended delivers the exit code.
	ended() <-chan int
}

// driver is the loop that owns the claim.
type driver struct {
	holding
	self      lease.Self
	claim     *elector.Elector
	now       func() time.Duration
	start     func(h holding, token string, drainAt, killAt int64) (process, error)
	orphans   func()
	events    chan func(time.Duration)
	signals   chan os.Signal
	waitUntil time.Duration
	// leaps delivers a value after each leap of the wall clock, because the machine may have been paused.
	leaps <-chan struct{}

	child process
	// hold is the number of the hold under which the command runs or ran, and serving the time of its
	// start. dead reports that all its processes are dead.
	hold    string
	serving time.Time
	dead    bool
	granted int64
	// over reports that no hold begins any more. lost reports that the lock was lost under the command.
	// abandoned reports that the user does not wait for the release: the Lease expires.
	over, lost, abandoned bool
	code                  int
	err                   error
	denied                error
	// told is the last message about what hold waits for.
	told string
	// waits reports that the command has not started, so that a Lease that does not exist is to be made.
	waits atomic.Bool
}

// making makes the lock's Lease when a look finds none: no pod claims the lock, or the Lease is gone.
type making struct {
	leases
	d *driver
}

// GetLease implements elector.Leases.
func (m making) GetLease(ctx context.Context, name string) (*kube.Lease, error) {
	l, err := m.leases.GetLease(ctx, name)
	if !errors.Is(err, kube.ErrNotFound) || !m.d.waits.Load() {
		return l, err
	}
	b := m.d.self.Budget
	if least := b.Duration + 2*b.RequestTimeout; 0 < m.d.wait && m.d.wait < least {
		err = refusal(fmt.Sprintf("%s has no Lease yet, and a new one counts as held for %s: --wait must be at least %s, or --lease-duration shorter", name, b.Duration, least))
		m.d.post(ctx, func(time.Duration) { m.d.denied = err })
		return nil, err
	}
	l, err = m.createLease(ctx, name, b.Duration)
	if errors.Is(err, errNotMade) {
		m.d.post(ctx, func(time.Duration) { m.d.denied = err })
	}
	return l, err
}

// post passes a function to the loop, unless the loop has ended.
func (d *driver) post(ctx context.Context, f func(time.Duration)) {
	select {
	case d.events <- f:
	case <-ctx.Done():
	}
}

func (d *driver) run(ctx context.Context, requests leases) (int, error) {
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer group.Wait()
	defer cancel()
	d.waits.Store(true)
	d.claim = elector.New(elector.Config{
		Claim:  elector.Claim{Need: api.Need{Slots: []string{d.slot}}, First: true, OwnProofs: true, Random: rand.NewPCG(rand.Uint64(), rand.Uint64()), Self: d.self},
		Leases: making{requests, d}, Group: &group, Prompt: true, Log: slog.New(slog.DiscardHandler), Post: d.post,
		Answered: func(a elector.Action, err, _ error) {
			if err != nil && a.Kind == elector.Acquire && forbids(err) {
				d.denied = err
			}
		},
	}, d.now())
	if d.wait > 0 {
		d.waitUntil = d.now() + d.wait
	}
	for {
		now := d.now()
		state, wake := d.claim.Step(ctx, now, d.facts(), d.outcome)
		if state.Stage == elector.Done || d.abandoned {
			return d.code, d.err
		}
		if again := d.act(now, state); again {
			continue
		}
		d.tell()
		if d.waitUntil > 0 && d.hold == "" {
			wake = min(wake, d.waitUntil)
		}
		var ended <-chan int
		if d.child != nil && !d.dead {
			ended = d.child.ended()
		}
		timer := time.NewTimer(pace.Sleep(now, wake))
		select {
		case f := <-d.events:
			f(d.now())
		case <-timer.C:
		case s := <-d.signals:
			d.signalled(s)
		case <-d.leaps:
			d.claim.Leapt(d.now())
		case d.code = <-ended:
			d.orphans()
			d.dead = true
		}
		timer.Stop()
	}
}

// outcome reports that a hold is proven dead if its command never started, or is dead with all its
// processes.
func (d *driver) outcome(hold string) elector.Outcome {
	return elector.Outcome{Proven: hold != d.hold || d.dead}
}

// facts are what the claim must know.
func (d *driver) facts() elector.Facts {
	runs := d.hold != "" && !d.dead
	return elector.Facts{
		Wall: time.Now(), Compete: !d.over && d.hold == "", Alive: runs, Renew: runs, Guard: runs,
		Profile: lease.Profile{Serving: d.serving},
	}
}

// act does what the state of the claim demands, and reports whether the claim must decide again.
func (d *driver) act(now time.Duration, s elector.State) (again bool) {
	switch {
	case d.dead && !d.over:
		d.over = true
		if d.lost {
			d.code = exitNot
		}
		if s.Stage == elector.Held {
			d.claim.LetGo(now, elector.Parting{})
		}
		d.claim.Stop(now)
		return true
	case d.hold == "" && !d.over && d.denied != nil:
		return d.giveUp(now, s, exitError, d.denied)
	case d.hold == "" && !d.over && s.Stage == elector.Held:
		return d.begin(s)
	case d.hold == "" && !d.over && d.waitUntil > 0 && now >= d.waitUntil:
		say(d.std.err, "%s was not free within %s%s", d.slot, d.wait, d.isNew())
		return d.giveUp(now, s, exitNot, nil)
	case d.child != nil && !d.dead:
		d.renewed(s)
	}
	return false
}

// isNew tells of a lock that a short wait never gets, because its Lease is new to each hold that begins.
func (d *driver) isNew() string {
	r := d.claim.Views()[0].Record
	if r.Holder != api.UnknownHolder && r.Holder != api.UnknownPerson {
		return ""
	}
	return fmt.Sprintf(": its Lease is new, and counts as held for %s from the first look, so --wait must be longer", r.Duration)
}

// tell says what hold waits for, once for each holder.
func (d *driver) tell() {
	seen := d.claim.Views()[0]
	if d.hold != "" || d.over || !seen.Known {
		return
	}
	why := ""
	switch {
	case seen.Record.Paused != "":
		why = fmt.Sprintf("waiting: %s is paused: kubectl metaparticle resume -n %s %s", d.slot, d.namespace, d.slot)
	case seen.Record.Holder == api.UnknownHolder, seen.Record.Holder == api.UnknownPerson:
		why = fmt.Sprintf("waiting: the Lease of %s is new, and an earlier one may have a holder: %s", d.slot, seen.Record.Duration)
	case seen.Record.Holder != "" && !seen.Mine:
		why = fmt.Sprintf("waiting: %s holds %s", api.PodOf(seen.Record.Holder), d.slot)
	}
	if why != "" && why != d.told {
		d.told = why
		say(d.std.err, "%s", why)
	}
}

// begin starts the command under a hold that has just begun.
func (d *driver) begin(s elector.State) bool {
	d.hold, d.serving, d.granted = s.Hold, time.Now(), int64(s.Deadline)
	d.waits.Store(false)
	var err error
	if d.child, err = d.start(d.holding, s.Tokens[0].Token, int64(s.DrainAt), int64(s.Deadline-d.self.Budget.Kill)); err != nil {
		d.dead = true
		d.err, d.code = fmt.Errorf("start the command: %w", err), exitError
	}
	return true
}

// renewed passes the present deadline on. A lost or paused lock ends the command.
func (d *driver) renewed(s elector.State) {
	d.child.resume()
	switch {
	case s.Stage != elector.Held || s.Hold != d.hold || s.Lost != nil:
		if !d.lost {
			d.lost = true
			say(d.std.err, "%s is lost: the command is killed", d.slot)
			d.child.send(killMessage)
		}
	case s.Paused.Pause == api.PauseStop || s.Yield.Hold == d.hold:
		if d.granted != 0 {
			d.granted = 0
			say(d.std.err, "%s is to be released: the command is stopped", d.slot)
			d.child.send(drainMessage)
		}
	case d.granted != 0 && d.granted != int64(s.Deadline):
		d.granted = int64(s.Deadline)
		d.child.send(grantMessage, int64(s.DrainAt), int64(s.Deadline-d.self.Budget.Kill))
	}
}

// giveUp ends the claim before the command has started.
func (d *driver) giveUp(now time.Duration, s elector.State, code int, err error) bool {
	d.over, d.code, d.err = true, code, err
	d.waits.Store(false)
	if s.Stage == elector.Held {
		d.claim.LetGo(now, elector.Parting{})
	}
	d.claim.Stop(now)
	return true
}

// signalled passes a signal on, or ends the wait for the lock, or the wait for the API server to store
// the release.
func (d *driver) signalled(s os.Signal) {
	number := s.(syscall.Signal)
	switch {
	case d.child != nil && !d.dead:
		d.child.send(signalMessage, int64(number))
	case d.over:
		say(d.std.err, "%s is not released: if its Lease names you, it expires within %s", d.slot, d.self.Budget.Duration)
		d.abandoned = true
	default:
		d.giveUp(d.now(), d.claim.State(), 128+int(number), nil)
	}
}

// guarded is the guard's process.
type guarded struct {
	guard  *os.Process
	grants io.WriteCloser
	code   chan int
}

func (g guarded) ended() <-chan int { return g.code }

func (g guarded) resume() { _ = g.guard.Signal(unix.SIGCONT) }

// send never blocks for long: a pipe takes more than a hundred messages, and a guard that reads none
// lets its last grant end.
func (g guarded) send(message string, numbers ...int64) {
	for _, n := range numbers {
		message += fmt.Sprintf(" %d", n)
	}
	_, _ = io.WriteString(g.grants, message+"\n")
}

// startGuard starts the guard in a process group of its own, so that no key of the terminal stops it.
func startGuard(h holding, token string, drainAt, killAt int64) (process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	c := exec.CommandContext(context.Background(), self, append([]string{guardName}, h.command...)...)
	c.Stdin, c.Stdout, c.Stderr, c.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{read}
	c.Env = append(os.Environ(), api.FencingTokenEnv+"="+token)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	foreground, noTerminal := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	if err := c.Start(); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	g := guarded{guard: c.Process, grants: write, code: make(chan int, 1)}
	g.send(grantMessage, drainAt, killAt)
	go func() {
		_ = c.Wait()
		write.Close()
		if noTerminal == nil && foreground == unix.Getpgrp() {
			signal.Ignore(unix.SIGTTOU) // hold takes the terminal back from the background
			_ = unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, foreground)
		}
		code := c.ProcessState.ExitCode()
		if code < 0 { // the guard itself was killed
			code = 128 + int(c.ProcessState.Sys().(syscall.WaitStatus).Signal())
		}
		g.code <- code
	}()
	return g, nil
}

// killOrphans kills what a killed guard has left behind, and returns once all of it is dead.
func killOrphans() {
	for {
		for {
			if pid, _, none := linux.Reap(); none {
				return
			} else if pid == 0 {
				break
			}
		}
		killDescendants()
		<-time.After(linux.KillAgain)
	}
}
