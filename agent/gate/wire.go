// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"encoding/json"
	"fmt"
	"time"
)

// BeatEvery is the time between two beats. At each beat a shim repeats its state. The time is
// half of the least margin of a budget (2 s). So if a beat is lost, the next one still arrives
// within the margin.
const BeatEvery = time.Second

// MaxMessage bounds the length of a message: a hundred slots of the longest name (253 bytes) with
// their fencing tokens, and half as much again.
const MaxMessage = 48 << 10

// MostOutput bounds the part of a command's output that is kept. The kubelet has the same bound
// for the output of a probe.
const MostOutput = 10 << 10

// longest bounds each duration in a message, so that no sum of durations overflows. No pod has
// a grace of a year.
const longest = 365 * 24 * time.Hour

// Message is a message of a shim: its Report, or the answer to an Aside.
type Message struct {
	*Report
	Ran *Outcome `json:"ran,omitempty"`
}

// Outcome answers an Aside. Error is empty if there is an exit code.
type Outcome struct {
	ID       string `json:"id"`
	Code     int    `json:"code"`
	Output   []byte `json:"output,omitempty"`
	TimedOut bool   `json:"timedOut,omitempty"`
	Error    string `json:"error,omitempty"`
}

// Order is an instruction from the server to a shim. Each order has one of these fields set.
type Order struct {
	Grant *Grant `json:"grant,omitempty"`
	Drain *Drain `json:"drain,omitempty"`
	Aside *Aside `json:"run,omitempty"`
	// Dismiss has an effect only on a waiting shim.
	Dismiss *Dismiss `json:"dismiss,omitempty"`
	// Notice is a line for the log of the container of a waiting shim.
	Notice string `json:"notice,omitempty"`
}

// Dismiss orders a waiting shim to end its container without a child, because the shim need not
// wait any longer. A shim with a child ignores the order.
type Dismiss struct {
	// Code is the exit code. The shim's own arguments decide which codes are permitted.
	Code int `json:"code"`
	// Reason is for the container's log.
	Reason string `json:"reason"`
}

// Drain orders the shim to stop the child of the hold, and to start no further child under that
// hold. If End is set, the container then ends with the child's exit code, instead of waiting
// for another grant.
type Drain struct {
	Hold   string        `json:"hold"`
	Reason string        `json:"reason"`
	Grace  time.Duration `json:"grace"`
	End    bool          `json:"end,omitempty"`
}

// Aside orders the shim to run a command once, beside the child. The shim answers with an [Outcome]
// that has the same ID.
type Aside struct {
	ID      string        `json:"id"`
	Command []string      `json:"command"`
	Timeout time.Duration `json:"timeout"`
}

// Encode returns the bytes of a message or an order. More than [MaxMessage] bytes are an error.
func Encode(message any) ([]byte, error) {
	b, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes", ErrMessage, len(b))
	}
	return b, nil
}

// DecodeMessage checks a message of a shim. If the message is the answer to an Aside, the Outcome is
// that answer, and the Report has the zero value. For any other message, the Report is the shim's,
// and the Outcome is nil.
func DecodeMessage(b []byte) (Report, *Outcome, error) {
	m := Message{Report: new(Report)}
	if err := json.Unmarshal(b, &m); err != nil {
		return Report{}, nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if m.Ran != nil {
		if m.Ran.ID == "" || len(m.Ran.Output) > MostOutput {
			return Report{}, nil, fmt.Errorf("%w: answer %q of %d bytes", ErrMessage, m.Ran.ID, len(m.Ran.Output))
		}
		return Report{}, m.Ran, nil
	}
	if err := m.Report.check(); err != nil {
		return Report{}, nil, err
	}
	return *m.Report, nil, nil
}

// mostID is the largest length of the id of a shim, a hold or an aside, in bytes. The agent keeps these
// ids, and any program of a gated container can invent them.
const mostID = 64

// mostSlots is the largest number of slots in a message. A pod holds fewer slots at once. The agent
// keeps the slots of each shim, and a slot of three bytes in a message takes 23 bytes of memory.
const mostSlots = 256

func (s *Report) check() error {
	switch s.Phase {
	case Waiting, Running, Draining, Ended:
	default:
		return fmt.Errorf("%w: phase %q", ErrMessage, s.Phase)
	}
	switch {
	case s.Shim == "" || len(s.Shim) > mostID:
		return fmt.Errorf("%w: shim id of %d bytes", ErrMessage, len(s.Shim))
	case !plainName(s.Container):
		return fmt.Errorf("%w: container %q", ErrMessage, s.Container)
	case len(s.Hold) > mostID:
		return fmt.Errorf("%w: hold of %d bytes", ErrMessage, len(s.Hold))
	case s.Leap < 0:
		return fmt.Errorf("%w: leap %d", ErrMessage, s.Leap)
	case s.Hold == "" && (s.Phase == Running || s.Phase == Draining):
		return fmt.Errorf("%w: %s without a hold", ErrMessage, s.Phase)
	}
	return nil
}

// DecodeOrder checks each part of an order, and returns the order.
func DecodeOrder(b []byte) (Order, error) {
	var o Order
	if err := json.Unmarshal(b, &o); err != nil {
		return Order{}, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if o.Grant != nil {
		if err := o.Grant.check(); err != nil {
			return Order{}, err
		}
	}
	if o.Drain != nil && (o.Drain.Hold == "" || o.Drain.Grace < 0 || o.Drain.Grace > longest) {
		return Order{}, fmt.Errorf("%w: drain of %q in %v", ErrMessage, o.Drain.Hold, o.Drain.Grace)
	}
	if o.Dismiss != nil && (o.Dismiss.Code < 0 || o.Dismiss.Code > 255) {
		return Order{}, fmt.Errorf("%w: dismiss with code %d", ErrMessage, o.Dismiss.Code)
	}
	if o.Aside != nil {
		if err := o.Aside.check(); err != nil {
			return Order{}, err
		}
	}
	return o, nil
}

// check refuses an Aside without an id, a command or a timeout. It also refuses an id of more
// than 64 bytes, and a timeout above [longest].
func (a *Aside) check() error {
	if a.ID == "" || len(a.ID) > mostID || len(a.Command) == 0 || a.Timeout <= 0 || a.Timeout > longest {
		return fmt.Errorf("%w: run %d words in %v", ErrMessage, len(a.Command), a.Timeout)
	}
	return nil
}

// plainName reports whether a container's name is safe as the name of a file.
func plainName(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
