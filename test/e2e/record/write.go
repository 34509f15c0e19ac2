// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Writer records one process. The process keeps its flock until [Writer.Unlock] or its death. Each
// process that inherited [Writer.Lock] keeps the flock, too.
type Writer struct {
	// ID names the process in the record.
	ID string
	// Lock is the flock's open file, for a descendant to inherit.
	Lock *os.File

	file  *os.File
	stamp *atomic.Int64
	stop  chan struct{}
	done  chan struct{}
}

// Begin writes the start of a process into the record of the name, and takes the flock of the name.
// If another process has the flock, Begin records that, too.
func Begin(dir, name string, meta Meta) (*Writer, error) {
	lock, err := os.OpenFile(lockFile(dir, name), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return begin(dir, name, meta, lock, err != nil)
}

// Inherit records the start of a process that descends from meta.Parent and shares the
// parent's flock.
func Inherit(dir, name string, meta Meta, lock *os.File) (*Writer, error) {
	return begin(dir, name, meta, lock, false)
}

func begin(dir, name string, meta Meta, lock *os.File, contended bool) (*Writer, error) {
	w := &Writer{ID: rand.Text()[:10], Lock: lock, stop: make(chan struct{}), done: make(chan struct{})}
	var err error
	if w.file, err = os.OpenFile(recordFile(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666); err != nil {
		return nil, fmt.Errorf("open record: %w", err)
	}
	if w.stamp, err = mapStamp(stampFile(dir, name, w.ID)); err != nil {
		return nil, fmt.Errorf("map stamp: %w", err)
	}
	now := Now()
	w.stamp.Store(int64(now))
	if err := w.write(line{Event: began, At: now, Meta: &meta, Contended: contended}); err != nil {
		return nil, err
	}
	go w.beat()
	return w, nil
}

func mapStamp(path string) (*atomic.Int64, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := file.Truncate(8); err != nil {
		return nil, err
	}
	data, err := unix.Mmap(int(file.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*atomic.Int64)(unsafe.Pointer(&data[0])), nil
}

// Signal records that the process got its stop signal.
func (w *Writer) Signal() error { return w.write(line{Event: signal, At: Now()}) }

// Unlock frees the flock, unless a descendant shares it. A program unlocks before the program gives
// its slot back, because the next program may begin before this process has exited.
func (w *Writer) Unlock() error { return w.Lock.Close() }

// End records that the process is about to exit with an exit code.
func (w *Writer) End(code int) error {
	close(w.stop)
	<-w.done
	now := Now()
	w.stamp.Store(int64(now))
	return w.write(line{Event: endsNow, At: now, Code: code})
}

// write appends one line in a single write, so the lines of several processes do not
// mix.
func (w *Writer) write(l line) error {
	l.ID = w.ID
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if _, err := w.file.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("append to record: %w", err)
	}
	return nil
}

func (w *Writer) beat() {
	defer close(w.done)
	ticker := time.NewTicker(Beat)
	defer ticker.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-ticker.C:
		}
		now := Now()
		if last := time.Duration(w.stamp.Swap(int64(now))); now-last > GapLimit {
			// If the write fails, the record lacks this gap. Then a frozen process counts
			// as active, which is the stricter judgement.
			_ = w.write(line{Event: gap, At: last, Until: now})
		}
	}
}
