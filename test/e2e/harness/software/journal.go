// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package software

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// Journal is a series of numbers that a client writes while the application is killed. The
// application must keep each acknowledged number for ever.
type Journal struct {
	// Client is a command that reads statements, one per line, and answers each with a line.
	Client []string
	// Prepare is a statement that must succeed before the first number; empty means none.
	Prepare string
	// Keep returns the statement that stores a number, and Yes reports whether an answer
	// acknowledges the number.
	Keep func(n int) string
	Yes  func(answer string) bool
	// Read is the statement whose answer has a line for each stored number.
	Read string

	mu           sync.Mutex
	next         int
	acknowledged []int
}

// command returns the kubectl command that starts the client in a pod.
func (j *Journal) command(s *space.Space, pod *corev1.Pod) *exec.Cmd {
	return kubectl.Command(s.Context(), s.Namespace, append([]string{"exec", "-i", pod.Name, "-c", "app", "--"}, j.Client...)...)
}

// begin sends the statement Prepare to the holder, until the statement succeeds.
func (j *Journal) begin(t *Trial) {
	if j == nil || j.Prepare == "" {
		return
	}
	t.Await(kubectl.Timeout, "the journal of "+t.w.Name+" is begun", func() bool {
		_, holder := t.Living()
		if holder == nil {
			return false
		}
		_, err := kubectl.Run(t.Space, j.Prepare+"\n", append([]string{"exec", "-i", holder.Name, "-c", "app", "--"}, j.Client...)...)
		return err == nil
	})
}

// answerTimeout bounds the wait for the first answer. On a starved machine the stream of
// kubectl exec may lose its first line, and redis-cli once waited for ten minutes.
const answerTimeout = 10 * time.Second

// write starts a client that writes number after number, until the application ends or the returned
// function is called. The function "write" returns after the first acknowledgement, so that the
// caller can inject a fault while the client writes. If no acknowledgement comes in time, the
// result "stop" is nil, and the result "ok" is false. If j is nil, write starts no client, and
// returns true.
func (j *Journal) write(s *space.Space, pod *corev1.Pod) (stop func(), ok bool) {
	s.Helper()
	if j == nil {
		return func() {}, true
	}
	cmd := j.command(s, pod)
	in, err := cmd.StdinPipe()
	require.NoError(s, err)
	out, err := cmd.StdoutPipe()
	require.NoError(s, err)
	require.NoError(s, cmd.Start())
	first, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		j.converse(in, bufio.NewScanner(out), sync.OnceFunc(func() { close(first) }))
	}()
	stop = sync.OnceFunc(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait() // the error only shows that the client or its server was killed
	})
	select {
	case <-first:
		return stop, true
	case <-ended:
	case <-time.After(answerTimeout):
	}
	stop()
	return nil, false
}

// converse sends a statement for each next number, and reads the answer, until an answer does not
// acknowledge the statement.
func (j *Journal) converse(in io.Writer, answers *bufio.Scanner, acknowledge func()) {
	for {
		j.mu.Lock()
		j.next++
		n := j.next
		j.mu.Unlock()
		if _, err := io.WriteString(in, j.Keep(n)+"\n"); err != nil || !answers.Scan() || !j.Yes(answers.Text()) {
			return
		}
		j.mu.Lock()
		j.acknowledged = append(j.acknowledged, n)
		j.mu.Unlock()
		acknowledge()
	}
}

// check fails the test unless the application has all acknowledged numbers.
func (j *Journal) check(t *Trial) {
	t.Helper()
	if j == nil {
		return
	}
	var lost []int
	read := false
	// A stream may lose lines, so the test reads the journal again if a number is
	// missing.
	t.Within(ServeTimeout, func() bool {
		_, holder := t.Living()
		if holder == nil {
			return false
		}
		out, err := kubectl.Run(t.Space, j.Read+"\n", append([]string{"exec", "-i", holder.Name, "-c", "app", "--"}, j.Client...)...)
		if err != nil {
			return false
		}
		lost, read = j.missing(out), true
		return len(lost) == 0
	})
	require.True(t, read, "the journal of %s is not read", t.w.Name)
	require.Empty(t, lost, "acknowledged and lost")
}

// missing returns the acknowledged numbers that are not in an answer.
func (j *Journal) missing(answer string) []int {
	there := map[string]bool{}
	for line := range strings.Lines(answer) {
		there[strings.TrimSpace(line)] = true
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(j.acknowledged), func(n int) bool { return there[fmt.Sprint(n)] })
}
