package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Existing returns a cluster that runs already: the one of the current context of the kubeconfig, which may name several files as the variable
// KUBECONFIG does. What is returned keeps to that cluster, whatever becomes of the file. Stop leaves the cluster as it is.
func Existing(kubeconfig string) (*Cluster, error) {
	root, err := findRoot()
	if err != nil {
		return nil, err
	}
	kubectl := filepath.Join(root, "bin", "kubectl")
	if _, err := os.Stat(kubectl); err != nil {
		return nil, fmt.Errorf("kubectl is not built (%w): run \"make controlplane\" first", err)
	}
	files := filepath.SplitList(kubeconfig)
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("read the kubeconfig: %w", err)
		}
	}
	raw, err := (&clientcmd.ClientConfigLoadingRules{Precedence: files}).Load()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", kubeconfig, err)
	}
	config := *raw
	if err := errors.Join(clientcmdapi.MinifyConfig(&config), clientcmdapi.FlattenConfig(&config)); err != nil {
		return nil, fmt.Errorf("read the current context of %s: %w", kubeconfig, err)
	}
	dir, err := os.MkdirTemp("", "cofferdam-test-")
	if err != nil {
		return nil, fmt.Errorf("create a folder for the kubeconfig: %w", err)
	}
	c := &Cluster{Root: root, Kubeconfig: filepath.Join(dir, "kubeconfig"), kubectl: kubectl, dir: dir, log: &tail{}}
	if err := clientcmd.WriteToFile(config, c.Kubeconfig); err != nil {
		return nil, errors.Join(fmt.Errorf("write the kubeconfig: %w", err), c.Stop())
	}
	c.RESTConfig, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the current context of %s: %w", kubeconfig, err), c.Stop())
	}
	unlimited(c.RESTConfig)
	return c, nil
}
