// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// patience is the time for which the command repeats a change after errors that can end soon. The
// election of another leader of etcd takes less time, and so does the restart of one of several API
// servers. The time includes requests without an answer.
const patience = 25 * time.Second

// The time between two attempts begins with firstPause, and doubles up to longestPause. So the next
// attempt follows at most longestPause after the return of an API server.
const (
	firstPause   = 200 * time.Millisecond
	longestPause = 2 * time.Second
)

// patiently repeats an attempt until its success or an error that stays. The function "stays"
// recognizes such an error. All other errors end the attempts after [patience].
func patiently(ctx context.Context, stays func(error) bool, attempt func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := attempt(limited)
		if err == nil || stays(err) {
			return err
		}
		// After the end of the patience, an error shows only this end. Such an error must not
		// replace the earlier error, which shows the cause.
		if last == nil || limited.Err() == nil {
			last = err
		}
		select {
		case <-time.After(pause):
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("no success for %v: %w", patience, last)
		}
	}
}

// refusesLease reports whether the API server refuses a change because of this Lease alone. Later
// attempts have the same result, but attempts for other Leases can succeed.
//
// A user of a namespace can fill a Lease up to etcd's limit. The API server passes etcd's error on
// as an internal error, so only the text tells this error from an error of the cluster.
func refusesLease(err error) bool {
	if apierrors.IsInternalError(err) {
		return strings.Contains(err.Error(), "etcdserver: request is too large") || strings.Contains(err.Error(), "message larger than max")
	}
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsConflict(err)
}

// refusesWrites reports whether the error is an answer by which the API server refuses a write
// for good. An error without an answer can end soon, so the result is false. The result is also
// false for an answer that asks for a repetition. An answer that does not recognize the user
// gives false, too, because a starting API server can send such an answer.
func refusesWrites(err error) bool {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return false
	}
	code := answer.Status().Code
	switch code {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return false
	}
	return code >= 400 && code < 500
}
