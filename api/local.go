// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// LocalPort is the port of the local API, on the addresses 127.0.0.1 and ::1 of the pod.
const LocalPort = 13131

// maxLocal bounds the number of claims that one pod can make by the local API.
const maxLocal = 8

// maxLocalText bounds the text of all claims by the local API. The policy on gates has the
// same bound. The longest possible text of [maxLocal] claims is shorter.
const maxLocalText = 4096

// localKind returns the kind that the word names in the local API; nil if the word names no kind.
func localKind(word string) *Kind {
	i := slices.IndexFunc(kinds, func(k *Kind) bool { return k.Word == word && word != "" })
	if i < 0 {
		return nil
	}
	return kinds[i]
}

// localForms returns how a person writes the claims of the local API.
func localForms() (forms []string) {
	for _, k := range kinds {
		switch {
		case k.Word == "":
		case k.Sized:
			forms = append(forms, k.Word+"/NAME=SIZE")
		default:
			forms = append(forms, k.Word+"/NAME")
		}
	}
	return forms
}

// LocalText returns the text of a claim by the local API, as a person writes it.
func (c Claim) LocalText() string {
	text := c.Kind.Word + "/" + c.Name
	if c.Kind.Sized {
		text += "=" + strconv.Itoa(c.Size)
	}
	return text
}

// parseLocal reads the text of [Claim.LocalText], or says what is wrong with the text.
func parseLocal(text string) (Claim, string) {
	word, name, _ := strings.Cut(text, "/")
	kind := localKind(word)
	switch kind {
	case nil:
		forms := localForms()
		last := len(forms) - 1
		return Claim{}, fmt.Sprintf("%q is no claim of the local API: write %s or %s", brief(text), strings.Join(forms[:last], ", "), forms[last])
	case Election:
		if !isElectionSlot(ElectionLease(name)) {
			return Claim{}, fmt.Sprintf("%q needs a name of lower-case letters, digits, dashes and dots, with a letter or digit at both ends", brief(text))
		}
		return Claim{Kind: kind, Name: name, Size: 1}, ""
	}
	claims, problem := kind.claims(name)
	switch {
	case problem != "":
		return Claim{}, fmt.Sprintf("%q: %s", brief(text), problem)
	case claims[0].LocalText() != text:
		return Claim{}, fmt.Sprintf("%q: write %s", brief(text), brief(claims[0].LocalText()))
	}
	return claims[0], ""
}

// parseLocals reads the claims of the local API, which are separated by commas. The second result
// is the problem with the value; empty for none.
func parseLocals(value string) ([]Claim, string) {
	if len(value) > maxLocalText {
		return nil, fmt.Sprintf("write at most %d characters", maxLocalText)
	}
	texts, problem := list(value, "claim", func(text string) string {
		_, problem := parseLocal(text)
		return problem
	})
	switch {
	case problem != "":
		return nil, problem
	case len(texts) > maxLocal:
		return nil, fmt.Sprintf("name at most %d claims", maxLocal)
	}
	var claims []Claim
	for _, text := range texts {
		c, _ := parseLocal(text)
		for _, other := range claims {
			if other.Kind == c.Kind && other.Name == c.Name {
				return nil, fmt.Sprintf("%s and %s are one claim with two sizes: remove one of the two", other.LocalText(), c.LocalText())
			}
		}
		claims = append(claims, c)
	}
	return claims, ""
}

// Leashed reports whether shims kill the programs of the pod when a hold of the local API is lost.
func Leashed(r Request) bool { return r.Gate == GateProgram && r.OnAPILoss == OnAPILossKill }

// HasShims reports whether containers of the pod start through shims. If not, the containers keep
// their commands.
func HasShims(r Request) bool { return r.Shims() || Leashed(r) }

// LocalArgs are the arguments of the agent's sidecar in a pod whose program uses the local
// API. The webhook writes all of them except RunDir, Install and Credentials, which only tests set.
type LocalArgs struct {
	// Claims are the claims that the program may make.
	Claims []Claim
	// Run is the UID of the pod's Job, if a claim names a barrier; empty for other pods.
	Run           string
	LeaseDuration time.Duration
	// OwnKernel reports that the pod may run in a virtual machine of its own. A changed boot id
	// then does not prove that an earlier program is dead.
	OwnKernel bool
	// Containers are the containers whose shims kill the programs when a hold is lost; empty if
	// no shim does so.
	Containers []string
	// Port is the port of the local API. Port is zero if the pod is on the node's network, because
	// such a pod serves the local API only at a socket.
	Port int
	// Socket is the path of the local API's socket; empty for none.
	Socket string
	// RunDir is the directory of the shims' socket. Install is the path to which the agent copies
	// the program of the shims. Both have no meaning without Containers.
	RunDir, Install string
	// Credentials is the directory of the service account token and the cluster's CA.
	Credentials string
}

// DefaultLocalArgs returns the arguments with the default value of each.
func DefaultLocalArgs() LocalArgs {
	return LocalArgs{
		LeaseDuration: DefaultLeaseDuration, Port: LocalPort, RunDir: RunPath, Install: ShimProgram, Credentials: CredentialsPath,
	}
}

var localArguments = arguments[LocalArgs]{
	{
		name: "claims", meaning: "what the program may ask for, comma-separated: " + strings.Join(localForms(), ", "),
		text: func(of LocalArgs) string { return localTexts(of.Claims) },
		read: func(into *LocalArgs, value string) error {
			claims, problem := parseLocals(value)
			if problem != "" {
				return fmt.Errorf("claims: %s", problem)
			}
			into.Claims = claims
			return nil
		},
	},
	textArg("run", "the UID of the pod's Job, if a claim names a barrier", func(r *LocalArgs) *string { return &r.Run }).
		written(func(r LocalArgs) bool { return r.Run != "" }),
	durationArg("lease-duration", "how long a holder that vanished blocks the others",
		func(r *LocalArgs) *time.Duration { return &r.LeaseDuration }),
	optionArg("own-kernel", "the pod may run in a virtual machine of its own: another boot id proves nothing",
		func(r *LocalArgs) *bool { return &r.OwnKernel }),
	namesArg("containers", "the containers whose shims kill the programs when a hold is lost, comma-separated",
		func(r *LocalArgs) *[]string { return &r.Containers }).written(func(r LocalArgs) bool { return len(r.Containers) > 0 }),
	{
		name: "port", meaning: "the port of the local API, on the pod's own addresses for local traffic; 0 for none",
		where: func(r LocalArgs) bool { return r.Port != LocalPort },
		text:  func(r LocalArgs) string { return strconv.Itoa(r.Port) },
		read: func(r *LocalArgs, value string) error {
			port, err := strconv.ParseUint(value, 10, 16)
			if err == nil {
				r.Port = int(port)
			}
			return err
		},
	},
	textArg("socket", "the path of the local API's socket", func(r *LocalArgs) *string { return &r.Socket }).
		written(func(r LocalArgs) bool { return r.Socket != "" }),
	textArg("run-dir", "directory of the shims' socket", func(r *LocalArgs) *string { return &r.RunDir }).
		written(func(r LocalArgs) bool { return r.RunDir != RunPath }),
	textArg("install", "path to which the agent copies the program of the shims", func(r *LocalArgs) *string { return &r.Install }).
		written(func(r LocalArgs) bool { return r.Install != ShimProgram }),
	textArg("credentials", "directory of the service account token and the cluster's CA", func(r *LocalArgs) *string { return &r.Credentials }).
		written(func(r LocalArgs) bool { return r.Credentials != CredentialsPath }),
}

func localTexts(claims []Claim) string {
	var texts []string
	for _, c := range claims {
		texts = append(texts, c.LocalText())
	}
	return strings.Join(texts, ",")
}

// Args returns the words of the container [AgentContainer], as a pod's spec has them.
func (a LocalArgs) Args() []string {
	return append([]string{LocalRole}, localArguments.words(a)...)
}

// Barriers returns, for each barrier that the claims name, the arguments of an init container for
// that barrier. A pod that arrives by the local API uses the same Leases as such a container.
func (a LocalArgs) Barriers() (all []BarrierArgs) {
	for _, b := range BarriersOf(a.Claims) {
		all = append(all, BarrierArgs{Barrier: b, Run: a.Run, LeaseDuration: a.LeaseDuration, Credentials: a.Credentials})
	}
	return all
}

// lacksRun reports whether a claim names a barrier, but Run is missing or malformed.
func (a LocalArgs) lacksRun() bool {
	return slices.ContainsFunc(a.Barriers(), func(b BarrierArgs) bool { return len(b.Leases()) == 0 })
}

// IsLocal reports whether the arguments of the container [AgentContainer] select the role
// that serves the local API.
func IsLocal(args []string) bool { return len(args) > 0 && args[0] == LocalRole }

// RecallLocalArgs reads the arguments back from the words of [LocalArgs.Args]. For any
// other words, the result has no claims.
func RecallLocalArgs(words []string) LocalArgs {
	a := DefaultLocalArgs()
	if IsLocal(words) {
		localArguments.recall(&a, words[1:])
	}
	return a
}

// ParseLocalArgs reads the words that follow the role.
func ParseLocalArgs(words []string) (LocalArgs, error) {
	a := DefaultLocalArgs()
	rest, err := localArguments.parse(LocalRole, &a, words)
	switch {
	case err != nil:
	case len(rest) > 0:
		err = fmt.Errorf("agent %s: unexpected arguments %q", LocalRole, rest)
	case len(a.Claims) == 0:
		err = fmt.Errorf("agent %s: no -claims", LocalRole)
	case a.lacksRun():
		err = fmt.Errorf("agent %s: a barrier needs -run", LocalRole)
	case a.Port == 0 && a.Socket == "":
		err = fmt.Errorf("agent %s: neither -port nor -socket", LocalRole)
	}
	return a, err
}
