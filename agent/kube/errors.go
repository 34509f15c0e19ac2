// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// These errors let a caller distinguish causes. A [*StatusError] matches the error of its
// status code.
var (
	ErrUnauthorized    = errors.New("unauthorized")             // 401
	ErrForbidden       = errors.New("forbidden")                // 403
	ErrNotFound        = errors.New("not found")                // 404 with the reason NotFound
	ErrConflict        = errors.New("conflict")                 // 409
	ErrGone            = errors.New("resource version is gone") // 410
	ErrTooManyRequests = errors.New("too many requests")        // 429

	// ErrCredentials means that the file of the token or of the CA cannot be used, so nothing was sent.
	ErrCredentials = errors.New("no credentials")
	// ErrNoUID means that the client did not send a PUT, because the object had no uid or no
	// resourceVersion that the API server could compare.
	ErrNoUID = errors.New("the object has no uid or no resource version")
	// ErrUnchanged means that the API server answered 200 but stored nothing, because the write
	// would have changed no byte of the Lease.
	ErrUnchanged = errors.New("nothing was stored: the resource version is the one that was sent")
	// ErrTooLarge means that a body or a watch frame exceeds maxBody.
	ErrTooLarge = errors.New("answer is too large")
	// ErrMalformed means that the answer does not fit the request.
	ErrMalformed = errors.New("malformed answer")
)

// ConnectionError means that the API server has not answered a request: there is no connection, it is not the API server's,
// or it ended before the answer. A request that ran out of time names no address by itself.
type ConnectionError struct {
	Address string
	Err     error
}

func (e *ConnectionError) Error() string { return "no answer from " + e.Address + ": " + e.Err.Error() }
func (e *ConnectionError) Unwrap() error { return e.Err }

// StatusError is an answer that is no success, or an ERROR event of a watch.
type StatusError struct {
	// Code is the HTTP status.
	Code int
	// Reason and Message come from the API server; both may be empty.
	Reason  string
	Message string
	// RetryAfter is the delay that the API server demands before the next request; zero for none.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	text := strconv.Itoa(e.Code)
	if e.Reason != "" {
		text += " " + e.Reason
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// reasonNotFound is the reason of the API server's answer that an object does not exist.
const reasonNotFound = "NotFound"

// The method "Is" reports whether the target is the error of the status code. A 404 without the
// reason NotFound comes from a proxy, and tells nothing about the object.
func (e *StatusError) Is(target error) bool {
	switch e.Code {
	case http.StatusUnauthorized:
		return target == ErrUnauthorized
	case http.StatusForbidden:
		return target == ErrForbidden
	case http.StatusNotFound:
		return target == ErrNotFound && e.Reason == reasonNotFound
	case http.StatusConflict:
		return target == ErrConflict
	case http.StatusGone:
		return target == ErrGone
	case http.StatusTooManyRequests:
		return target == ErrTooManyRequests
	}
	return false
}

// Refused reports whether err proves that the request changed nothing. After any other error a
// write may have been stored, because its answer may have been lost. The API server also
// answers 5xx when it stops waiting for etcd.
func Refused(err error) bool {
	if status, ok := errors.AsType[*StatusError](err); ok {
		return status.Code >= 400 && status.Code < 500 && status.Code != http.StatusRequestTimeout
	}
	return errors.Is(err, ErrNoUID) || errors.Is(err, ErrUnchanged)
}

// statusBody contains the fields of a metav1.Status that the client reads.
type statusBody struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Details struct {
		RetryAfterSeconds int `json:"retryAfterSeconds"`
	} `json:"details"`
}

// maxMessage bounds the length of a [StatusError]'s Message. This text goes into logs and Events,
// and any proxy on the way may have written the text.
const maxMessage = 512

// maxReason bounds the length of a reason. Kubernetes' own reasons are single words.
const maxReason = 64

// newStatusError makes the error for an answer. A body that is not a Status, such
// as a proxy's page, leaves the reason and the message empty.
func newStatusError(code int, retryAfter string, body []byte) *StatusError {
	e := &StatusError{Code: code}
	var status statusBody
	if json.Unmarshal(body, &status) == nil {
		e.Reason, e.Message = status.Reason, status.Message
		e.RetryAfter = seconds(status.Details.RetryAfterSeconds)
	}
	if n, err := strconv.Atoi(retryAfter); err == nil {
		e.RetryAfter = seconds(n)
	}
	e.Reason, e.Message = cut(e.Reason, maxReason), cut(e.Message, maxMessage)
	return e
}

// cut shortens text to at most limit bytes, at the end of a character.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "")
}

// maxRetryAfter bounds the delay that a server can demand. No lease duration is longer, and an
// agent that sent nothing for longer would lose each slot.
const maxRetryAfter = time.Hour

func seconds(n int) time.Duration {
	if n < 0 {
		return 0
	}
	return time.Duration(min(n, int(maxRetryAfter/time.Second))) * time.Second
}

// decodeStatus decodes the object of an ERROR event.
func decodeStatus(object []byte) error {
	var status statusBody
	if err := json.Unmarshal(object, &status); err != nil {
		return fmt.Errorf("%w: status of an error event: %w", ErrMalformed, err)
	}
	return newStatusError(status.Code, "", object)
}
