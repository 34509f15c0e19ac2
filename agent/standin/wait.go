// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package standin

import (
	"bufio"
	"context"
	"net"
	"time"
)

// goOn is what the agent says to the one that waits.
const goOn = "go on\n"

// again is the pause between two attempts to reach the agent, which starts a
// moment before, or is restarted.
const again = 100 * time.Millisecond

// Dial connects to the agent's socket.
type Dial func(ctx context.Context) (net.Conn, error)

// Socket returns a Dial of the socket at the path.
func Socket(path string) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// Wait returns nil when the agent says that the slot is held. However often the
// agent comes and goes, Wait returns otherwise only at the end of ctx.
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

// told waits on one connection.
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
