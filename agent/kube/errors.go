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

// Errors that callers tell apart. Those with a status code are matched by a
// [*StatusError].
var (
	ErrUnauthorized    = errors.New("unauthorized")             // 401
	ErrForbidden       = errors.New("forbidden")                // 403
	ErrNotFound        = errors.New("not found")                // 404
	ErrConflict        = errors.New("conflict")                 // 409
	ErrGone            = errors.New("resource version is gone") // 410
	ErrTooManyRequests = errors.New("too many requests")        // 429

	// ErrNoUID refuses to send a PUT that would compare nothing.
	ErrNoUID = errors.New("lease has no uid or no resource version")
	// ErrUnchanged is the answer 200 to a PUT that was not stored, because
	// every byte was the same already.
	ErrUnchanged = errors.New("nothing was stored: the resource version is the one that was sent")
	// ErrTooLarge is a body or a watch frame above the bound.
	ErrTooLarge = errors.New("answer is too large")
	// ErrMalformed is an answer that is not what was asked for.
	ErrMalformed = errors.New("malformed answer")
)

// StatusError is an answer that is not a success, or an ERROR event of a watch.
type StatusError struct {
	// Code is the HTTP status.
	Code int
	// Reason and Message are the API server's own; both may be empty.
	Reason  string
	Message string
	// RetryAfter is the pause that the server asks for, or zero.
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

// Is matches the sentinel of the status code.
func (e *StatusError) Is(target error) bool {
	switch e.Code {
	case http.StatusUnauthorized:
		return target == ErrUnauthorized
	case http.StatusForbidden:
		return target == ErrForbidden
	case http.StatusNotFound:
		return target == ErrNotFound
	case http.StatusConflict:
		return target == ErrConflict
	case http.StatusGone:
		return target == ErrGone
	case http.StatusTooManyRequests:
		return target == ErrTooManyRequests
	}
	return false
}

// Refused reports whether err proves that the request it answers changed
// nothing. Every other error of a write leaves that open: the reply may have
// been lost after the write was stored, and a 5xx is also what the API server
// says when it gave up waiting for etcd.
func Refused(err error) bool {
	if status, ok := errors.AsType[*StatusError](err); ok {
		return status.Code >= 400 && status.Code < 500 && status.Code != http.StatusRequestTimeout
	}
	return errors.Is(err, ErrNoUID) || errors.Is(err, ErrUnchanged)
}

// statusBody is the part of a metav1.Status that is read.
type statusBody struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Details struct {
		RetryAfterSeconds int `json:"retryAfterSeconds"`
	} `json:"details"`
}

// maxMessage bounds what is kept of a message: it ends up in logs and Events,
// and what answers here may be anything that sits on the way.
const maxMessage = 512

// newStatusError makes the error of an answer. A body that is no Status (a
// proxy's page) costs the reason and the message alone.
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
	e.Message = cut(e.Message, maxMessage)
	return e
}

// cut shortens text to at most so many bytes, and never inside of a character.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}

// maxRetryAfter bounds what a server can ask for: an hour is the longest lease
// there is, and nobody is silenced for longer than that.
const maxRetryAfter = time.Hour

func seconds(n int) time.Duration {
	if n < 0 {
		return 0
	}
	return time.Duration(min(n, int(maxRetryAfter/time.Second))) * time.Second
}

// decodeStatus reads the object of an ERROR event.
func decodeStatus(object []byte) error {
	var status statusBody
	if err := json.Unmarshal(object, &status); err != nil {
		return fmt.Errorf("%w: status of an error event: %w", ErrMalformed, err)
	}
	return newStatusError(status.Code, "", object)
}
