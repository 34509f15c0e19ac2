// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
)

// reach is whether the holder's pod answers this one. It is asked once for each
// holder and not again, because asking is a connection to the application, and
// an idle standby costs nobody anything.
type reach struct {
	// address is the one that the rest is about.
	address string
	asking  bool
	reached bool
	err     error
}

// reachable reports whether the holder's address answers, and whether that is
// known yet. While it does not, it is asked again every renewal period: the
// path that is missing may come.
func (a *Agent) reachable(ctx context.Context, address string) (reached, known bool) {
	r := &a.outlook.reach
	if r.address != address {
		*r = reach{address: address}
	}
	switch {
	case r.reached:
		return true, true
	case !r.asking && (r.err == nil || a.now >= a.outlook.askAt):
		a.askHolder(ctx, address)
	case r.err != nil && !r.asking:
		a.wakeAt(a.outlook.askAt)
	}
	return false, r.err != nil
}

func (a *Agent) askHolder(ctx context.Context, address string) {
	a.outlook.reach.asking = true
	a.group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, a.self.Budget.RequestTimeout)
		defer cancel()
		err := a.config.Forwarder.Reachable(bounded, address)
		a.post(ctx, func() {
			if r := &a.outlook.reach; r.address == address {
				r.asking, r.reached, r.err = false, err == nil, err
				a.outlook.askAt = a.now + a.jitter(a.self.Budget.Renew)
			}
		})
	})
}
