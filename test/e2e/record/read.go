// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process has what the record shows of one process: its start, its end and its gaps.
type Process struct {
	Meta
	ID    string
	Start time.Duration
	// Last is the last instant at which the process is known to have run.
	Last time.Duration
	// Ended reports that the process recorded its own end. Then Code is its exit code.
	Ended bool
	Code  int
	// Signalled is the instant at which the process got its stop signal; zero means no stop signal.
	Signalled time.Duration
	// Contended reports that another process had the flock when this one began.
	Contended bool
	Gaps      []Span
}

// Span is a stretch of time.
type Span struct{ From, Until time.Duration }

// Len returns the length of the span.
func (s Span) Len() time.Duration { return s.Until - s.From }

func (p Process) String() string {
	return fmt.Sprintf("%s(%s on %s, token %s)", p.ID, p.Pod, p.Node, p.Token)
}

// Active returns the stretches in which the process ran: its life without its gaps.
func (p Process) Active() []Span {
	var active []Span
	from := p.Start
	for _, g := range p.Gaps {
		active = append(active, Span{from, g.From})
		from = g.Until
	}
	return append(active, Span{from, p.Last})
}

// Record has all processes under one name, ordered by their starts.
type Record []Process

// Read reads the record of a name from a directory. A record without a file is empty.
func Read(dir, name string) (Record, error) {
	data, err := os.ReadFile(recordFile(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	processes := map[string]*Process{}
	// The kernel copies a write page by page, so the file may end with an unfinished
	// line.
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	for raw := range bytes.Lines(data) {
		var l line
		if err := json.Unmarshal(raw, &l); err != nil {
			return nil, fmt.Errorf("read record %q: %w", raw, err)
		}
		if l.Event == began {
			processes[l.ID] = &Process{Meta: *l.Meta, ID: l.ID, Start: l.At, Last: l.At, Contended: l.Contended}
			continue
		}
		p, ok := processes[l.ID]
		if !ok {
			return nil, fmt.Errorf("read record: %s has no beginning", l.ID)
		}
		p.add(l)
	}
	var record Record
	for _, p := range processes {
		if stamp, err := os.ReadFile(stampFile(dir, name, p.ID)); err == nil && len(stamp) == 8 {
			p.Last = max(p.Last, time.Duration(binary.NativeEndian.Uint64(stamp)))
		}
		record = append(record, *p)
	}
	slices.SortFunc(record, func(a, b Process) int { return int(a.Start - b.Start) })
	return record, nil
}

// add adds a line of the record to its process.
func (p *Process) add(l line) {
	switch l.Event {
	case signal:
		p.Signalled = l.At
	case gap:
		p.Gaps = append(p.Gaps, Span{l.At, l.Until})
	case endsNow:
		p.Ended, p.Code = true, l.Code
	case began:
		// Read has already made p from this line.
	}
	p.Last = max(p.Last, l.At, l.Until)
}

// Overlap is a pair of processes that lived at the same time. The field Len is the length of that
// time. If only the flock shows the overlap, Len is zero, and A is the last process that started
// before B.
type Overlap struct {
	A, B Process
	Len  time.Duration
	// Active is the part of Len in which neither process was frozen.
	Active time.Duration
}

func (o Overlap) String() string {
	return fmt.Sprintf("%v and %v at once for %v (both active for %v)", o.A, o.B, o.Len, o.Active)
}

// Overlaps returns all pairs of processes that lived at the same time, except pairs that share one
// flock. Time stamps show an overlap. A flock that was not free shows an overlap, too, because a
// frozen process keeps its flock but writes no time stamps.
func (r Record) Overlaps() []Overlap {
	var overlaps []Overlap
	for i, b := range r {
		met := false
		for _, a := range r[:i] {
			length := min(a.Last, b.Last) - b.Start
			if length >= 0 && a.family() != b.family() {
				overlaps = append(overlaps, Overlap{A: a, B: b, Len: length, Active: together(a, b)})
				met = true
			}
		}
		if b.Contended && !met && i > 0 {
			overlaps = append(overlaps, Overlap{A: r[i-1], B: b})
		}
	}
	return overlaps
}

// family returns the ID of the recorded parent, with which the process shares a flock. If the
// process has no recorded parent, family returns the process's own ID.
func (p Process) family() string {
	if p.Parent != "" {
		return p.Parent
	}
	return p.ID
}

// together returns for how long both processes ran at the same time. The gaps of both processes do
// not count.
func together(a, b Process) time.Duration {
	var sum time.Duration
	for _, x := range a.Active() {
		for _, y := range b.Active() {
			if both := min(x.Until, y.Until) - max(x.From, y.From); both > 0 {
				sum += both
			}
		}
	}
	return sum
}

// Vacant reports whether all processes under a name are dead, by the kernel's flock. Call Vacant
// only while no process can begin. A process that begins during the call would find the flock taken
// by Vacant, and the record would show an overlap.
func Vacant(dir, name string) (bool, error) {
	lock, err := os.OpenFile(lockFile(dir, name), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return false, fmt.Errorf("open lock: %w", err)
	}
	defer lock.Close()
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// Contended returns the processes that began while another process had the flock, which
// proves an overlap.
func (r Record) Contended() []Process {
	return slices.DeleteFunc(slices.Clone(r), func(p Process) bool { return !p.Contended })
}

// Mains returns the processes without a recorded parent.
func (r Record) Mains() Record {
	return slices.DeleteFunc(slices.Clone(r), func(p Process) bool { return p.Parent != "" })
}

// Running returns the processes that have not ended, and whose last time stamp is not older than
// the duration in the argument "recent".
func (r Record) Running(recent time.Duration) Record {
	now := Now()
	return slices.DeleteFunc(slices.Clone(r), func(p Process) bool {
		return p.Ended || now-p.Last > recent
	})
}

// TokensGrow requires that each pod that follows another pod has a greater fencing token. The
// tokens of one pod must never shrink. Processes without a slot (of ungated pods) do not count. For
// pods with several slots, TokensGrow compares the tokens of each slot.
func (r Record) TokensGrow() error {
	before := map[string]Process{}
	for _, p := range r.Mains() {
		if p.Slot == "" {
			continue
		}
		slots, tokens := strings.Split(p.Slot, ","), strings.Split(p.Token, ",")
		if len(slots) != len(tokens) {
			return fmt.Errorf("%v: %d tokens for the slots %v", p, len(tokens), slots)
		}
		for i, slot := range slots {
			token, err := strconv.ParseUint(tokens[i], 10, 64)
			if err != nil {
				return fmt.Errorf("%v: token: %w", p, err)
			}
			if last, ok := before[slot]; ok && !last.yieldsTo(p, slot, token) {
				return fmt.Errorf("the token of %s does not grow from %v to %v", slot, last, p)
			}
			before[slot] = p
		}
	}
	return nil
}

// yieldsTo reports whether the process "next" may follow p in a slot. The argument "token" is
// the token of "next" for the slot. That token must be greater than p's token, or equal to p's
// token if both processes are of one pod.
func (p Process) yieldsTo(next Process, slot string, token uint64) bool {
	i := slices.Index(strings.Split(p.Slot, ","), slot)
	last, err := strconv.ParseUint(strings.Split(p.Token, ",")[i], 10, 64)
	return err == nil && (token > last || (token == last && p.UID == next.UID))
}
