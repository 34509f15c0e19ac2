// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ErrNoSignal means that a text names no signal of Linux. ErrKeptSignal means that a shim cannot
// pass the signal on.
var (
	ErrNoSignal   = errors.New("is not a signal: name one, such as SIGTERM")
	ErrKeptSignal = errors.New("cannot be passed on: take another")
)

// The first and the last real-time signal, as container runtimes and glibc count them. For musl, the
// first is 35.
const (
	firstRealTime = 34
	lastRealTime  = 64
)

// ParseStopSignal reads the STOPSIGNAL of an image, or a lifecycle.stopSignal. The text is a name with
// or without its prefix (SIGQUIT, QUIT), a number (3), or an offset (SIGRTMIN+3, SIGRTMAX-3). The error
// is [ErrNoSignal] or [ErrKeptSignal].
func ParseStopSignal(text string) (syscall.Signal, error) {
	n := signalNumber(strings.TrimPrefix(strings.ToUpper(text), "SIG"), text)
	switch {
	case n == 0:
		return 0, ErrNoSignal
	case slices.Contains(keptSignals, n):
		return 0, ErrKeptSignal
	}
	return syscall.Signal(n), nil
}

// signalNumber returns the number of the signal with the name, or with the number in the argument
// "text"; zero for none.
func signalNumber(name, text string) int {
	if n := number(text, lastRealTime); n > 0 {
		return n
	}
	if i := slices.Index(signalNames, name); i >= 0 && name != "" {
		return i
	}
	if n, ok := otherNames[name]; ok {
		return n
	}
	if above, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		if n := number(above, lastRealTime-firstRealTime); n >= 0 {
			return firstRealTime + n
		}
	}
	if below, ok := strings.CutPrefix(name, "RTMAX-"); ok {
		if n := number(below, lastRealTime-firstRealTime); n >= 0 {
			return lastRealTime - n
		}
	}
	return 0
}

// number reads a decimal number without a sign; -1 if the text is none, or is above the argument "most".
func number(text string, most uint64) int {
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || n > most {
		return -1
	}
	return int(n)
}

// signalNames are the names of the signals of Linux (signal(7), amd64 and arm64), without the prefix
// "SIG". The index of a name is its number.
var signalNames = []string{
	"", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
	"STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
}

// otherNames are further names of signals.
var otherNames = map[string]int{"CLD": 17, "IOT": 6, "POLL": 29, "RTMIN": firstRealTime, "RTMAX": lastRealTime}

// keptSignals are the signals that a shim cannot pass on. The shim needs SIGCHLD to reap children. The
// Go runtime or the C library uses the other signals: SIGURG, SIGPROF, 32, 33, and SIGRTMIN.
var keptSignals = []int{17, 23, 27, 32, 33, firstRealTime}
