// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// These are the classes of failure. The text of a refusal names a class, and contains no text
// from a registry. A registry's text would tell a pod's author which hosts the webhook can
// reach.
var (
	errName      = errors.New("not the name of an image")
	errNameSize  = fmt.Errorf("a name of more than %d bytes", maxName)
	errDenied    = errors.New("denied: the registry lets none of the pod's pull secrets read it")
	errAbsent    = errors.New("not found in the registry")
	errAway      = errors.New("no answer from the registry, or its certificate is not trusted (--registry-ca)")
	errNotImage  = errors.New("not an image")
	errPlatform  = errors.New("no Linux platform")
	errSize      = errors.New("the image's manifests or configurations are too large")
	errCommand   = fmt.Errorf("the image's command has more than %d bytes", maxCommand)
	errNoHost    = errors.New("the name of the registry, or of where it leads to, does not resolve (DNS)")
	errPlainHTTP = errors.New("plain HTTP is not allowed for this registry (--plain-http-registry)")
	errAddress   = errors.New("the registry, or where it leads to, is at an address that is not allowed (--registry-network)")
	errBusy      = errors.New("no answer: too many images of this namespace are looked up")
	// errTooMany is a hint that some pull secrets were not tried. A failure has such hints beside
	// its class.
	errTooMany = fmt.Errorf("only %d pull secrets, of up to %d bytes, and %d of their entries, of up to %d bytes together, were tried",
		maxSecrets, maxSecretBytes, maxCredentials, maxCredentialBytes)
)

// classes lists the classes of failure. The most helpful classes for a pod's author come
// first.
var classes = []error{
	image.ErrPlatforms, errPlatform, errName, errNameSize, errCommand, errSize, errPlainHTTP, errAddress,
	errBusy, errNotImage, errDenied, errAbsent, errAway,
}

// MayNotRead is the error of [Secrets] if the webhook may not read a namespace's secrets. Its
// text tells the pod's author what to do, and nothing about any secret.
type MayNotRead string

func (m MayNotRead) Error() string { return string(m) }

// late is the error of a look-up that took too long.
type late struct{ after fmt.Stringer }

func (l late) Error() string { return fmt.Sprintf("no answer within %v", l.after) }

// statusError is the status of an answer, if the status is not 200.
type statusError int

func (e statusError) Error() string { return http.StatusText(int(e)) }

// failure is an error that contains nothing that a registry has sent. A pod keeps the failures of all
// its images until the webhook answers, so a failure is small.
type failure struct {
	class error
	// hints are further texts for the pod's author: about pull secrets, and the classes of
	// the failures at mirrors.
	hints []error
}

func (f *failure) Error() string {
	texts := []string{f.class.Error()}
	for _, hint := range f.hints {
		texts = append(texts, hint.Error())
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns the class.
func (f *failure) Unwrap() error { return f.class }

// classify returns the class of a look-up's error: one of [classes], [errNoHost], a [late] error,
// or [context.Canceled].
func classify(err error) error {
	if its, ok := errors.AsType[late](err); ok {
		return its
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return errAway // an invalid certificate decides, even if the error also has another class
	}
	for _, class := range classes {
		if errors.Is(err, class) {
			return class
		}
	}
	switch status := statusOf(err); {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, new(*net.DNSError)):
		return errNoHost
	case denied(err):
		return errDenied
	case status == http.StatusNotFound:
		return errAbsent
	case away(err):
		return errAway
	default:
		return errNotImage
	}
}

// fail returns the error of a look-up as a failure. The argument "unread" has the errors of the
// pull secrets that could not be read, and may add hints.
func fail(err, unread error) *failure {
	f := &failure{class: classify(err)}
	if errors.Is(f.class, errDenied) || errors.Is(f.class, errAbsent) || errors.Is(f.class, errAway) {
		if hint, ok := errors.AsType[MayNotRead](unread); ok {
			f.hints = append(f.hints, hint)
		}
		if errors.Is(unread, errTooMany) {
			f.hints = append(f.hints, errTooMany)
		}
	}
	return f
}

// joined joins the failures at all mirrors, and the failure at the registry, into one failure.
func joined(failed []*failure) error {
	all := &failure{class: failed[len(failed)-1].class}
	for _, f := range failed {
		for _, hint := range append([]error{f.class}, f.hints...) {
			if hint.Error() != all.class.Error() && !slices.ContainsFunc(all.hints, func(e error) bool { return e.Error() == hint.Error() }) {
				all.hints = append(all.hints, hint)
			}
		}
	}
	return all
}

// denied reports whether the registry refused the credentials.
func denied(err error) bool {
	status := statusOf(err)
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// away reports whether the registry gave no answer about the image.
func away(err error) bool {
	status := statusOf(err)
	return status == 0 || status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
}

func statusOf(err error) int {
	if status, ok := errors.AsType[statusError](err); ok {
		return int(status)
	}
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		return answer.StatusCode
	}
	return 0
}
