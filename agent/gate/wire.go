// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// beatEvery is how often a shim repeats its state: half of the least margin
// (2 s), so that one lost beat is made good for within it.
const beatEvery = time.Second

// silence is how long a shim may say nothing before it is reported Silent: two
// beats and a half.
const silence = 5 * beatEvery / 2

// maxMessage bounds a message: a hundred slots of the longest name (253 bytes)
// with their tokens, and half as much again.
const maxMessage = 48 << 10

// longest bounds a duration in a message, so that no sum with one can wrap
// around: a pod's grace is far below a year.
const longest = 365 * 24 * time.Hour

// errMessage is a message that no end of ours would send.
var errMessage = errors.New("malformed message")

// message is what a shim sends: its state, or an answer.
type message struct {
	*state
	Ran *ran `json:"ran,omitempty"`
}

// state is all there is to say about a shim. It is sent whenever it changes,
// once for every beat (so that a lost one is made good for), and first on each
// connection, then with the shim's pidfd.
type state struct {
	Shim      ShimID        `json:"shim"`
	Container string        `json:"container"`
	BootID    string        `json:"bootID"`
	PID1      bool          `json:"pid1"`
	Phase     Phase         `json:"phase"`
	Hold      string        `json:"hold,omitempty"`
	Slots     []SlotToken   `json:"slots,omitempty"`
	Began     time.Duration `json:"began"`
	Since     time.Duration `json:"since"`
	Starting  bool          `json:"starting,omitempty"`
	Trouble   Trouble       `json:"trouble,omitzero"`
	Completed bool          `json:"completed,omitempty"`
	Leap      int           `json:"leap,omitempty"`
}

// order is the one message that the agent's end sends.
type order struct {
	Grant *Grant    `json:"grant,omitempty"`
	Drain *drain    `json:"drain,omitempty"`
	Run   *runOrder `json:"run,omitempty"`
}

// drain asks that the hold's child be stopped, and that the shim start nothing
// under that hold any more. With End the container ends with the child's exit
// code, instead of standing by again.
type drain struct {
	Hold   string        `json:"hold"`
	Reason string        `json:"reason"`
	Grace  time.Duration `json:"grace"`
	End    bool          `json:"end,omitempty"`
}

// decodeMessage returns a state, or an answer with no state.
func decodeMessage(b []byte) (state, *ran, error) {
	m := message{state: new(state)}
	if err := json.Unmarshal(b, &m); err != nil {
		return state{}, nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	if m.Ran != nil {
		if m.Ran.ID == "" || len(m.Ran.Output) > mostOutput {
			return state{}, nil, fmt.Errorf("%w: answer %q of %d bytes", errMessage, m.Ran.ID, len(m.Ran.Output))
		}
		return state{}, m.Ran, nil
	}
	return m.state.check()
}

func (s state) check() (state, *ran, error) {
	switch s.Phase {
	case Waiting, Running, Draining, Ended:
	default:
		return state{}, nil, fmt.Errorf("%w: phase %q", errMessage, s.Phase)
	}
	switch {
	case s.Shim == "" || len(s.Shim) > 64:
		return state{}, nil, fmt.Errorf("%w: shim id of %d bytes", errMessage, len(s.Shim))
	case !plainName(s.Container):
		return state{}, nil, fmt.Errorf("%w: container %q", errMessage, s.Container)
	case s.Leap < 0:
		return state{}, nil, fmt.Errorf("%w: leap %d", errMessage, s.Leap)
	case s.Hold == "" && (s.Phase == Running || s.Phase == Draining):
		return state{}, nil, fmt.Errorf("%w: %s without a hold", errMessage, s.Phase)
	}
	return s, nil, nil
}

func decodeOrder(b []byte) (order, error) {
	var o order
	if err := json.Unmarshal(b, &o); err != nil {
		return order{}, fmt.Errorf("%w: %w", errMessage, err)
	}
	if o.Grant != nil {
		if err := o.Grant.check(); err != nil {
			return order{}, err
		}
	}
	if o.Drain != nil && (o.Drain.Hold == "" || o.Drain.Grace < 0 || o.Drain.Grace > longest) {
		return order{}, fmt.Errorf("%w: drain of %q in %v", errMessage, o.Drain.Hold, o.Drain.Grace)
	}
	if o.Run != nil {
		if err := o.Run.check(); err != nil {
			return order{}, err
		}
	}
	return o, nil
}

// check refuses a grant whose arithmetic could wrap around or that names
// nothing.
func (g *Grant) check() error {
	switch {
	case g.Hold == "" || g.BootID == "":
		return fmt.Errorf("%w: grant without hold or boot id", errMessage)
	case g.Deadline <= 0 || g.Drain < 0 || g.Kill < 0 || g.Drain > longest || g.Kill > longest:
		return fmt.Errorf("%w: grant until %v, drain %v, kill %v", errMessage, g.Deadline, g.Drain, g.Kill)
	}
	return nil
}

// plainName is a container's name: it becomes a file's name.
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

// conn carries whole messages (SOCK_SEQPACKET).
type conn struct {
	*net.UnixConn
	raw syscall.RawConn
	in  []byte
}

func newConn(c *net.UnixConn) (*conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &conn{UnixConn: c, raw: raw, in: make([]byte, maxMessage+1)}, nil
}

// send never blocks: an end that does not read (frozen) must not hold up the
// other. It raises no SIGPIPE, which a shim would pass on to its child.
func (c *conn) send(message any, fds ...int) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("%w: %d bytes", errMessage, len(b))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	errWrite := c.raw.Write(func(fd uintptr) bool {
		err = unix.Sendmsg(int(fd), b, oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		return true
	})
	return errors.Join(errWrite, err)
}

// receive returns the next message, valid until the next call, and the file
// that came with it, if any.
func (c *conn) receive() (message []byte, file *os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(c.in, oob)
	if errors.Is(err, unix.ECONNRESET) {
		// The other end is gone and had not read all that was sent to it. The
		// kernel says so once, before it hands out the last words.
		n, oobn, flags, _, err = c.ReadMsgUnix(c.in, oob)
	}
	if err != nil {
		return nil, nil, err
	}
	file = firstFile(oob[:oobn])
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || n > maxMessage {
		if file != nil {
			file.Close()
		}
		return nil, nil, fmt.Errorf("%w: truncated", errMessage)
	}
	return c.in[:n], file, nil
}

// firstFile takes the first passed file and closes any others.
func firstFile(oob []byte) *os.File {
	var first *os.File
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if first != nil {
				unix.Close(fd)
				continue
			}
			// Non-blocking, so that the runtime's poller takes it.
			_ = unix.SetNonblock(fd, true)
			first = os.NewFile(uintptr(fd), "pidfd")
		}
	}
	return first
}
