// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"encoding/json"
	"strings"
)

// recalled returns pods that seem to have passed the webhook before. Each pod has an
// argument of the gate. The decoded argument needs far more memory than the argument's text.
func recalled(bytes int) map[string]string {
	var keys strings.Builder
	for i := 0; keys.Len() < bytes; i++ {
		keys.WriteString(`"` + strings.Repeat("a", i%7) + string(rune('a'+i%26)) + `":{},`)
	}
	shim := func(words ...string) string {
		command, _ := json.Marshal(append(append([]string{"/metaparticle/bin/agent", "exec"}, words...), "--", "app"))
		return claiming(`"containers":[{"name":"a","image":"a","command":` + string(command) + `}]`)
	}
	agent := func(words ...string) string {
		args, _ := json.Marshal(append([]string{"run"}, words...))
		return `{"metadata":{"name":"a","annotations":{"metaparticle.io/lock":"a","metaparticle.io/slots":"lock.a"}},"spec":{` +
			`"initContainers":[{"name":"metaparticle-agent","image":"a","restartPolicy":"Always","args":` + string(args) + `}],` +
			`"containers":[{"name":"a","image":"a","command":["app"]}]}}`
	}
	headers := func(element string) string {
		return `{"httpGet":{"port":1,"httpHeaders":[` + repeated(element, bytes) + `]}}`
	}
	pods := map[string]string{
		"hook":                shim(`-post-start=` + headers("{},")),
		"two hooks":           shim(`-post-start=`+headers("{},"), `-pre-stop=`+headers("{},")),
		"malformed hook":      shim(`-post-start=` + headers("0,")),
		"platforms":           shim(`-platforms={"amd64":{"command":[` + repeated(`"",`, bytes) + `]}}`),
		"malformed platforms": shim(`-platforms={"amd64":{"command":[` + repeated(`0,`, bytes) + `]}}`),
		"probes":              agent(`-probes={"a":{"startup":` + headers("{},") + `}}`),
		"malformed probes":    agent(`-probes={"a":{"startup":` + headers("0,") + `}}`),
		"probes of many":      agent(`-probes={` + strings.TrimSuffix(keys.String(), ",") + `}`),
	}
	pods["escaped commas"] = strings.ReplaceAll(pods["hook"], `{},`, `{}\u002c`)
	pods["escaped dash"] = strings.ReplaceAll(pods["hook"], `"-post`, `"\u002dpost`)
	pods["escaped field"] = strings.ReplaceAll(pods["hook"], `"command"`, `"\u0063ommand"`)
	return pods
}
