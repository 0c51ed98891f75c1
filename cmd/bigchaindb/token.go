package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/couchledger/couchledger/configs"
	"github.com/couchledger/couchledger/httpapi"
)

// tokenCommand makes a token for the API.
func (a *app) tokenCommand() *cobra.Command {
	var may []string
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Make a token for the API, and its entry for server.tokens",
		Long: `Make a token for the API. The token goes to stdout, once: it is kept nowhere,
and cannot be found out from its entry. The entry for server.tokens goes to
stderr; put it into the config file or the environment of the node, and start
the node anew. NAME is for people and the log.

Commands that ask a running node take the token from ` + configs.EnvToken + `.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{cmd, fmt.Errorf("token takes one name")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			token := httpapi.NewToken()
			entry, err := configs.NewToken(args[0], httpapi.HashToken(token), may)
			if err != nil {
				return &usageError{cmd, err}
			}
			if _, err := fmt.Fprintln(a.stdout, token); err != nil {
				return fmt.Errorf("the token cannot be written to stdout: %w", err)
			}
			a.say("Keep the token above: it is not shown again.")
			a.say("In the config file, under server: \"tokens\": [%s]", entry.Value().Bytes())
			a.say("Or in the environment, with a colon between several: %s=%s", configs.EnvName("server.tokens"), entry.Text())
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&may, "may", []string{"all"}, "what it is for: "+strings.Join(configs.Rights, ", ")+" or all")
	return cmd
}
