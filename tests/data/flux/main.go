// What Flux makes of an artifact, by Flux's own packages.
//
//	flux pull URL DIR                  what its client for artifacts pulls
//	flux ignore DIR RULES              what source-controller leaves of that, by spec.ignore
//	flux build DIR KUSTOMIZATION.json  what kustomize-controller applies of what is left
//	flux health EXPRESSION OBJECT.json what spec.healthCheckExprs makes of an object
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	apis "github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/kustomize"
	"github.com/fluxcd/pkg/oci"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/fluxcd/pkg/sourceignore"
	"github.com/google/go-containerregistry/pkg/crane"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func main() {
	commands := map[string]func(string, string) error{
		"pull": pull, "ignore": ignore, "build": build, "health": health,
	}
	if err := commands[os.Args[1]](os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func pull(url, folder string) error {
	client := oci.NewClient([]crane.Option{crane.Insecure})
	_, err := client.Pull(context.Background(), url, folder)
	return err
}

// As source-controller does when it archives what it has pulled.
func ignore(root, rules string) error {
	domain := strings.Split(root, string(filepath.Separator))
	patterns, err := sourceignore.LoadIgnorePatterns(root, domain)
	if err != nil {
		return err
	}
	patterns = append(patterns, sourceignore.ReadPatterns(strings.NewReader(rules), domain)...)
	matcher := sourceignore.NewDefaultMatcher(patterns, domain)
	return filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		if matcher.Match(strings.Split(path, string(filepath.Separator)), false) {
			return os.Remove(path)
		}
		return nil
	})
}

// As kustomize-controller's `generate` and `build`.
func build(root, kustomization string) error {
	object, err := read(kustomization)
	if err != nil {
		return err
	}
	path, _, err := unstructured.NestedString(object.Object, "spec", "path")
	if err != nil {
		return err
	}
	folder := filepath.Join(root, path)
	if _, err := kustomize.NewGenerator(root, object).WriteFile(folder); err != nil {
		return err
	}
	resources, err := kustomize.SecureBuild(root, folder, false)
	if err != nil {
		return err
	}
	out, err := resources.AsYaml()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(out)
	return err
}

func health(current, file string) error {
	object, err := read(file)
	if err != nil {
		return err
	}
	evaluator, err := cel.NewStatusEvaluator(&apis.HealthCheckExpressions{Current: current})
	if err != nil {
		return err
	}
	result, err := evaluator.Evaluate(context.Background(), &object)
	if err != nil {
		return err
	}
	fmt.Println(result.Status)
	return nil
}

func read(file string) (unstructured.Unstructured, error) {
	object := unstructured.Unstructured{}
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &object.Object)
	}
	return object, err
}
