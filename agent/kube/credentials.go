// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// tokenAge is the age at which the client reads the service account token again. A token lives
// for at least ten minutes, and the kubelet replaces it at four fifths of its life. So the
// replaced token, which the client may still use, is valid for about two more minutes.
const tokenAge = time.Minute

// token is the service account's token. The client reads the token's file again because the kubelet
// rotates the token.
type token struct {
	file string

	mu     sync.Mutex
	value  string
	readAt time.Time
}

// get returns the service account token. If the client read the token less than [tokenAge] ago, get
// does not read the file again.
func (t *token) get(now time.Time) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value != "" && now.Sub(t.readAt) < tokenAge {
		return t.value, nil
	}
	return t.read(now)
}

// reread reads the service account token from its file.
func (t *token) reread(now time.Time) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.read(now)
}

// read reads the service account token from its file. If the file cannot be read, read returns the
// old token, or an error if the client has no token yet. The API server decides whether the old
// token is still valid.
func (t *token) read(now time.Time) (string, error) {
	data, err := os.ReadFile(t.file)
	value := string(bytes.TrimSpace(data))
	if err == nil && value == "" {
		err = fmt.Errorf("%s is empty", t.file)
	}
	if err != nil && t.value == "" {
		return "", fmt.Errorf("%w: read token: %w", ErrCredentials, err)
	}
	if err == nil {
		t.value = value
	}
	t.readAt = now
	return t.value, nil
}

// authority is the CA file. The client reads the file for each new connection, so
// that a changed CA takes effect. New connections are rare, and cost far more
// than the read.
type authority struct {
	file string

	mu   sync.Mutex
	data []byte
	last *trust
}

// trust contains the certificates of one version of the CA file, and the TLS sessions that began
// under these certificates. A resumed session saves most of the cost of a handshake (RFC 8446,
// section 2.2). Each version of the file has its own sessions. So no connection under a changed CA
// relies on a check under the earlier CA.
type trust struct {
	roots    *x509.CertPool
	sessions tls.ClientSessionCache
}

// trust returns the content of the file. If the file has no valid certificates now, trust returns
// the last valid ones, or an error if there were none.
func (a *authority) trust() (*trust, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	data, err := os.ReadFile(a.file)
	if err == nil && (a.last == nil || !bytes.Equal(data, a.data)) {
		roots := x509.NewCertPool()
		if roots.AppendCertsFromPEM(data) {
			a.data, a.last = data, &trust{roots: roots, sessions: tls.NewLRUClientSessionCache(1)}
		} else {
			err = errors.New("no certificate in " + a.file)
		}
	}
	if a.last == nil {
		return nil, fmt.Errorf("%w: read CA: %w", ErrCredentials, err)
	}
	return a.last, nil
}
