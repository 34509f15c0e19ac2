// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"maps"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// Apart warns of a new Job that was probably made from a CronJob and does not name the CronJob, so that
// its pods do not compete with the CronJob's runs. The Job may have the mark of such a Job, or look like
// one: its claim is only in its template, as in a copied template, and either equals that of a CronJob,
// or the CronJob has no annotation and the Job's name begins with the CronJob's. The argument "cronJobs"
// returns the CronJobs of the namespace; nil if they are not known.
func Apart(raw []byte, cronJobs func() []metav1.ObjectMeta) reason.Refusals {
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
	if err := json.Unmarshal(raw, &job); err != nil || podspec.Above("Job", &job) != nil {
		return nil //nolint:nilerr // Carry reports the error
	}
	template := job.Spec.Template.Metadata.Annotations
	request, err := api.Parse(api.Effective(job.Annotations, template))
	if _, own := request.Within(api.ScopeWorkload); err != nil || !own {
		return nil //nolint:nilerr // Carry reports the mistakes
	}
	var warnings reason.Refusals
	if _, marked := job.Annotations[api.InstantiateAnnotation]; marked {
		warnings.Add(reason.OwnSlot, "the Job has %s, and names no CronJob as its owner", api.InstantiateAnnotation)
		return warnings
	}
	if cronJobs == nil || len(declared(job.Annotations)) > 0 {
		return nil
	}
	ours, name := declared(template), job.Name
	if name == "" {
		name = job.GenerateName
	}
	for _, c := range cronJobs() {
		has := declared(c.Annotations)
		equal := len(has) > 0 && maps.Equal(has, ours)
		if equal || len(has) == 0 && strings.HasPrefix(name, c.Name+"-") {
			warnings.Add(reason.OwnSlot, "the Job looks like a run of CronJob %q, and does not name it as its owner", c.Name)
			return warnings
		}
	}
	return nil
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
