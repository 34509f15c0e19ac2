// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

// progress shows the progress of a long step: one line that changes on a terminal, or a
// line now and then in a file.
type progress struct {
	out      io.Writer
	title    string
	began    time.Time
	terminal bool
	total    int // the expected number of lines of progress; 0 if unknown

	mu   sync.Mutex
	what string
	done int
	quit chan struct{}
	over sync.WaitGroup
}

func newProgress(l *state.Lab, title string) *progress {
	p := &progress{out: l.Progress, title: title, began: time.Now(), quit: make(chan struct{})}
	if p.out == nil {
		p.out = io.Discard
	}
	if f, ok := p.out.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	p.over.Go(p.show)
	return p
}

// show prints the line of progress every second on a terminal. In a file a line every 15 s is
// enough.
func (p *progress) show() {
	every := 15 * time.Second
	if p.terminal {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-p.quit:
			return
		case <-tick.C:
			p.print()
		}
	}
}

func (p *progress) print() {
	line := p.line(time.Since(p.began))
	if p.terminal {
		fmt.Fprintf(p.out, "\r\033[K%s", line)
	} else {
		fmt.Fprintln(p.out, line)
	}
}

func (p *progress) line(elapsed time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	count := fmt.Sprint(p.done)
	what := p.what
	if p.total > 0 {
		count = fmt.Sprintf("%d of %d", p.done, p.total)
		if p.done >= p.total {
			what += ", linking"
		}
	}
	return fmt.Sprintf("%s: %s %s, %d s", p.title, count, what, int(elapsed.Seconds()))
}

// run runs a command of the go tool, and returns the command's standard output. The method counts
// the lines of progress on standard error. The other lines of standard error are in the returned
// error.
func (p *progress) run(cmd *exec.Cmd, what string) ([]byte, error) {
	p.mu.Lock()
	p.what, p.done = what, 0
	p.mu.Unlock()
	var out bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var said []string
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "go: downloading ") || !strings.ContainsAny(line, " \t") {
			p.mu.Lock()
			p.done++
			p.mu.Unlock()
			continue
		}
		said = append(said, line)
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args[:2], " "), err, strings.Join(said, "\n"))
	}
	return out.Bytes(), nil
}

// stop ends the display and prints the duration of the step.
func (p *progress) stop() {
	close(p.quit)
	p.over.Wait()
	if p.terminal {
		fmt.Fprint(p.out, "\r\033[K")
	}
	fmt.Fprintf(p.out, "%s: %d s\n", p.title, int(time.Since(p.began).Seconds()))
}

// debian names the Debian package of each program that is not built here.
var debian = map[string]string{
	"runc":       "runc",
	"nft":        "nftables",
	"ip":         "iproute2",
	"nsenter":    "util-linux",
	"mount":      "mount",
	"mmdebstrap": "mmdebstrap",
}

// missingPackages returns the packages of the programs that the given function does not
// find.
func missingPackages(find func(string) (string, error)) []string {
	var missing []string
	for program, name := range debian {
		if _, err := find(program); err != nil {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	return missing
}

// EnsurePackages installs missing packages on a Debian machine. Without Debian, the error names the
// missing packages. Without root, EnsurePackages installs nothing, and returns an error.
func EnsurePackages(ctx context.Context, l *state.Lab) error {
	if os.Geteuid() != 0 {
		return errors.New("the cluster needs root: namespaces, mounts and cgroups of its own")
	}
	missing := missingPackages(exec.LookPath)
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("missing programs: install what Debian calls %s", strings.Join(missing, ", "))
	}
	l.Say("installing Debian packages: %s", strings.Join(missing, " "))
	for _, args := range [][]string{
		{"update", "-q"},
		append([]string{"install", "-q", "-y", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s (packages needed: %s): %w\n%s", args[0], strings.Join(missing, " "), err, out)
		}
	}
	if missing = missingPackages(exec.LookPath); len(missing) > 0 {
		return fmt.Errorf("still missing after their installation: %s", strings.Join(missing, ", "))
	}
	return nil
}
