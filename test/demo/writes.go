// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/metaparticle-io/metaparticle/test/witness"
)

// leaseWrites reads the writes of the slot's Lease from the API server's audit log. The
// log has the instant at which each write reached the API server.
type leaseWrites struct {
	log *os.File
}

// followLeaseWrites opens the audit log, and skips the earlier writes, because they do not matter.
func followLeaseWrites(file string) (*leaseWrites, error) {
	log, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	if _, err := log.Seek(0, io.SeekEnd); err != nil {
		log.Close()
		return nil, err
	}
	return &leaseWrites{log: log}, nil
}

func (w *leaseWrites) close() { w.log.Close() }

// auditEvent is the part of an audit event (audit.k8s.io/v1) that is read here.
type auditEvent struct {
	Verb      string
	ObjectRef struct{ Resource, Namespace, Name, ResourceVersion string }
	Response  struct{ Code int } `json:"responseStatus"`
	Received  time.Time          `json:"requestReceivedTimestamp"`
}

// replaces reports whether the event records a successful write that replaced the given version of
// the slot's Lease.
func (e auditEvent) replaces(version string) bool {
	return e.Verb == "update" && e.Response.Code == http.StatusOK && e.ObjectRef.Resource == "leases" &&
		e.ObjectRef.Namespace == namespace && e.ObjectRef.Name == slot && e.ObjectRef.ResourceVersion == version
}

// received returns the instant, on the kernel's clock, at which the API server got the write that
// replaced the given version of the Lease.
func (w *leaseWrites) received(version string) (time.Duration, error) {
	start, err := w.log.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	defer func() { _, _ = w.log.Seek(start, io.SeekStart) }()
	lines := bufio.NewScanner(w.log)
	lines.Buffer(nil, 1<<20) // an event may carry long annotations
	for lines.Scan() {
		var event auditEvent
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			continue // the last line may be half written
		}
		if event.replaces(version) {
			return witness.Now() - time.Since(event.Received), nil
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("the API server's audit log has no write of Lease %s after version %s", slot, version)
}
