// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package reason

// Elsewhere has the reasons of the admission policies and of enroll. The policies refuse in
// the API server's own process, with texts from manifests/policies. A test requires that
// [All] or this list contains each reason in these texts.
var Elsewhere = []Explanation{
	{
		Reason:  "NamespaceNotOptedIn",
		Meaning: "A pod claims a slot in a namespace that has not opted in. The pod would run ungated. For a workload the API server only warns: all its pods run ungated if its pod template lacks the claim. The label alone brings no claim to a pod template, also not when the workload is scaled.",
		Do:      "label the namespace, then restart the workload's rollout (kubectl rollout restart), or write the annotation again (kubectl annotate --overwrite): each such update carries it to the pod template. Create a Job anew. Or remove the claim",
	},
	{
		Reason:  "PrefixMisspelt",
		Meaning: "An annotation resembles an annotation of Metaparticle, and has another prefix. The annotation has no effect. The API server only warns.",
		Do:      "write the prefix as the message says",
	},
	{
		Reason:  "LabelClaimsNothing",
		Meaning: "A label has the prefix of Metaparticle's annotations, and no effect. The API server only warns.",
		Do:      "make the label an annotation; metaparticle.io/injection is a label of a namespace",
	},
	{
		Reason:  "InjectionNotEnabled",
		Meaning: "A label or annotation of a namespace resembles the label by which a namespace opts in, and has no effect. Or the namespace is kube-system or metaparticle-system, in which nothing is ever injected. The API server only warns.",
		Do:      "label the namespace as the message says",
	},
	{
		Reason:  "NotInjected",
		Meaning: "A pod claims a slot and lacks its gate, or a part of it. The webhook's configuration is missing or was changed, or another webhook added the annotation after ours had passed.",
		Do:      "annotate the workload or its template; reinstall if the configuration is gone",
	},
	{
		Reason:  "OptedOut",
		Meaning: "A pod claims a slot and opts out of injection.",
		Do:      "remove one of the two",
	},
	{
		Reason:  "NotCarried",
		Meaning: "A new, changed or removed annotation of a workload has not reached its pod template, because the webhook did not answer. The template's annotations count for the pods.",
		Do:      "try again when the webhook answers, or make the same change in the pod template",
	},
	{
		Reason:  "NotGated",
		Meaning: "An Event, and a warning to the person who labels the namespace: a workload claims a slot, but its pods or its pod template are older than its namespace's opt-in, and its pods run ungated, also those to come.",
		Do:      "restart the workload; of a CronJob, write the annotation again (kubectl annotate --overwrite)",
	},
	{
		Reason:  "TooManySlots",
		Meaning: "An Event: a service account claims more slots in one namespace than its Roles can contain (16,000). Or its pods wait for more Leases than its Role can contain (500). So the slot, or the pod with the condition, waits.",
		Do:      "give workloads service accounts of their own, or delete what is not needed",
	},
	{
		Reason:  "ShardsLackPods",
		Meaning: "An Event: for 5 minutes a workload has had fewer pods that run than shards. The shards without a pod do not run, and all others do.",
		Do:      "scale the workload, or make metaparticle.io/shards smaller",
	},
	{
		Reason:  "EnrollRefused",
		Meaning: "An Event: for 5 seconds the API server has refused a Lease, a Role or another object that enroll writes for the pods of a workload, and the pods wait. The cause is a ResourceQuota, an admission policy or webhook, a missing right of enroll, or an object of somebody else with the same name.",
		Do:      "raise the quota, or exempt what enroll writes: Leases, Roles and RoleBindings with the label metaparticle.io/managed",
	},
	{
		Reason:  "ImageChangedInPlace",
		Meaning: "An update would change the image of a gated or an injected container in an existing pod. Then the old image's command would run in the new image, or no agent would run.",
		Do:      "change the workload's template instead",
	},
	{
		Reason:  "InjectedVolumeMounted",
		Meaning: "An ephemeral container of a gated pod would mount a volume of the agent. With that volume, the container could act as the agent, or use its credentials.",
		Do:      "mount other volumes only; of the agent's volumes, only metaparticle-api may be mounted, and only read-only",
	},
	{
		Reason:  "InjectedContainerTargeted",
		Meaning: "An ephemeral container of a gated pod would share the processes of an injected container. Through these processes, the ephemeral container could act as the agent, or use its credentials.",
		Do:      "target a container of the application instead (kubectl debug --target)",
	},
	{
		Reason:  "MarksForged",
		Meaning: "A pod carries the label metaparticle.io/gated or the annotation metaparticle.io/slots, which give rights, but the webhook has not gated the pod.",
		Do:      "remove both, from the template too; claim a slot instead",
	},
	{
		Reason:  "MarksChanged",
		Meaning: "An update would change the label metaparticle.io/gated or the annotation metaparticle.io/slots of an existing pod. The Leases and rights of the pod's service account depend on them.",
		Do:      "change the workload's claim instead",
	},
	{
		Reason:  "NotYourLock",
		Meaning: "An agent may fence a Variable only by the Lease of a lock or an election that the pods of its service account claim.",
		Do:      "nothing, if it was an agent; otherwise name a lock of the pod's own",
	},
	{
		Reason:  "NotYourIdentity",
		Meaning: "An agent may write only its own identity into a Lease, and remove only its own identity. An agent says one word to the holder of its slot, only in its own name and only on a next Lease, and names its own pod in each write of a Variable.",
		Do:      "nothing, if it was an agent, which stands by; to free a slot yourself, delete the pod that holds it",
	},
	{
		Reason:  "SlotHeld",
		Meaning: "A held Lease cannot be deleted, because the next pod would start beside the holder.",
		Do:      "delete the pod that holds, or wait until the Lease has expired; shorten leaseDurationSeconds in the Lease only if the holder is surely dead",
	},
	{
		Reason:  "WorkDone",
		Meaning: "A Lease with done keys cannot be deleted, because the work of `metaparticle.io/once` would run again.",
		Do:      "nothing; to delete the Lease, first forget each of its keys: kubectl metaparticle forget -n NAMESPACE once/NAME KEY",
	},
	{
		Reason:  "ServiceNotForwarded",
		Meaning: "An Event: a Service sends connections to a port that the standbys of its pods do not forward. The standbys are Ready, and refuse these connections.",
		Do:      "name the port in metaparticle.io/ports, or set metaparticle.io/readiness: holder; if another container of the pod serves the port, declare the port there",
	},
	{
		Reason:  "BarrierOpen",
		Meaning: "A Lease with the record of an open barrier cannot be deleted, because later pods of the Job would wait at a closed barrier. Kubernetes' garbage collector deletes the Lease after the Job.",
		Do:      "nothing, or delete the Job; to close the barrier for later pods, forget its record: kubectl metaparticle forget -n NAMESPACE barrier/NAME.UID.0",
	},
	{
		Reason:  "NotYourself",
		Meaning: "With an agent's rights a pod may change only its own status, and only our parts of the status. Such a pod may report Events only about itself.",
		Do:      "use an account with the right to update pods/status, or to patch Events",
	},
	{
		Reason:  "NoIdentity",
		Meaning: "A client with an agent's rights tried to write a Lease, but its token is bound to no pod. A slot can be held only by a pod.",
		Do:      "use the token that is mounted in the pod, or an account of your own",
	},
	{
		Reason:  "EnrollStamps",
		Meaning: "A client other than enroll tried to write the stamp of a shard's Lease. Another stamp could let pods of two numbers of shards run at once.",
		Do:      "leave the annotation metaparticle.io/stamp as it is, or out of a new Lease: enroll stamps it",
	},
	{
		Reason:  "HoldForged",
		Meaning: "A client other than the holder's pod tried to change the hold or the boot id in the Lease of a slot. After such a change, a living application could count as dead, and two pods could run.",
		Do:      "leave the annotations metaparticle.io/hold and metaparticle.io/boot-id as they are; to free a slot, delete the pod that holds it",
	},
	{
		Reason:  "PersonForged",
		Meaning: "A user tried to hold a slot in another's name: in that of another user, in that of a pod, or a slot that is no lock. Or a user made the Lease of a lock in another form than kubectl metaparticle hold.",
		Do:      "hold the lock in your own name by kubectl metaparticle hold",
	},
	{
		Reason:  "NotYours",
		Meaning: "A client tried to write an object or a field that is not its own. The client has the rights of an agent, or of the webhook's service account. The message names the objects and fields that the client may write. A policy also refuses an agent's write if a webhook of another project adds labels to each updated Lease.",
		Do:      "use an account of your own that has the right to write it; exempt Leases from the other webhook",
	},
	{
		Reason:  "DurationTooLong",
		Meaning: "A client tried to write a duration of more than one hour into a slot's Lease. No client may block a slot for longer.",
		Do:      "write a shorter duration",
	},
	{
		Reason:  "ManagedLabelChanged",
		Meaning: "A client tried to remove or change the label metaparticle.io/managed of a Lease. The policies recognize the Lease of a slot by this label.",
		Do:      "leave the label as it is; a Lease that no pod holds can be deleted",
	},
}
