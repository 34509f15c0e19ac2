// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package apps makes ordinary images of ordinary software. The software comes from Debian packages.
// Users, configuration and entrypoints are those of distributions and official images. Nothing in
// the images refers to Metaparticle.
package apps

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

//go:embed files
var files embed.FS

type recipe struct {
	packages []string
	config   oci.Config
}

var recipes = map[string]recipe{
	"nginx": {[]string{"nginx"}, oci.Config{
		Entrypoint: []string{"nginx", "-g", "daemon off;"},
		Ports:      []string{"80/tcp"},
		StopSignal: "SIGQUIT", // a graceful stop, as in the official image
	}},
	"redis": {[]string{"redis-server"}, oci.Config{
		Entrypoint: []string{"redis-server"},
		Cmd:        []string{"--protected-mode", "no", "--save", "", "--appendonly", "yes", "--appendfsync", "always"},
		User:       "redis", WorkingDir: "/var/lib/redis", Ports: []string{"6379/tcp"},
	}},
	"redis-gosu": {[]string{"gosu", "redis-server"}, oci.Config{
		Entrypoint: []string{"docker-entrypoint"},
		Cmd:        []string{"redis-server", "--protected-mode", "no", "--save", ""},
		Ports:      []string{"6379/tcp"},
	}},
	"postgresql": {[]string{"postgresql-15"}, oci.Config{
		Entrypoint: []string{"docker-entrypoint"},
		Cmd:        []string{"postgres", "-c", "listen_addresses=*", "-c", "unix_socket_directories=/tmp"},
		Env: []string{
			"PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"PGDATA=/var/lib/postgresql/data/pgdata", "PGHOST=/tmp",
		},
		// Like most charts, this image runs PostgreSQL without root.
		User: "postgres", Ports: []string{"5432/tcp"},
		StopSignal: "SIGINT", // a fast shutdown, as in the official image
	}},
	"gunicorn": {[]string{"gunicorn"}, oci.Config{
		Entrypoint: []string{"gunicorn"},
		Cmd:        []string{"--bind", "0.0.0.0:8000", "--workers", "3", "shop:app"},
		Env:        []string{"PYTHONDONTWRITEBYTECODE=1"},
		User:       "nobody", WorkingDir: "/srv", Ports: []string{"8000/tcp"},
	}},
	"tomcat": {[]string{"tomcat10"}, oci.Config{
		Entrypoint: []string{"/usr/libexec/tomcat10/tomcat-start.sh"},
		Env: []string{"CATALINA_HOME=/usr/share/tomcat10", "CATALINA_BASE=/var/lib/tomcat10",
			"CATALINA_TMPDIR=/tmp", "CATALINA_OPTS=-Xmx128m"},
		User: "tomcat", Ports: []string{"8080/tcp"},
	}},
	"prometheus": {[]string{"prometheus"}, oci.Config{
		Entrypoint: []string{"prometheus"},
		User:       "prometheus", WorkingDir: "/tmp", Ports: []string{"9090/tcp"},
	}},
	"cron":   {[]string{"cron"}, oci.Config{Entrypoint: []string{"cron", "-f"}}},
	"script": {nil, oci.Config{Entrypoint: []string{"worker"}}},
}

// Names returns the names of all images.
func Names() []string { return slices.Sorted(maps.Keys(recipes)) }

// Image makes the image with the given name, which must be one of [Names].
func Image(ctx context.Context, name string, compressed oci.Compression) (v1.Image, error) {
	r, ok := recipes[name]
	if !ok {
		return nil, fmt.Errorf("no app %q, but %s", name, strings.Join(Names(), ", "))
	}
	if own, err := fs.Sub(files, "files/"+name); err != nil {
		return nil, err
	} else if _, err := fs.Stat(own, "."); err == nil {
		r.config.Files = own
	}
	return oci.Debian(ctx, r.packages, r.config, compressed)
}
