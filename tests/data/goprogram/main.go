// A small operator: references as real ones hold them, among what only looks like them.
//
// Go's linker packs all constants of one length together, without anything in between.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
)

const (
	initImage     = "alpine:3.10"
	deliveryImage = "ghcr.io/acme/delivery:latest"
	viewerName    = "ghcr.io/acme/viewer"
	cacheImage    = "quay.io/acme/cache-server@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

// Of one length with initImage and deliveryImage, so that they stand beside them.
var neighbours = []string{
	"quay.io/abc", "rest-client", "group/v1:x1", "10.96.0.1:1", "namespace.a",
	"https://example.net/releases/v1", "example.net/controllers/finaliz", "text/html; charset=utf-8; q=0.8",
}

type options struct {
	image, delivery, server, fallback string
}

func tag() string {
	if len(os.Args) > 7 {
		return os.Args[7]
	}
	return "1.2.3"
}

func read(o *options) {
	flag.StringVar(&o.image, "init-container-image", initImage, "The image that waits")
	flag.StringVar(&o.delivery, "delivery-image", deliveryImage, "The image that delivers")
	flag.Parse()
	o.server = os.Getenv("SERVER_IMAGE")
	if o.server == "" {
		o.server = "filebrowser/filebrowser:latest"
	}
	o.fallback = fmt.Sprintf("quay.io/acme/executor:%s", tag())
}

const template = `apiVersion: v1
kind: Pod
spec:
  containers:
  - name: main
    image: registry.acme.dev/team/templated:4.5.6
  - name: made-up
    image: {{ .Image }}
`

func main() {
	var o options
	read(&o)
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, strings.Join(neighbours, " "), viewerName+":"+tag(), cacheImage, template)
	})
	fmt.Println(o, http.ListenAndServe("localhost:8080", nil))
}
