// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package reason names the reasons of all refusals and warnings of the webhook.
//
// Guarantee: each refusal and each warning begins with a reason from [All], and ends
// with an instruction. Each of these texts is short, whatever the object contains: objects
// arrive before the API server has validated them.
package reason

import (
	"strings"

	"github.com/metaparticle-io/metaparticle/api"
)

// Reason names the cause of a refusal or a warning. Warnings, errors, Events and metrics
// use the same name for one cause. [All] lists all reasons of the webhook.
type Reason string

// These are the reasons of the webhook.
const (
	BadAnnotation     Reason = "BadAnnotation"
	HostNetwork       Reason = "HostNetwork"
	LocalAPIOnNode    Reason = "LocalAPIOnNode"
	SharedProcesses   Reason = "SharedProcesses"
	Windows           Reason = "Windows"
	Probes            Reason = "Probes"
	Hooks             Reason = "Hooks"
	InitContainer     Reason = "InitContainer"
	ContainerLimit    Reason = "ContainerLimit"
	UnknownContainer  Reason = "UnknownContainer"
	NameTaken         Reason = "NameTaken"
	MountTaken        Reason = "MountTaken"
	PortTaken         Reason = "PortTaken"
	ImageUnreadable   Reason = "ImageUnreadable"
	ImagePlatforms    Reason = "ImagePlatforms"
	NoCommand         Reason = "NoCommand"
	NeedsPID1         Reason = "NeedsPID1"
	KubernetesTooOld  Reason = "KubernetesTooOld"
	NeverRestarted    Reason = "NeverRestarted"
	RestartRule       Reason = "RestartRule"
	NeverEnds         Reason = "NeverEnds"
	OnceRestarts      Reason = "OnceRestarts"
	OnceContainers    Reason = "OnceContainers"
	OnceIndexed       Reason = "OnceIndexed"
	NoRevision        Reason = "NoRevision"
	NoProbe           Reason = "NoProbe"
	NoReadinessProbe  Reason = "NoReadinessProbe"
	NoHandover        Reason = "NoHandover"
	NoStandby         Reason = "NoStandby"
	NobodyPreferred   Reason = "NobodyPreferred"
	HurriedRollout    Reason = "HurriedRollout"
	NoFailsafe        Reason = "NoFailsafe"
	NobodySupports    Reason = "NobodySupports"
	SlowTakeover      Reason = "SlowTakeover"
	ShardsEnd         Reason = "ShardsEnd"
	ShardsLeft        Reason = "ShardsLeft"
	ShardsAlone       Reason = "ShardsAlone"
	FewerPods         Reason = "FewerPods"
	AfterItself       Reason = "AfterItself"
	BarrierNeedsJob   Reason = "BarrierNeedsJob"
	BarrierNeverOpens Reason = "BarrierNeverOpens"
	PodWithoutName    Reason = "PodWithoutName"
	WorkloadUnknown   Reason = "WorkloadUnknown"
	BadOwner          Reason = "BadOwner"
	StaticPod         Reason = "StaticPod"
	Leftover          Reason = "Leftover"
	LossFails         Reason = "LossFails"
	OwnSlot           Reason = "OwnSlot"
	NoEffectHere      Reason = "NoEffectHere"
	JobImmutable      Reason = "JobImmutable"
	TemplateDiffers   Reason = "TemplateDiffers"
	RolloutStalls     Reason = "RolloutStalls"
	VolumeOnOneNode   Reason = "VolumeOnOneNode"
	ClaimChanged      Reason = "ClaimChanged"
	OnceWritesPod     Reason = "OnceWritesPod"
	TokenInReach      Reason = "TokenInReach"
	WaitingCounts     Reason = "WaitingCounts"
	MarksKept         Reason = "MarksKept"
	ImageRestored     Reason = "ImageRestored"
	AgentDoesNotFit   Reason = "AgentDoesNotFit"
	NamesPID1         Reason = "NamesPID1"
	AddressShared     Reason = "AddressShared"
	PortNotForwarded  Reason = "PortNotForwarded"
	MetricsForwarded  Reason = "MetricsForwarded"
)

// Explanation tells people the meaning of a reason, and what to do about it.
type Explanation struct {
	Reason  Reason
	Meaning string
	Do      string
	// See is a further page to read, as a link from the page of reasons.
	See string
	// WarnOnly is true for a reason that never refuses an object.
	WarnOnly bool
}

// page explains all reasons. A reason has the heading with its name there.
const page = api.Repository + "docs/troubleshoot/reasons.md"

// Link returns the address of the explanation of a reason. The messages of the webhook and of the policies end with it.
func Link(r Reason) string { return page + "#" + strings.ToLower(string(r)) }
