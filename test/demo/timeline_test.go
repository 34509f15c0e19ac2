// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/image/public"
	"github.com/metaparticle-io/metaparticle/test/witness"
)

// The timeline needs the audit log, because the watch may report a release late. By then the kernel
// may have reported the start of the next holder's process.
func TestDemoTimelineTakesTimesFromTheAuditLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.log")
	log, err := os.Create(file)
	require.NoError(t, err)
	defer log.Close()
	write := func(version, name string, code int, ago time.Duration) {
		fmt.Fprintf(log, `{"verb":"update","objectRef":{"resource":"leases","namespace":"demo","name":%q,"resourceVersion":%q},`+
			`"responseStatus":{"code":%d},"requestReceivedTimestamp":%q}`+"\n",
			name, version, code, time.Now().Add(-ago).UTC().Format(time.RFC3339Nano))
	}
	write("7", slot, 200, time.Hour)
	writes, err := followLeaseWrites(file)
	require.NoError(t, err)
	defer writes.close()
	write("7", slot, 409, 70*time.Millisecond)
	write("7", "singleton.deployment.other", 200, 65*time.Millisecond)
	write("7", slot, 200, 60*time.Millisecond)
	write("8", slot, 200, 50*time.Millisecond)

	now := witness.Now()
	s := &scene{writes: writes}
	s.note(now-80*time.Millisecond, "dead")
	s.note(now-40*time.Millisecond, "started")
	s.version = "7"
	s.noteWrite("released")
	s.version = "8"
	s.noteWrite("acquired")
	require.NoError(t, s.stamp())

	var order []string
	for _, l := range s.ordered() {
		order = append(order, l.text)
	}
	assert.Equal(t, []string{"dead", "released", "acquired", "started"}, order)
	s.struck = now - 200*time.Millisecond
	assert.Regexp(t, `^120 ms dead, 1\d\d ms released, 1\d\d ms acquired, 160 ms started$`, s.timeline())

	s.version = "9"
	s.noteWrite("never stored")
	assert.ErrorContains(t, s.stamp(), "no write of Lease "+slot+" after version 9")
}

func TestDemoEndsWithAVerdictOnEachEvent(t *testing.T) {
	at := func(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
	s := &scene{struck: at(1000), dead: at(1250.5), started: at(1300.25), silent: at(90)}
	assert.Equal(t, "   WHAT HAPPENED   OLD PROCESS DEAD   NEXT STARTED   CLIENTS WAITED   OVERLAP\n"+
		"     pod deleted           250.5 ms       300.2 ms            90 ms      0 ms\n"+
		"          beside             2.0 ms         1.0 ms             0 ms      1 ms\n"+
		"  Clients connect every 10 ms, and wait. Overlap: how long both processes lived, by the kernel's record.\n",
		verdict([]outcome{s.outcome("pod deleted"), {title: "beside", dead: at(2), started: at(1)}}))
}

// A tutorial on the demo's cluster finds its images there.
func TestDemoPushesEachImageOfTheTutorials(t *testing.T) {
	pages, err := filepath.Glob("../../docs/tutorials/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, pages)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, image := range regexp.MustCompile(`(?m)^\s+image: (\S+)$`).FindAllStringSubmatch(string(text), -1) {
			assert.Contains(t, public.Tutorials, image[1], page)
		}
	}
}
