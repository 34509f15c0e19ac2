// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podgate

import (
	"bufio"
	"context"
	"net"
	"time"
)

// goOn is the agent's message to the waiting init container.
const goOn = "go on\n"

// again is the time between two attempts to connect. An attempt fails while the agent is
// starting.
const again = 100 * time.Millisecond

// Dial is a function that connects to the agent's socket.
type Dial func(ctx context.Context) (net.Conn, error)

// Socket returns a Dial that connects to the socket at the path.
func Socket(path string) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// Wait returns nil once the agent says that the pod holds the slot. A restart of the agent
// does not end the wait. If ctx ends first, Wait returns the cause of that end.
func Wait(ctx context.Context, dial Dial) error {
	for {
		if told(ctx, dial) {
			return nil
		}
		select {
		case <-time.After(again):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// told connects once, and reports whether the agent has sent the message goOn.
func told(ctx context.Context, dial Dial) bool {
	c, err := dial(ctx)
	if err != nil {
		return false
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	word, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && word == goOn
}
