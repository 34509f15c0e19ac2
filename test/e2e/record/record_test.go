// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// finish ends a process, and frees its flock as the kernel does.
func finish(t *testing.T, w *Writer) {
	t.Helper()
	require.NoError(t, w.End(0))
	require.NoError(t, w.Lock.Close())
}

func TestProcessRecordShowsConcurrentProcessesAsAnOverlap(t *testing.T) {
	dir := t.TempDir()
	a, err := Begin(dir, "x", Meta{Pod: "a", Token: "1"})
	require.NoError(t, err)
	vacant, err := Vacant(dir, "x")
	require.NoError(t, err)
	assert.False(t, vacant)
	b, err := Begin(dir, "x", Meta{Pod: "b", Token: "2"})
	require.NoError(t, err)
	finish(t, b)
	finish(t, a)
	vacant, err = Vacant(dir, "x")
	require.NoError(t, err)
	assert.True(t, vacant)

	r, err := Read(dir, "x")
	require.NoError(t, err)
	require.Len(t, r.Overlaps(), 1)
	assert.Equal(t, "a", r.Overlaps()[0].A.Pod)
	assert.Equal(t, "b", r.Overlaps()[0].B.Pod)
	require.Len(t, r.Contended(), 1)
	assert.Equal(t, "b", r.Contended()[0].Pod)
}

func TestProcessRecordShowsNoOverlapOfSuccessiveProcesses(t *testing.T) {
	dir := t.TempDir()
	for _, token := range []string{"9", "10"} {
		w, err := Begin(dir, "x", Meta{Pod: "p" + token, UID: token, Slot: "s", Token: token})
		require.NoError(t, err)
		finish(t, w)
	}
	r, err := Read(dir, "x")
	require.NoError(t, err)
	assert.Empty(t, r.Overlaps())
	assert.Empty(t, r.Contended())
	assert.NoError(t, r.TokensGrow(), "tokens are numbers, not strings")
}

func TestFlockOfProcessRecordLastsUntilDescendantsEnd(t *testing.T) {
	dir := t.TempDir()
	parent, err := Begin(dir, "x", Meta{Pod: "a"})
	require.NoError(t, err)
	child, err := Inherit(dir, "x", Meta{Pod: "a", Parent: parent.ID}, parent.Lock)
	require.NoError(t, err)
	require.NoError(t, parent.End(0))
	next, err := Begin(dir, "x", Meta{Pod: "b"})
	require.NoError(t, err)
	require.NoError(t, next.End(0))
	require.NoError(t, child.End(0))

	r, err := Read(dir, "x")
	require.NoError(t, err)
	require.Len(t, r.Overlaps(), 1, "the parent and its descendant are one, the next is not")
	assert.Equal(t, parent.ID, r.Overlaps()[0].A.Parent)
	assert.Len(t, r.Contended(), 1)
}

func TestRecordCheckFailsIfTokensDoNotGrow(t *testing.T) {
	process := func(uid, slot, token string) Process {
		return Process{ID: uid + token, Meta: Meta{UID: uid, Slot: slot, Token: token}}
	}
	tests := map[string]struct {
		record Record
		grow   bool
	}{
		"the same pod keeps its token":    {Record{process("a", "s", "5"), process("a", "s", "5")}, true},
		"another pod with the same token": {Record{process("a", "s", "5"), process("b", "s", "5")}, false},
		"a smaller one":                   {Record{process("a", "s", "10"), process("b", "s", "9")}, false},
		"no token in a slot":              {Record{process("a", "s", "")}, false},
		"no slot":                         {Record{process("a", "", ""), process("b", "s", "1")}, true},
		"several slots, each grows":       {Record{process("a", "s,t", "5,9"), process("b", "t", "10"), process("c", "s", "6")}, true},
		"several slots, one does not":     {Record{process("a", "s,t", "5,9"), process("b", "t", "7")}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.grow {
				assert.NoError(t, test.record.TokensGrow())
			} else {
				assert.Error(t, test.record.TokensGrow())
			}
		})
	}
}

func TestFrozenProcessIsInactiveInTheProcessRecord(t *testing.T) {
	const s = time.Second
	frozen := Process{ID: "1", Start: 0, Last: 41 * s, Gaps: []Span{{10 * s, 40 * s}}}
	next := Process{ID: "2", Start: 25 * s, Last: 60 * s, Contended: true}
	overlaps := Record{frozen, next}.Overlaps()
	require.Len(t, overlaps, 1)
	assert.Equal(t, 16*s, overlaps[0].Len)
	assert.Equal(t, s, overlaps[0].Active, "what it ran after it woke")
}

func TestUnfinishedLineOfAProcessRecordIsIgnored(t *testing.T) {
	dir := t.TempDir()
	w, err := Begin(dir, "x", Meta{Pod: "a", Token: "1"})
	require.NoError(t, err)
	defer finish(t, w)
	file, err := os.OpenFile(recordFile(dir, "x"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	defer file.Close()
	_, err = file.WriteString(`{"id":"b","eve`)
	require.NoError(t, err)
	r, err := Read(dir, "x")
	require.NoError(t, err)
	require.Len(t, r, 1)
	assert.Equal(t, "a", r[0].Pod)
	_, err = file.WriteString("\n")
	require.NoError(t, err)
	_, err = Read(dir, "x")
	require.Error(t, err, "a line that is written is read")
}
