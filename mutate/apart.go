// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"cmp"
	"maps"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// Apart warns of a new workload whose pods have a slot of their own, though other pods may have to
// compete for it ([feature.Apart]): its name is new in each run, or it is a Job that was made from a
// CronJob and does not name the CronJob. A Job may also look like such a one: its claim is only in its
// template, as in a copied template, and either equals that of a CronJob, or the CronJob has no
// annotation and the Job's name begins with the CronJob's. The argument "cronJobs" returns the CronJobs
// of the namespace; nil if they are not known.
func Apart(kind string, raw []byte, cronJobs func() []metav1.ObjectMeta) reason.Refusals {
	var job struct {
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			Template struct {
				Metadata struct {
					Annotations map[string]string `json:"annotations"`
				} `json:"metadata"`
			} `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(raw, &job); err != nil || metav1.GetControllerOfNoCopy(&job) != nil || podspec.Above(kind, &job) != nil {
		return nil //nolint:nilerr // Carry reports the error
	}
	template := job.Spec.Template.Metadata.Annotations
	request, err := api.Parse(api.Effective(job.Annotations, template))
	if err != nil || !feature.OwnSlot(request) {
		return nil //nolint:nilerr // Carry reports the mistakes
	}
	var warnings reason.Refusals
	_, marked := job.Annotations[api.InstantiateAnnotation]
	if kind == "Job" && !marked && cronJobs != nil && len(declared(job.Annotations)) == 0 {
		if like := lookalike(cronJobs(), declared(template), cmp.Or(job.Name, job.GenerateName)); like != "" {
			warnings.Add(reason.OwnSlot, "the Job looks like a run of CronJob %q, and does not name it as its owner", like)
			return warnings
		}
	}
	if why := feature.Apart(kind, job.ObjectMeta); why != "" {
		warnings.Add(reason.OwnSlot, "%s", why)
	}
	return warnings
}

// lookalike returns the name of a CronJob whose runs look like a Job; empty for none.
func lookalike(cronJobs []metav1.ObjectMeta, ours map[string]string, name string) string {
	for _, c := range cronJobs {
		has := declared(c.Annotations)
		equal := len(has) > 0 && maps.Equal(has, ours)
		if equal || len(has) == 0 && strings.HasPrefix(name, c.Name+"-") {
			return c.Name
		}
	}
	return ""
}

// declared returns the annotations that the webhook would carry from a workload to its template.
func declared(annotations map[string]string) map[string]string {
	ours := map[string]string{}
	for key, value := range annotations {
		if api.Carried(key) {
			ours[key] = value
		}
	}
	return ours
}
