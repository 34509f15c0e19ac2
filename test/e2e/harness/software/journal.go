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

// Journal is what a client writes while the application is killed. A number
// that was acknowledged must be there for ever.
type Journal struct {
	// client reads statements, one a line, and answers each with a line.
	Client []string
	// prepare is a statement for the beginning; empty: none is needed.
	Prepare string
	// keep is the statement that keeps a number, and yes tells its good answers.
	Keep func(n int) string
	Yes  func(answer string) bool
	// read is the statement that answers with a line for each number.
	Read string

	mu           sync.Mutex
	next         int
	acknowledged []int
}

func (j *Journal) command(s *space.Space, pod *corev1.Pod) *exec.Cmd {
	return kubectl.Command(s.Context(), s.Namespace, append([]string{"exec", "-i", pod.Name, "-c", "app", "--"}, j.Client...)...)
}

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

// answerTimeout is for the first answer. A client that reads from kubectl exec may
// never see its first line: on a starved machine the stream loses it, and redis-cli
// was seen waiting for input for ten minutes.
const answerTimeout = 10 * time.Second

// write writes number after number until the application is gone, or until it
// is told to stop. It returns when the first is acknowledged, so the blow falls
// amid the writing; or with false if none can be written.
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
		_ = cmd.Wait() // it was killed, or its server was
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

// check looks whether all that was acknowledged is there.
func (j *Journal) check(t *Trial) {
	t.Helper()
	if j == nil {
		return
	}
	var lost []int
	read := false
	// What the stream lost is there when it is read again.
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

// missing are the numbers that were acknowledged and are not in an answer.
func (j *Journal) missing(answer string) []int {
	there := map[string]bool{}
	for line := range strings.Lines(answer) {
		there[strings.TrimSpace(line)] = true
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(j.acknowledged), func(n int) bool { return there[fmt.Sprint(n)] })
}
