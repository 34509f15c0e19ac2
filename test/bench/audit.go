// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// audited is a line of the API server's audit log about an answered request. Each watch has two
// lines: one line for the beginning of the watch, and one line for the end.
type audited struct {
	Verb, Stage                              string
	RequestReceivedTimestamp, StageTimestamp time.Time
	User                                     struct{ Extra map[string][]string }
	ObjectRef                                struct{ Name string }
	ResponseStatus                           struct{ Code int }
}

// pod returns the name and the UID of the pod that sent the request. Both are empty if the sender
// is no pod.
func (a audited) pod() (name, uid string) {
	one := func(key string) string {
		for _, value := range a.User.Extra["authentication.kubernetes.io/pod-"+key] {
			return value
		}
		return ""
	}
	return one("name"), one("uid")
}

// auditEnd returns the present length of the audit log.
func (b *bench) auditEnd() (int64, error) {
	log, err := os.Stat(b.cluster.AuditLog())
	if err != nil {
		return 0, err
	}
	return log.Size(), nil
}

// audit calls each for every request that was answered since the audit log had the given length in
// bytes. Of the two lines about a watch, it skips the line for the end.
func (b *bench) audit(from int64, each func(audited)) error {
	log, err := os.Open(b.cluster.AuditLog())
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err := log.Seek(from, io.SeekStart); err != nil {
		return err
	}
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event audited
		if json.Unmarshal(lines.Bytes(), &event) != nil {
			continue // the last line may be half written
		}
		if began := event.Stage == "ResponseStarted"; began == (event.Verb == "watch") {
			each(event)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	return nil
}
