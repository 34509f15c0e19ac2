// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// patience is the time for which one call waits at the barrier. The program repeats its
// call until the barrier opens.
const patience = "5s"

// meets waits at the barrier that the flags name. The result "over" is true if the program must
// end: a call has failed, or a signal asks the program to stop.
func meets(ctx context.Context, c config) (over bool, err error) {
	if c.meet != "" {
		err = meet(ctx, c.meet)
	}
	return err != nil || c.meet != "" && ctx.Err() != nil, err
}

// meet waits at the barrier, by the local API, until the barrier is open. If a stop signal ends the
// wait, the error is nil.
func meet(ctx context.Context, barrier string) error {
	for {
		answer, err := send(ctx, http.MethodPost, "barrier/"+barrier+"/wait?wait="+patience)
		if ctx.Err() != nil {
			err = nil
		}
		if err != nil || ctx.Err() != nil {
			return err
		}
		answer.Body.Close()
		switch answer.StatusCode {
		case http.StatusOK:
			return nil
		case http.StatusConflict:
		default:
			return fmt.Errorf("wait at %s: %s", barrier, answer.Status)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}
