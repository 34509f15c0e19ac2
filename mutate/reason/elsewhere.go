// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package reason

// Elsewhere holds the reasons of the admission policies and of enroll. The policies refuse
// in the API server's own process. manifests/policies has their texts, and a test compares
// both.
var Elsewhere = []Explanation{
	{
		Reason:  "NamespaceNotOptedIn",
		Meaning: "A pod claims a slot in a namespace in which nothing is injected; it would run ungated.",
		Do:      "label the namespace, or remove the claim",
	},
	{
		Reason:  "NotInjected",
		Meaning: "A pod claims a slot and has no gate, or lacks a part of it: the webhook's configuration is missing or was changed, or another webhook added the annotation after ours had passed.",
		Do:      "annotate the workload or its template; reinstall if the configuration is gone",
	},
	{
		Reason:  "OptedOut",
		Meaning: "A pod claims a slot and opts out of injection.",
		Do:      "remove one of the two",
	},
	{
		Reason:  "NotCarried",
		Meaning: "An annotation of a workload, put on, changed or taken off, has not reached its pod template, because the webhook did not answer. The pods go by the template.",
		Do:      "try again when the webhook answers, or make the same change in the pod template",
	},
	{
		Reason:  "NotGated",
		Meaning: "An Event: a workload claims a slot, but its pods are from before its namespace was opted in and run ungated.",
		Do:      "restart the workload",
	},
	{
		Reason:  "TooManySlots",
		Meaning: "An Event: a service account claims more slots in one namespace (16,000) than its Roles have room for; the slot waits.",
		Do:      "give workloads service accounts of their own, or delete what is not needed",
	},
	{
		Reason:  "ImageChangedInPlace",
		Meaning: "The image of a gated or an injected container was to change in a pod that exists; the old image's command would run in the new one, or no agent would.",
		Do:      "change the workload's template instead",
	},
	{
		Reason:  "MarksForged",
		Meaning: "A pod carries the label metaparticle.io/gated or the annotation metaparticle.io/slots, by which rights are given, and was not gated by the webhook.",
		Do:      "remove both, from the template too; claim a slot instead",
	},
	{
		Reason:  "MarksChanged",
		Meaning: "The label metaparticle.io/gated or the annotation metaparticle.io/slots of a pod that exists was to change; the Leases and rights of its service account hang on them.",
		Do:      "change the workload's claim instead",
	},
	{
		Reason:  "NotYourIdentity",
		Meaning: "An agent may write only its own identity into a Lease, and take only its own out.",
		Do:      "nothing, if it was an agent, which stands by; to free a slot yourself, delete the pod that holds it",
	},
	{
		Reason:  "SlotHeld",
		Meaning: "A Lease that somebody holds is not deleted: the next pod would start beside the holder.",
		Do:      "delete the pod that holds, or wait until the lease has run out; shorten leaseDurationSeconds in the Lease if that is too long",
	},
	{
		Reason:  "NotYourself",
		Meaning: "With an agent's rights a pod changes only its own status, and of it only the parts that are ours.",
		Do:      "use an account with the right to update pods/status",
	},
	{
		Reason:  "NoIdentity",
		Meaning: "A Lease was to be written with an agent's rights, but by a token that is bound to no pod, while a slot is held by a pod.",
		Do:      "use the token that is mounted in the pod, or an account of your own",
	},
	{
		Reason:  "NotYours",
		Meaning: "With the rights of an agent, or of the webhook's service account, something was to be written that is not theirs; the message says what is.",
		Do:      "use an account of your own that has the right to write it",
	},
	{
		Reason:  "DurationTooLong",
		Meaning: "A slot's Lease was to be written with a duration of more than one hour, for which nobody may block a slot.",
		Do:      "write a shorter duration",
	},
}
