// Command kubectl-incident is x.
package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

func main() { fmt.Println(genericclioptions.NewConfigFlags(true), &cobra.Command{}) }
