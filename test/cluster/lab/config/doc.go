// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package config renders the configuration files and manifests of the cluster from
// templates in this package.
package config
