// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/software"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

// held is a running "kubectl metaparticle hold", whose command is the test application.
type held struct {
	*exec.Cmd
	out  bytes.Buffer
	done chan struct{}
}

// hold starts a hold of a lock. The command begins a process that leaves it and ignores SIGTERM, and it
// writes the record in which the pods of the lock write, too, under the given name.
func (p plugin) hold(name, program, lock string) *held {
	p.Helper()
	h := &held{done: make(chan struct{})}
	h.Cmd = exec.CommandContext(p.Context(), p.binary, "hold", "--kubeconfig", p.kubeconfig, "-n", p.Namespace, "lock/"+lock,
		"--lease-duration", lease.Fault.String(), "--", program, "-record", p.Dir, "-alone", lock, "-grandchild", "-stop-code=7")
	h.Env = append(os.Environ(), "POD_NAME="+name, "POD_UID="+name, "METAPARTICLE_SLOT="+api.LockLease(lock))
	h.Stdout, h.Stderr, h.WaitDelay = &h.out, &h.out, space.Soon
	require.NoError(p, h.Start())
	go func() {
		defer close(h.done)
		_ = h.Wait()
	}()
	p.Cleanup(func() { <-h.done; p.Logf("hold: %s", &h.out) })
	return h
}

// A person's command and the applications of pods exclude each other, even if "hold" is killed.
func TestPersonsCommandWaitsForPodsAndOtherPeople(t *testing.T) {
	cluster.NeedLab(t, "the command and the pods need one kernel")
	t.Parallel()
	const lock = "books"
	s, a := space.New(t), app.Locked("clerk", lock)
	slot := api.LockLease(lock)
	a.Annotations[api.LeaseDurationAnnotation] = lease.Lasting.String()
	families := software.NewFamilies(s, a.Name)
	app.Deploy(s, a)
	s.Await(space.StartTimeout, "the pod runs the application", func() bool { return len(families.All()) == 1 })
	admin := newPlugin(s)
	families.Include(admin.binary)
	editor := admin.as("edit")
	program := filepath.Join(t.TempDir(), "app")
	require.NoError(t, oci.Compile(t.Context(), oci.TestApp, program))

	said := editor.run(1, "hold", "lock/"+lock, "--wait", "3s", "--", program, "-facts")
	assert.Contains(t, said, "waiting: "+s.Holder(slot).Name+" holds "+slot)
	assert.Contains(t, said, slot+" was not free within 3s")
	runs := func(name string) func() bool { return admin.runs(lock, name) }
	first := editor.hold("first", program, lock)
	app.Scale(s, a, 0)
	s.Await(space.StartTimeout, "the person's command runs", runs("first"))
	assert.Contains(t, admin.run(0, "status", "lock/"+lock), "person system:serviceaccount:"+s.Namespace+":edit")

	second := admin.hold("second", program, lock)
	s.Never(lease.Handover, "another has the lock that a person holds", runs("second"))
	require.NoError(t, first.Process.Kill())
	s.Await(lease.Fault+space.StartTimeout, "the next person's command runs", runs("second"))
	app.Scale(s, a, 1)
	app.AwaitGated(s, a)
	s.Never(lease.Handover, "a pod has the lock that a person holds", func() bool { return s.Holder(slot) != nil })
	require.NoError(t, second.Process.Signal(unix.SIGTERM))
	<-second.done
	assert.Equal(t, 7, second.ProcessState.ExitCode(), "the command's own code")
	s.Await(space.StartTimeout, "the pod runs the application again", func() bool { return len(families.All()) == 4 })

	// The kernel's record has every process of the commands. At its end, the space also finds each
	// token that has not grown.
	families.NeverMoreThan(1)
	ran := families.All()
	assert.Equal(t, []string{admin.binary, admin.binary}, []string{ran[1].Pod, ran[2].Pod})
	assert.Greater(t, ran[2].Start-ran[1].End, lease.Fault/2, "the lock of a killed hold expires")
}

// runs returns a condition: the record's process is the command of that hold.
func (p plugin) runs(record, hold string) func() bool {
	return func() bool { now := p.Running(record); return now != nil && now.Pod == hold }
}

// Jobs of CI systems hold a lock that no pod claims, in a namespace that has not opted in. One of the two accounts has
// only the Role of docs/how-to/lock.md.
func TestJobsHoldALockThatNoPodClaims(t *testing.T) {
	cluster.NeedLab(t, "the commands need one kernel")
	t.Parallel()
	const lock = "terraform-prod"
	s := space.New(t, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	families := software.NewFamilies(s, "no pod")
	admin := newPlugin(s)
	families.Include(admin.binary)
	program := filepath.Join(t.TempDir(), "app")
	require.NoError(t, oci.Compile(t.Context(), oci.TestApp, program))
	page, err := os.ReadFile("../../docs/how-to/lock.md")
	require.NoError(t, err)
	_, role, _ := strings.Cut(string(page), "kind: Role\n")
	role, _, _ = strings.Cut(role, "```")
	role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n" + strings.ReplaceAll(role, "namespace: ci", "namespace: "+s.Namespace)

	stranger, editor := admin.by("terraform"), admin.as("edit")
	assert.Contains(t, stranger.run(2, "hold", "lock/"+lock, "--", program, "-facts"), `cannot get resource "leases"`)
	kubectl.Must(s, role, "create", "-f", "-")
	runner := stranger
	assert.Contains(t, runner.run(2, "hold", "lock/other", "--", program, "-facts"), `cannot get resource "leases"`, "the Role names one lock")

	begun := time.Now()
	jobs := map[string]*held{"a": runner.hold("a", program, lock), "b": editor.hold("b", program, lock)}
	first, second := "a", "b"
	s.Await(lease.Fault+space.StartTimeout, "one of two jobs that make the lock at once runs its command", func() bool {
		return admin.runs(lock, "a")() || admin.runs(lock, "b")()
	})
	assert.GreaterOrEqual(t, time.Since(begun), lease.Fault, "an earlier Lease may have had a holder")
	if admin.runs(lock, second)() {
		first, second = second, first
	}
	require.NoError(t, jobs[first].Process.Kill())
	s.Await(lease.Fault+space.StartTimeout, "the other job's command runs after the first hold was killed", admin.runs(lock, second))

	third := runner.hold("c", program, lock)
	require.NoError(t, jobs[second].Process.Signal(unix.SIGSTOP)) // its guard lives
	s.Await(lease.Fault+space.StartTimeout, "the third job's command runs after the second hold was stopped", admin.runs(lock, "c"))
	require.NoError(t, jobs[second].Process.Signal(unix.SIGCONT))
	<-jobs[second].done
	assert.True(t, admin.runs(lock, "c")(), "a hold that continues takes nothing back")
	require.NoError(t, third.Process.Signal(unix.SIGTERM))
	<-third.done
	assert.Equal(t, 7, third.ProcessState.ExitCode(), "the command's own code")
	assert.Empty(t, s.Identity(api.LockLease(lock)), "the lock stays, and is free for the next job")

	families.NeverMoreThan(1)
	ran := families.All()
	require.Len(t, ran, 3)
	assert.Greater(t, ran[1].Start-ran[0].End, lease.Fault/2, "the lock of a killed hold expires")
}
