// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command app is the application in the end-to-end tests. With the flag -bid the
// application calls the local API. Without this flag the application uses nothing of
// Metaparticle. The application records its life (package record) and serves HTTP. The flags decide
// when and how the application stops:
//
//	app [flags]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

type config struct {
	dir        string
	names      string
	listen     string
	datagrams  string
	stopDelay  time.Duration
	stopCode   int
	ignoreTerm bool
	runFor     time.Duration
	exitCode   int
	startDelay time.Duration
	grandchild bool
	descendant string
	annotate   string
	grpc       string
	check      string
	tcp        string
	https      string
	pid1       bool
	facts      bool
	note       string
	noteCode   int
	notes      bool
	signals    bool
	eat        bool
	echo       bool
	bid        string
	follow     int
	socket     string
	starts     string
}

func main() {
	c := config{}
	flag.StringVar(&c.dir, "record", "", "directory of the record; none: record nothing")
	flag.StringVar(&c.names, "alone", "app", "names under which this process must be alone, separated by commas")
	flag.StringVar(&c.listen, "listen", "", "address to serve HTTP on")
	flag.StringVar(&c.datagrams, "datagrams", "", "with -listen: address to answer each datagram on")
	flag.DurationVar(&c.stopDelay, "stop-delay", 0, "time from SIGTERM to the end")
	flag.IntVar(&c.stopCode, "stop-code", 0, "exit code after SIGTERM")
	flag.BoolVar(&c.ignoreTerm, "ignore-term", false, "do not end after SIGTERM")
	flag.DurationVar(&c.runFor, "run-for", 0, "end by itself after this time; 0: never")
	flag.IntVar(&c.exitCode, "exit-code", 0, "exit code of an end by itself")
	flag.DurationVar(&c.startDelay, "start-delay", 0, "serve only after this time")
	flag.BoolVar(&c.grandchild, "grandchild", false, "start a process in a session of its own that ignores SIGTERM")
	flag.StringVar(&c.descendant, "descendant", "", "used by -grandchild")
	flag.StringVar(&c.annotate, "annotate", "", "be a webhook that annotates pods, with the certificate in this directory")
	flag.StringVar(&c.grpc, "grpc", "", "address to serve gRPC's health on, with -listen")
	flag.StringVar(&c.check, "check", "", "be the health command: ask the application on port 8080 about this")
	flag.BoolVar(&c.pid1, "pid1", false, "insist on being PID 1, as some init systems do")
	flag.BoolVar(&c.facts, "facts", false, "print facts about this process, and end")
	flag.StringVar(&c.note, "note", "", "be a hook: note this, and end")
	flag.IntVar(&c.noteCode, "note-code", 0, "exit code of -note")
	flag.BoolVar(&c.notes, "notes", false, "note the stop signal")
	flag.BoolVar(&c.signals, "signals", false, "note each signal that comes, and stop at the first, whichever it is")
	flag.BoolVar(&c.eat, "eat", false, "take memory without end")
	flag.BoolVar(&c.echo, "echo", false, "echo standard input; without -listen, end with it")
	flag.StringVar(&c.tcp, "tcp", "", "ports that are open while a probe is healthy, with -listen: NAME=ADDRESS, separated by commas")
	flag.StringVar(&c.https, "https", "", "address to serve the same as -listen by HTTPS")
	flag.StringVar(&c.bid, "bid", "", "run only while the local API gives a hold of this claim: KIND/NAME")
	flag.BoolVar(&disobeys, "disobey", false, "with -bid: run on after the loss of the hold")
	flag.IntVar(&c.follow, "follow", 0, "with -bid: follow the state of the claim by so many connections")
	flag.StringVar(&c.socket, "socket", "", "with -bid: the path of the local API's socket, instead of its port")
	flag.StringVar(&c.starts, "starts", "", "with -listen: be alone under this name until the application serves")
	flag.Parse()
	code, err := run(c)
	if err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(70)
	}
	os.Exit(code)
}

func run(c config) (int, error) {
	switch {
	case c.facts:
		return 0, tell()
	case c.descendant != "":
		return 0, descend(c)
	case c.annotate != "":
		return 0, annotate(c.listen, c.annotate)
	case c.check != "":
		return check(c.check)
	case c.note != "":
		return c.noteCode, note(c.dir, os.Getenv("POD_NAME"), c.note)
	case c.pid1 && os.Getpid() != 1:
		return 0, fmt.Errorf("can only run as pid 1, not %d", os.Getpid())
	}
	terminated, stop := askedToStop(c)
	defer stop()
	if c.bid != "" {
		giveBack, err := bidAndFollow(terminated, c)
		if err != nil {
			return c.stopCode, err
		}
		if terminated.Err() != nil {
			if giveBack != nil {
				err = giveBack()
			}
			return c.stopCode, err
		}
		defer func() { _ = giveBack() }() // runs last, after the record has ended and the record's flock is free
	}
	life, err := begin(c)
	if err != nil {
		return 0, err
	}
	if c.bid != "" {
		defer life.unlock() // runs before giveBack, so the flock is free before the slot
	}
	if c.grandchild {
		if err := life.fork(c); err != nil {
			return 0, err
		}
	}
	var byItself <-chan time.Time
	if c.runFor > 0 {
		byItself = time.After(c.runFor)
	}
	serves := func() {}
	if c.starts != "" {
		if serves, err = beginStart(c); err != nil {
			return 0, err
		}
	}
	asked := work(c, serves)
	select {
	case <-byItself:
		return c.exitCode, life.end(c.exitCode)
	case code := <-asked:
		return code, life.end(code)
	case <-terminated.Done():
	}
	return stopAsAsked(c, life)
}

// stopAsAsked records the stop signal, ends the application as the command line's flags demand,
// and returns the exit code. With -ignore-term the function never returns.
func stopAsAsked(c config, life life) (int, error) {
	if err := life.signalled(); err != nil {
		return 0, err
	}
	if c.notes {
		if err := note(c.dir, os.Getenv("POD_NAME"), "stops"); err != nil {
			return 0, err
		}
	}
	if c.ignoreTerm {
		select {}
	}
	if c.stopDelay > 0 {
		<-time.After(c.stopDelay)
	}
	return c.stopCode, life.end(c.stopCode)
}

// beginStart records the beginning of the application's start. The returned function records the
// end of the start.
func beginStart(c config) (serves func(), err error) {
	c.names = c.starts
	start, err := begin(c)
	return func() {
		if err := start.end(0); err != nil {
			fail(err)
		}
		start.unlock()
	}, err
}

// work starts everything that the flags ask for. Just before the application accepts requests, work
// calls the function "serves". If a request, or the end of the standard input, ends the
// application, the returned channel delivers the exit code.
func work(c config, serves func()) <-chan int {
	asked := make(chan int, 1)
	if c.eat {
		go eat()
	}
	if c.listen != "" {
		go serve(c, serves, asked)
	}
	if c.echo {
		go func() {
			_, _ = io.Copy(os.Stdout, os.Stdin)
			if c.listen == "" {
				asked <- 0
			}
		}()
	}
	return asked
}

// askedToStop returns a context that ends with the signal that asks the application to
// stop.
func askedToStop(c config) (context.Context, context.CancelFunc) {
	if c.signals {
		return heed(c.dir)
	}
	return signal.NotifyContext(context.Background(), syscall.SIGTERM)
}

// life has a record for each name under which only one application may run.
type life []*record.Writer

// expand replaces environment variables in names, such as $METAPARTICLE_SLOT. So each slot of a
// semaphore has a name of its own.
func expand(names string) string { return os.ExpandEnv(names) }

func begin(c config) (life, error) {
	if c.dir == "" {
		return nil, nil
	}
	var l life
	for name := range strings.SplitSeq(expand(c.names), ",") {
		w, err := record.Begin(c.dir, name, meta())
		if err != nil {
			return nil, err
		}
		l = append(l, w)
	}
	return l, nil
}

func meta() record.Meta {
	return record.Meta{
		Pod: os.Getenv("POD_NAME"), UID: os.Getenv("POD_UID"), Node: os.Getenv("NODE_NAME"), PID: os.Getpid(),
		Slot: os.Getenv("METAPARTICLE_SLOT"), Token: os.Getenv("METAPARTICLE_FENCING_TOKEN"),
	}
}

func (l life) signalled() error {
	for _, w := range l {
		if err := w.Signal(); err != nil {
			return err
		}
	}
	return nil
}

func (l life) unlock() {
	for _, w := range l {
		_ = w.Unlock()
	}
}

func (l life) end(code int) error {
	for _, w := range l {
		if err := w.End(code); err != nil {
			return err
		}
	}
	return nil
}
