// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/recipes"
)

func newRecipeCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "recipe", Short: "Show the built-in recipes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cli.Usage(cmd, fmt.Errorf("no command given")) }}
	cmd.AddCommand(newRecipeLsCmd(a), newRecipeShowCmd(a))
	for _, c := range cmd.Commands() {
		c.Args = cli.UsageArgs(c.Args)
	}
	return cmd
}

func newRecipeLsCmd(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{Use: "ls", Short: "List the built-in recipes", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := cli.CheckFormat(format); err != nil {
				return err
			}
			type row struct {
				Name        string          `json:"name"`
				Target      manifest.Target `json:"target"`
				Description string          `json:"description"`
			}
			var rows []row
			for _, name := range recipes.Names() {
				r, err := recipes.Open(name)
				if err != nil {
					return err
				}
				rows = append(rows, row{r.Name, r.Target, r.Description})
			}
			if format == "json" {
				return a.PrintJSON(rows)
			}
			w := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tTARGET\tDESCRIPTION")
			for _, r := range rows {
				fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, r.Target, r.Description)
			}
			return w.Flush()
		}}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

func newRecipeShowCmd(a *app) *cobra.Command {
	return &cobra.Command{Use: "show RECIPE", Short: "Print a recipe, to read or to start your own from", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := recipes.Open(args[0])
			if err != nil {
				return err
			}
			_, err = a.Stdout.Write(r.Source)
			return err
		}}
}
