// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"
)

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: fmt.Sprint("ca-", time.Now().UnixNano())}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return authority{certificate, key}
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

// sign makes a certificate and its key, as PEM.
func (a authority) sign(t *testing.T, usage x509.ExtKeyUsage) (certificate, key []byte) {
	t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}, a.certificate, own.Public(), a.key)
	require.NoError(t, err)
	text, err := x509.MarshalECPrivateKey(own)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: text})
}

func (a authority) client(t *testing.T) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(a.sign(t, x509.ExtKeyUsageClientAuth))
	require.NoError(t, err)
	return pair
}

// listening starts a server on the loopback, and returns its address. The server answers each call
// with "here".
func listening(t *testing.T, s *callServer) string {
	t.Helper()
	s.certDir = t.TempDir()
	certificate, key := newAuthority(t).sign(t, x509.ExtKeyUsageServerAuth)
	require.NoError(t, os.WriteFile(filepath.Join(s.certDir, "tls.crt"), certificate, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(s.certDir, "tls.key"), key, 0o600))
	s.Register("/pods", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "here")
	}))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error)
	go func() { ended <- s.serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
	})
	return listener.Addr().String()
}

// answered calls the server once over a new connection, and returns the error of the call.
func answered(t *testing.T, address string, certificates ...tls.Certificate) error {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, Certificates: certificates,
	}}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+address+"/pods", strings.NewReader("{}"))
	require.NoError(t, err)
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	assert.Equal(t, "here", string(text))
	assert.Equal(t, 1, answer.ProtoMajor)
	return nil
}

func TestClientCAFlagMakesWebhookRefuseUncertifiedCallers(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, ours.pem(), 0o600))
	s, err := parse([]string{"--agent-image=a", "--namespace=n", "--client-ca-file=" + file}, io.Discard)
	require.NoError(t, err)
	address := listening(t, newCallServer(s))

	require.NoError(t, answered(t, address, ours.client(t)))
	require.Error(t, answered(t, address), "no certificate")
	require.Error(t, answered(t, address, theirs.client(t)), "another CA's")

	require.NoError(t, os.WriteFile(file, theirs.pem(), 0o600))
	require.NoError(t, answered(t, address, theirs.client(t)), "the CA was replaced")
	require.Error(t, answered(t, address, ours.client(t)))

	require.NoError(t, os.Remove(file))
	require.Error(t, answered(t, address, theirs.client(t)), "without a CA no caller is answered")
}

func TestWebhookWithoutClientCAFlagAnswersEveryCaller(t *testing.T) {
	address := listening(t, newCallServer(settings{}))
	require.NoError(t, answered(t, address))
	require.NoError(t, answered(t, address, newAuthority(t).client(t)))
}

func TestClientCAMustContainACertificate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	s := newCallServer(settings{clientCA: file})
	s.certDir = t.TempDir()
	certificate, key := newAuthority(t).sign(t, x509.ExtKeyUsageServerAuth)
	require.NoError(t, os.WriteFile(filepath.Join(s.certDir, "tls.crt"), certificate, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(s.certDir, "tls.key"), key, 0o600))
	_, err := s.tls(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(file, []byte("nothing"), 0o600))
	_, err = s.tls(t.Context())
	require.ErrorIs(t, err, errNoCertificates)
}

func TestWebhookDisconnectsCallersThatSendTooSlowly(t *testing.T) {
	s := newCallServer(settings{})
	s.greeting, s.call = 50*time.Millisecond, 100*time.Millisecond
	address := listening(t, s)
	for name, begin := range map[string]func(net.Conn) net.Conn{
		"no handshake": func(c net.Conn) net.Conn { return c },
		"no header":    func(c net.Conn) net.Conn { return tls.Client(c, &tls.Config{InsecureSkipVerify: true}) },
		"half a header": func(c net.Conn) net.Conn {
			c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			_, _ = io.WriteString(c, "POST /pods HTTP/1.1\r\nHost: ")
			return c
		},
		"half a body": func(c net.Conn) net.Conn {
			c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			_, _ = io.WriteString(c, "POST /pods HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
			require.NoError(t, err)
			defer connection.Close()
			require.NoError(t, connection.SetReadDeadline(time.Now().Add(20*time.Second)))
			_, err = io.ReadAll(begin(connection))
			assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the server ends the connection")
		})
	}
}

func TestWebhookServerIsReadyWhenItListens(t *testing.T) {
	s := newCallServer(settings{})
	require.ErrorIs(t, s.StartedChecker()(nil), errNotStarted)
	require.NoError(t, answered(t, listening(t, s)))
	require.NoError(t, s.StartedChecker()(nil))
}

func TestKustomizeComponentSetsTheClientCAFlag(t *testing.T) {
	text, err := os.ReadFile("../../manifests/components/client-ca/kustomization.yaml")
	require.NoError(t, err)
	flag := regexp.MustCompile(`--client-ca-file=(\S+)/ca\.crt`).FindStringSubmatch(string(text))
	require.NotNil(t, flag)
	s, err := parse([]string{"--agent-image=a", "--namespace=n", flag[0]}, io.Discard)
	require.NoError(t, err)
	assert.Equal(t, flag[1]+"/ca.crt", s.clientCA)
	assert.Contains(t, string(text), "mountPath: "+flag[1]+",")
}

// The API server gives up a call after the timeout in the manifest.
func TestTimeLimitOfCallsEqualsTheManifestTimeout(t *testing.T) {
	text, err := os.ReadFile("../../manifests/webhookconfiguration.yaml")
	require.NoError(t, err)
	var configuration admissionv1.MutatingWebhookConfiguration
	require.NoError(t, yaml.Unmarshal(text, &configuration))
	require.NotEmpty(t, configuration.Webhooks)
	for _, w := range configuration.Webhooks {
		assert.Equal(t, callTime, time.Duration(*w.TimeoutSeconds)*time.Second, w.Name)
	}
}

func TestMetricShowsWhenTheWebhooksCertificateExpires(t *testing.T) {
	began := time.Now()
	require.NoError(t, answered(t, listening(t, newCallServer(settings{}))))
	var seen dto.Metric
	require.NoError(t, expires.Write(&seen))
	assert.InDelta(t, began.Add(time.Hour).Unix(), seen.GetGauge().GetValue(), 60, "the authority signs for an hour")
}
