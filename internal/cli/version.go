package cli

import (
	"github.com/spf13/cobra"

	"banger/internal/version"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Print the version",
		Example:           "  banger version --json",
		Args:              none,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.printValue(struct {
					Version string `json:"version"`
					Commit  string `json:"commit"`
					Date    string `json:"date"`
				}{version.Version, version.Commit, version.Date})
			}
			return a.print([]byte("banger " + version.String() + "\n"))
		},
	}
}
