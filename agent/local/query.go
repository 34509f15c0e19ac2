// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// queryKeys are the keys of all queries of /v1.
var queryKeys = []string{"as", "by", "claims", "fence", "heartbeat", "stream", "type", "wait", "watch"}

// queryProblem returns the problem of a query that is malformed or ambiguous, or has an unknown key. A
// sound query has no problem. Package url drops the malformed parts of a query. A write whose query
// lacks its fence, or spells its name in another way, would be a write without a hold.
func queryProblem(u *url.URL) *problem {
	values, err := url.ParseQuery(u.RawQuery)
	for key, all := range values {
		switch {
		case len(slices.Compact(all)) > 1:
			return unclearProblem
		case strings.HasPrefix(u.Path, "/v1/") && !slices.Contains(queryKeys, key):
			return usageProblem("The query has an unknown key. Use only " + strings.Join(queryKeys, ", ") + ", in small letters.")
		}
	}
	if err != nil {
		return unclearProblem
	}
	return nil
}

var unclearProblem = usageProblem("The query is malformed, or has a key with two values. Send each key once, and encode its value (RFC 3986).")

// flagOf returns the value of a flag in the query, or a problem.
func flagOf(text, name string) (bool, *problem) {
	if text != "" && text != "true" && text != "false" {
		return false, usageProblem("The value of ?" + name + " is neither true nor false. Write one of the two.")
	}
	return text == "true", nil
}

// seconds returns the duration that text states. If text is empty, the result is the default in
// the argument "otherwise". If text is invalid, the second result is the problem.
func seconds(text string, otherwise time.Duration, name string) (time.Duration, *problem) {
	if text == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > 24*time.Hour {
		return 0, usageProblem("The value of ?" + name + " is no duration between 0s and 24h. Write 30s or 5m.")
	}
	return d, nil
}

// writesAs reports whether the text, the value of ?as, asks for a read-write lock as its writer. If
// the claim does not permit the text, the second result is the problem.
func writesAs(of api.Claim, text string) (bool, *problem) {
	switch {
	case of.Kind != api.RWLock && text != "":
		return false, usageProblem("Only a read-write lock (rwlock) takes ?as. Leave it out.")
	case of.Kind == api.RWLock && mode(text) != asReader && mode(text) != asWriter:
		return false, usageProblem("A read-write lock has readers and a writer. Add ?as=reader or ?as=writer.")
	}
	return mode(text) == asWriter, nil
}

// leastBeats and mostBeats bound the time between two heartbeats. A heartbeat causes no request
// to the API server, so heartbeats may be frequent. But the agent renews the hold of a dead program
// until a heartbeat is overdue, so heartbeats must not be rare.
const (
	leastBeats = time.Second
	mostBeats  = 5 * time.Minute
)

// timesOf returns the longest wait of the bid, and the longest time between two heartbeats.
func timesOf(query url.Values) (wait, every time.Duration, p *problem) {
	wait, first := seconds(query.Get("wait"), 0, "wait")
	every, second := seconds(query.Get("heartbeat"), defaultBeats, "heartbeat")
	if p = cmp.Or(first, second); p == nil && (every < leastBeats || every > mostBeats) {
		p = usageProblem("The value of ?heartbeat is not between 1s and 5m. Write 30s or 1m.")
	}
	return wait, every, p
}
