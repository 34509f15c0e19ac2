// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestReadsOfLeasesAreConsistentAndAuthenticated(t *testing.T) {
	var seen *http.Request
	client := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r.Clone(context.Background())
		_, _ = io.WriteString(w, foreign)
	}).client(t)
	lease, err := client.GetLease(t.Context(), "biller")
	require.NoError(t, err)
	assert.Equal(t, "pod-a_1", lease.Holder)
	assert.Equal(t, "/apis/coordination.k8s.io/v1/namespaces/shop/leases/biller", seen.URL.Path)
	assert.Empty(t, seen.URL.RawQuery, "a resourceVersion parameter allows a stale answer")
	assert.Equal(t, "Bearer first", seen.Header.Get("Authorization"))
	assert.Equal(t, "metaparticle-agent/v9", seen.Header.Get("User-Agent"))
	assert.Equal(t, "HTTP/1.1", seen.Proto)
}

func TestClientRefusesALeaseItDidNotRequest(t *testing.T) {
	_, err := serve(t, http.StatusOK, foreign).GetLease(t.Context(), "other")
	assert.ErrorIs(t, err, ErrMalformed)
}

func TestLeaseUpdateContainsTheVersionThatWasRead(t *testing.T) {
	var sent Lease
	client := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, http.MethodPut, r.Method)
		assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&sent))
		_, _ = io.WriteString(w, strings.Replace(foreign, `"41"`, `"42"`, 1))
	}).client(t)
	lease := parse(t, foreign)
	lease.Holder = "pod-z_9"
	stored, err := client.UpdateLease(t.Context(), lease)
	require.NoError(t, err)
	assert.Equal(t, "42", stored.ResourceVersion)
	assert.Equal(t, "u-1", sent.UID)
	assert.Equal(t, "41", sent.ResourceVersion)
	assert.Equal(t, "pod-z_9", sent.Holder)
	assert.Equal(t, "41", lease.ResourceVersion, "UpdateLease must not change its argument")
}

func TestLeaseUpdateRequiresUIDAndVersion(t *testing.T) {
	var requests atomic.Int32
	client := newServer(t, func(http.ResponseWriter, *http.Request) { requests.Add(1) }).client(t)
	for _, lease := range []*Lease{
		{Name: "n", ResourceVersion: "1"},
		{Name: "n", UID: "u"},
		{Name: "n"},
	} {
		_, err := client.UpdateLease(t.Context(), lease)
		assert.ErrorIs(t, err, ErrNoUID)
		assert.True(t, Refused(err))
	}
	assert.Zero(t, requests.Load())
}

// A proxy may answer a PUT with an earlier state of the Lease.
func TestEarlierStateIsNoAnswerToLeaseUpdate(t *testing.T) {
	client := serve(t, http.StatusOK, strings.Replace(foreign, `"41"`, `"40"`, 1))
	lease := parse(t, foreign)
	lease.RenewTime = lease.RenewTime.Add(5 * time.Second)
	_, err := client.UpdateLease(t.Context(), lease)
	require.ErrorIs(t, err, ErrMalformed)
	assert.False(t, Refused(err), "the API server may have stored the write")
}

func TestUnstoredLeaseUpdateReturnsAnError(t *testing.T) {
	_, err := serve(t, http.StatusOK, foreign).UpdateLease(t.Context(), parse(t, foreign))
	require.ErrorIs(t, err, ErrUnchanged)
	assert.True(t, Refused(err))
}

func TestWrongLeaseInAnswerNeverMeansRefusedWrite(t *testing.T) {
	answer := replace(t, foreign, `"u-1"`, `"u-2"`, `"41"`, `"42"`)
	_, err := serve(t, http.StatusOK, answer).UpdateLease(t.Context(), parse(t, foreign))
	require.ErrorIs(t, err, ErrMalformed)
	assert.False(t, Refused(err))
}

// A PUT whose answer was lost may have been stored. If the transport repeated that PUT, the
// second one would conflict with the first.
func TestLeaseUpdateWithLostAnswerIsNotRepeated(t *testing.T) {
	var puts atomic.Int32
	client := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, foreign)
			return
		}
		puts.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	}).client(t)
	// The connection serves a GET before the PUT. So the transport could mistake the lost
	// answer for an idle connection that the server has closed, and send the PUT again.
	lease, err := client.GetLease(t.Context(), "biller")
	require.NoError(t, err)
	_, err = client.UpdateLease(t.Context(), lease)
	require.Error(t, err)
	assert.False(t, Refused(err))
	assert.EqualValues(t, 1, puts.Load())
}

func TestTruncatedAnswerNeverMeansARefusedWrite(t *testing.T) {
	client := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, foreign[:100])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}).client(t)
	_, err := client.UpdateLease(t.Context(), parse(t, foreign))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.False(t, Refused(err))
}

func TestHangingRequestBlocksNoOtherRequest(t *testing.T) {
	arrived, proceed := make(chan struct{}), make(chan struct{})
	client := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			_, _ = io.Copy(io.Discard, r.Body)
			close(arrived)
			<-proceed
			return
		}
		_, _ = io.WriteString(w, foreign)
	}).client(t)
	defer close(proceed)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	lease := parse(t, foreign)
	go func() {
		_, err := client.UpdateLease(ctx, lease)
		ended <- err
	}()
	<-arrived
	_, err := client.GetLease(t.Context(), "biller")
	require.NoError(t, err)
	cancel()
	err = <-ended
	require.ErrorIs(t, err, context.Canceled)
	assert.False(t, Refused(err))
	_, err = client.GetLease(t.Context(), "biller")
	require.NoError(t, err)
}

func TestEachStatusCodeBecomesTheMatchingError(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		body    string
		is      error
		refused bool
	}{
		"unauthorized":      {401, `{"kind":"Status","reason":"Unauthorized","message":"Unauthorized","code":401}`, ErrUnauthorized, true},
		"forbidden":         {403, `{"reason":"Forbidden"}`, ErrForbidden, true},
		"not found":         {404, `{"reason":"NotFound"}`, ErrNotFound, true},
		"conflict":          {409, `{"reason":"Conflict"}`, ErrConflict, true},
		"gone":              {410, `{"reason":"Expired"}`, ErrGone, true},
		"too many requests": {429, `{"reason":"TooManyRequests","details":{"retryAfterSeconds":3}}`, ErrTooManyRequests, true},
		"page of a proxy":   {404, `<html>`, nil, true},
		"no body":           {409, ``, ErrConflict, true},
		"huge body":         {403, strings.Repeat("x", maxBody+10), ErrForbidden, true},
		"invalid":           {422, `{"reason":"Invalid"}`, nil, true},
		"request timeout":   {408, ``, nil, false},
		"etcd error":        {500, `{"reason":"InternalError"}`, nil, false},
		"unavailable":       {503, ``, nil, false},
		"timeout of etcd":   {504, `{"reason":"Timeout"}`, nil, false},
		"redirect":          {307, ``, nil, false},
		"not modified":      {304, ``, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := serve(t, c.status, c.body).UpdateLease(t.Context(), parse(t, foreign))
			var status *StatusError
			require.ErrorAs(t, err, &status)
			assert.Equal(t, c.status, status.Code)
			for _, sentinel := range []error{ErrUnauthorized, ErrForbidden, ErrNotFound, ErrConflict, ErrGone, ErrTooManyRequests} {
				assert.Equal(t, errors.Is(sentinel, c.is), status.Is(sentinel), "%v", sentinel)
			}
			assert.Equal(t, c.refused, Refused(err))
		})
	}
}

func TestRetryDelayRequestedByAPIServerIsBounded(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"":                    7 * time.Second,
		"2":                   2 * time.Second,
		"-1":                  0,
		"99999999":            maxRetryAfter,
		"9223372036854775807": maxRetryAfter,
		"Wed, 21 Oct 2026":    7 * time.Second,
	} {
		e := newStatusError(429, text, []byte(`{"message":"`+strings.Repeat("m", 2000)+`","details":{"retryAfterSeconds":7}}`))
		assert.Equal(t, want, e.RetryAfter, "%q", text)
		assert.Len(t, e.Message, maxMessage)
	}
}

func TestAPIClientNeverFollowsRedirects(t *testing.T) {
	var requests atomic.Int32
	client := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}).client(t)
	_, err := client.GetLease(t.Context(), "biller")
	require.Error(t, err)
	assert.EqualValues(t, 1, requests.Load(), "a redirect would leak the token")
}

func TestAPIClientRefusesAnOversizedAnswer(t *testing.T) {
	_, err := serve(t, http.StatusOK, `{"x":"`+strings.Repeat("x", maxBody)+`"}`).GetLease(t.Context(), "biller")
	assert.ErrorIs(t, err, ErrTooLarge)
}

func TestRotatedServiceAccountTokenIsUsedAfter401(t *testing.T) {
	var requests atomic.Int32
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.Header.Get("Authorization") != "Bearer second" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, foreign)
	})
	client := s.client(t)
	_, err := client.GetLease(t.Context(), "biller")
	require.ErrorIs(t, err, ErrUnauthorized)
	assert.EqualValues(t, 1, requests.Load(), "the client repeated the request with the same token")

	write(t, s.token, "second")
	_, err = client.GetLease(t.Context(), "biller")
	require.NoError(t, err)
	assert.EqualValues(t, 3, requests.Load())
}

func TestServiceAccountTokenIsReadOnceAMinute(t *testing.T) {
	file := t.TempDir() + "/token"
	now := time.Now()
	k := token{file: file}
	_, err := k.get(now)
	require.Error(t, err)
	for _, step := range []struct {
		after      time.Duration
		text, want string
	}{
		{0, " one \n", "one"},
		{59 * time.Second, "two", "one"},
		{61 * time.Second, "two", "two"},
		{200 * time.Second, "", "two"}, // the file is incomplete, so the old token still counts
		{261 * time.Second, "three", "three"},
	} {
		write(t, file, step.text)
		got, err := k.get(now.Add(step.after))
		require.NoError(t, err)
		assert.Equal(t, step.want, got, "after %v", step.after)
	}
}

func TestChangedCAIsTrustedWithoutARestart(t *testing.T) {
	ca, first := newCertificate(t)
	newCA, second := newCertificate(t)
	var current atomic.Pointer[tls.Certificate]
	current.Store(&first)
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, foreign) })
	s.TLS.SetSessionTicketKeys([][32]byte{{1}})
	s.TLS.Certificates = nil
	s.TLS.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil }
	write(t, s.ca, ca)
	client := s.client(t)
	_, err := client.GetLease(t.Context(), "biller")
	require.NoError(t, err)

	// Another server process has another certificate, and knows no session of the first process.
	current.Store(&second)
	s.TLS.SetSessionTicketKeys([][32]byte{{2}})
	s.CloseClientConnections()
	client.Close()
	_, err = client.GetLease(t.Context(), "biller")
	var unknown x509.UnknownAuthorityError
	require.ErrorAs(t, err, &unknown)

	write(t, s.ca, "half a file")
	_, err = client.GetLease(t.Context(), "biller")
	require.ErrorAs(t, err, &unknown, "the last valid CA must still count")

	write(t, s.ca, newCA)
	_, err = client.GetLease(t.Context(), "biller")
	require.NoError(t, err)
}

// A full handshake costs an agent about a millisecond. Sixty-four connections of each of many pods
// once took more time than the API server gave the agents for their reads.
func TestNewConnectionsResumeSessionUntilCAChanges(t *testing.T) {
	resumed := make(chan bool, 1)
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		resumed <- r.TLS.DidResume
		_, _ = io.WriteString(w, foreign)
	})
	client := s.client(t)
	connect := func() bool {
		client.Close()
		_, err := client.GetLease(t.Context(), "biller")
		require.NoError(t, err)
		return <-resumed
	}
	assert.False(t, connect())
	assert.True(t, connect(), "the second connection repeats the whole handshake")
	old, err := os.ReadFile(s.ca)
	require.NoError(t, err)
	other, _ := newCertificate(t)
	write(t, s.ca, string(old)+other)
	assert.False(t, connect(), "the connection relies on a check under the earlier CA")
	assert.True(t, connect())
}

// Whoever reads the error must open the way to this address.
func TestUnansweredRequestNamesTheAddressOfTheAPIServer(t *testing.T) {
	s := newServer(t, func(http.ResponseWriter, *http.Request) {})
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	_, err := s.client(t).GetLease(ctx, "biller")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "no answer from "+s.Listener.Addr().String()+": ")
}

func TestAPIClientReportsMissingCredentialsAtFirstCall(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, foreign) })
	token, ca := s.token, s.ca
	s.token, s.ca = token+".later", ca+".later"
	client := s.client(t)
	_, err := client.GetLease(t.Context(), "biller")
	require.ErrorIs(t, err, ErrCredentials)
	require.ErrorContains(t, err, "read token")
	write(t, s.token, "first")
	_, err = client.GetLease(t.Context(), "biller")
	require.ErrorIs(t, err, ErrCredentials)
	require.ErrorContains(t, err, "read CA")
	write(t, s.ca, "no certificate")
	_, err = client.GetLease(t.Context(), "biller")
	require.ErrorContains(t, err, "no certificate")
}

func TestAPIClientRefusesServersBelowTLS12(t *testing.T) {
	s := newServer(t, func(http.ResponseWriter, *http.Request) {})
	s.TLS.MaxVersion = tls.VersionTLS11
	s.TLS.MinVersion = tls.VersionTLS10
	_, err := s.client(t).GetLease(t.Context(), "biller")
	assert.ErrorContains(t, err, "protocol version")
}

func TestPodStatusPatchIsAStrategicMerge(t *testing.T) {
	patch := `{"status":{"conditions":[{"type":"metaparticle.io/ready","status":"True"}]}}`
	client := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		assert.Equal(t, http.MethodPatch, r.Method)
		assert.Equal(t, "/api/v1/namespaces/shop/pods/biller-1/status", r.URL.Path)
		assert.Equal(t, "application/strategic-merge-patch+json", r.Header.Get("Content-Type"))
		assert.Contains(t, r.Header.Get("Accept"), "as=PartialObjectMetadata", "the answer must not contain the whole pod")
		assert.JSONEq(t, patch, string(body))
		_, _ = io.WriteString(w, `{"kind":"Pod","metadata":{"name":"biller-1","resourceVersion":"7"}}`)
	}).client(t)
	pod, err := client.PatchPodStatus(t.Context(), "biller-1", []byte(patch))
	require.NoError(t, err)
	assert.Equal(t, Pod{ResourceVersion: "7"}, pod)
	pod, err = serve(t, 200, `{"metadata":{"resourceVersion":"8","deletionTimestamp":"2026-11-20T21:00:00Z"}}`).
		PatchPodStatus(t.Context(), "p", nil)
	require.NoError(t, err)
	assert.Equal(t, Pod{ResourceVersion: "8", Deleted: true}, pod)
	pod, err = serve(t, 200, `{"metadata":{"resourceVersion":"9","annotations":{"`+api.DeletionCostAnnotation+`":"7"}}}`).
		PatchPodStatus(t.Context(), "p", nil)
	require.NoError(t, err)
	assert.Equal(t, Pod{ResourceVersion: "9", DeletionCost: "7"}, pod)
	_, err = serve(t, 403, "").PatchPodStatus(t.Context(), "p", nil)
	require.ErrorIs(t, err, ErrForbidden)
	_, err = serve(t, 200, `{"kind":"Pod"}`).PatchPodStatus(t.Context(), "p", nil)
	assert.ErrorIs(t, err, ErrMalformed)
}

func TestRefusedRemovalOfDeletionTimestampMeansPodStays(t *testing.T) {
	client := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		assert.Equal(t, "/api/v1/namespaces/shop/pods/biller-1/status", r.URL.Path)
		assert.Equal(t, "application/json-patch+json", r.Header.Get("Content-Type"))
		assert.JSONEq(t, `[{"op":"remove","path":"/metadata/deletionTimestamp"}]`, string(body))
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, `{"kind":"Status","reason":"Invalid","code":422,"message":"the server rejected our request due to an error in our request"}`)
	}).client(t)
	pod, err := client.ReadDeletion(t.Context(), "biller-1")
	require.NoError(t, err)
	assert.Zero(t, pod)
	pod, err = serve(t, 200, `{"metadata":{"resourceVersion":"8","deletionTimestamp":"2026-11-20T21:00:00Z"}}`).ReadDeletion(t.Context(), "p")
	require.NoError(t, err)
	assert.True(t, pod.Deleted)
	_, err = serve(t, 422, "refused by a proxy").ReadDeletion(t.Context(), "p")
	require.Error(t, err, "only the API server's own answer counts")
	_, err = serve(t, 422, `{"kind":"Status","reason":"Invalid","code":422,"message":"pods \"p\" is forbidden: a policy denied request"}`).ReadDeletion(t.Context(), "p")
	require.Error(t, err, "the refusal of a policy tells nothing about the pod")
	_, err = serve(t, 403, "").ReadDeletion(t.Context(), "p")
	assert.ErrorIs(t, err, ErrForbidden)
}

func TestRemainingGraceIsMeasuredByAPIServersClock(t *testing.T) {
	for name, c := range map[string]struct {
		date, deletion string
		want           time.Duration
	}{
		"half of it":                   {"Fri, 20 Nov 2026 20:59:45 GMT", `"deletionTimestamp":"2026-11-20T21:00:00Z","deletionGracePeriodSeconds":30`, 15 * time.Second},
		"none":                         {"Fri, 20 Nov 2026 21:00:01 GMT", `"deletionTimestamp":"2026-11-20T21:00:00Z","deletionGracePeriodSeconds":30`, 0},
		"a server whose clock is late": {"Fri, 20 Nov 2026 20:00:00 GMT", `"deletionTimestamp":"2026-11-20T21:00:00Z","deletionGracePeriodSeconds":30`, 30 * time.Second},
		"no period":                    {"Fri, 20 Nov 2026 20:59:45 GMT", `"deletionTimestamp":"2026-11-20T21:00:00Z"`, 0},
		"no date":                      {"soon", `"deletionTimestamp":"2026-11-20T21:00:00Z","deletionGracePeriodSeconds":30`, 0},
		"not deleted":                  {"Fri, 20 Nov 2026 20:59:45 GMT", `"name":"p"`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			pod, err := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", c.date)
				_, _ = io.WriteString(w, `{"metadata":{"resourceVersion":"8",`+c.deletion+`}}`)
			}).client(t).PatchPodStatus(t.Context(), "p", nil)
			require.NoError(t, err)
			assert.Equal(t, c.want, pod.GraceLeft)
		})
	}
}

func TestEventRefersToThePod(t *testing.T) {
	client := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		assert.Equal(t, http.MethodPost, r.Method)
		assert.Equal(t, "/api/v1/namespaces/shop/events", r.URL.Path)
		assert.JSONEq(t, `{"apiVersion":"v1","kind":"Event",
			"metadata":{"generateName":"biller-1.","namespace":"shop"},
			"involvedObject":{"apiVersion":"v1","kind":"Pod","namespace":"shop","name":"biller-1","uid":"u"},
			"type":"Normal","reason":"Acquired","message":"`+strings.Repeat("m", maxEventMessage)+`",
			"firstTimestamp":"2026-01-02T03:04:05Z","lastTimestamp":"2026-01-02T03:04:05Z","count":1,
			"source":{"component":"metaparticle-agent"},
			"reportingComponent":"metaparticle-agent","reportingInstance":"biller-1"}`, string(body))
		w.WriteHeader(http.StatusCreated)
	}).client(t)
	require.NoError(t, client.CreateEvent(t.Context(), Event{
		PodName: "biller-1", PodUID: "u", Type: Normal, Reason: "Acquired",
		Message: strings.Repeat("m", 2000), Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}))
}

func TestAPIClientRequiresNamespaceAndAddress(t *testing.T) {
	_, err := New(Config{Host: "h", Port: "1"})
	require.Error(t, err)
	_, err = New(Config{Namespace: "n", Port: "1"})
	require.Error(t, err)
	client, err := New(Config{Namespace: "n", Host: "fd00::1", Port: "443"})
	require.NoError(t, err)
	assert.Equal(t, "https://[fd00::1]:443", client.base)
}

func TestAPIClientCutsLongTextsBetweenCharacters(t *testing.T) {
	assert.Equal(t, "aä", cut("aäö", 4))
	assert.Equal(t, "aäö", cut("aäö", 5))
}

func TestMessageOfAnEventIsCutByCharacters(t *testing.T) {
	assert.Equal(t, "aä", leading("aäö", 2))
	assert.Equal(t, "aäö", leading("aäö", 3))
	assert.Empty(t, leading("aäö", 0))
}
