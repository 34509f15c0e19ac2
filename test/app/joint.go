// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
)

// bidForAll bids for all claims by one call, and waits until the program holds each claim. From
// then on, the end of any hold ends the program immediately. The returned function gives all holds
// back.
func bidForAll(ctx context.Context, claims string) (giveBack func() error, err error) {
	waiting, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := context.AfterFunc(ctx, cancel) // a stop signal ends the wait for the answer
	answer, err := send(waiting, http.MethodPost, "holds?wait=24h&claims="+claims)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var all struct{ Holds []line }
	if err := json.NewDecoder(answer.Body).Decode(&all); err != nil || answer.StatusCode != http.StatusCreated {
		return nil, fmt.Errorf("bid for %s: %s, %w", claims, answer.Status, err)
	}
	stop()
	for _, hold := range all.Holds {
		stream, err := send(context.Background(), http.MethodGet, hold.Claim+"/holds/"+hold.Hold) //nolint:bodyclose // The stream stays open for as long as the program runs.
		if err != nil {
			return nil, err
		}
		go obey(json.NewDecoder(stream.Body), hold)
	}
	os.Setenv("METAPARTICLE_SLOT", all.Holds[0].Slot)
	os.Setenv("METAPARTICLE_FENCING_TOKEN", all.Holds[0].FencingToken)
	return func() error {
		for _, hold := range all.Holds {
			if err := release(hold.Claim, hold.Hold); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// release gives a hold back.
func release(claim, hold string) error {
	returning.Store(true)
	answer, err := send(context.Background(), http.MethodDelete, claim+"/holds/"+hold)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}
