// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package view computes what people see of slots, from Leases, pods and Events: holders,
// standbys with their reasons, and handovers with their causes. The command "kubectl
// metaparticle status" and the console show the same values.
//
// The package does no I/O, and reads no clock. A node or the API server wrote each instant in an
// object. Such an instant tells people when something happened, but decides nothing.
//
// Each text from the cluster is one line of bounded length, because tenants write such texts. An
// instant that JSON cannot express is absent, and so is an Event with a longer message than agents
// write.
//
// The package does not guarantee that each handover is shown. Events get lost, and the API server
// deletes Events after an hour by default. A handover without Events is not shown.
package view
