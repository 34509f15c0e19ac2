// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package witness

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// These ids are larger than any id of the kernel, so /proc has no such process.
const shim, main, worker, orphan, stranger = 1 << 30, 1<<30 + 1, 1<<30 + 2, 1<<30 + 3, 1<<30 + 4

// heard returns the families after the given notices. In heard, each process executes a program
// immediately after the shim has forked the process.
func heard(notices ...notice) *Families {
	f := &Families{gates: map[int]*gate{shim: {pod: "a"}}, threads: map[int]map[int]struct{}{},
		of: map[int]*Family{}, living: map[*Family]int{}}
	for i, n := range notices {
		n.at = time.Duration(i + 1)
		if n.thread == 0 {
			n.thread = n.pid
		}
		f.take(n)
		if n.parent == shim && n.thread == n.pid {
			f.take(notice{what: whatExec, at: n.at, thread: n.pid, pid: n.pid})
		}
	}
	return f
}

func TestWitnessSeesApplicationUntilItsLastThreadEnds(t *testing.T) {
	fork := func(parent, pid int) notice { return notice{what: whatFork, parent: parent, pid: pid} }
	exit := func(pid int) notice { return notice{what: whatExit, pid: pid} }
	thread := func(n notice, tid int) notice { n.thread = tid; return n }
	for name, test := range map[string]struct {
		notices []notice
		want    []Family
	}{
		"one process":   {[]notice{fork(shim, main), exit(main)}, []Family{{Pod: "a", Start: 1, End: 2}}},
		"it lives":      {[]notice{fork(shim, main)}, []Family{{Pod: "a", Start: 1}}},
		"another child": {[]notice{fork(stranger, worker), exit(worker)}, nil},
		"an orphan": {[]notice{fork(shim, main), fork(main, worker), fork(worker, orphan), exit(main), exit(worker), exit(orphan)},
			[]Family{{Pod: "a", Start: 1, End: 6}}},
		"a thread that outlives the first": {
			[]notice{fork(shim, main), thread(fork(shim, main), worker), exit(main), thread(exit(main), worker)},
			[]Family{{Pod: "a", Start: 1, End: 4}}},
		"an exec by another thread, which takes the number over": {
			[]notice{fork(shim, main), thread(fork(shim, main), worker), exit(main), {what: whatExec, pid: main}, exit(main)},
			[]Family{{Pod: "a", Start: 1, End: 5}}},
		"a hook beside the child": {[]notice{fork(shim, main), fork(shim, worker), exit(main), exit(worker)},
			[]Family{{Pod: "a", Start: 1, End: 4}}},
		"the next hold of the same gate": {[]notice{fork(shim, main), exit(main), fork(shim, worker), exit(worker)},
			[]Family{{Pod: "a", Start: 1, End: 2}, {Pod: "a", Start: 3, End: 4}}},
		"the gate dies before them": {[]notice{fork(shim, main), exit(shim), fork(main, worker), exit(main), exit(worker)},
			[]Family{{Pod: "a", Start: 1, End: 5}}},
		"a thread of the gate is none": {[]notice{thread(fork(stranger, shim), worker)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := heard(test.notices...).Of("a")
			assert.NoError(t, err)
			for i := range test.want {
				test.want[i].Programs = []string{"gone"}
			}
			assert.Equal(t, test.want, got)
		})
	}
	got, _ := heard(fork(shim, main)).Of("b")
	assert.Empty(t, got)
}

func TestForkWithoutExecIsNotCountedAsApplication(t *testing.T) {
	f := heard()
	f.take(notice{what: whatFork, parent: shim, thread: main, pid: main, at: 1})
	f.take(notice{what: whatExit, thread: main, pid: main, at: 2})
	got, err := f.Of("a")
	assert.NoError(t, err)
	assert.Empty(t, got)
}
