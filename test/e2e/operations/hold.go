// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
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
	runs := func(name string) func() bool {
		return func() bool { now := s.Running(lock); return now != nil && now.Pod == name }
	}
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
