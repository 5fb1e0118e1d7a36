package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"banger/internal/api/client"
)

// eachName deletes several things of one kind at once, and reports a line for
// each that is deleted.
func (a *app) eachName(ctx context.Context, noun string, names []string, del func(context.Context, *client.Client, string) error) error {
	names = unique(names)
	errs := make([]error, len(names))
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		var wg sync.WaitGroup
		for i, name := range names {
			wg.Go(func() { errs[i] = del(ctx, c, name) })
		}
		wg.Wait()
		return nil
	})
	if err != nil {
		return cannot("delete "+noun+" "+strings.Join(names, " "), err)
	}
	var failed failures
	deleted := []string{}
	for i, name := range names {
		if errs[i] != nil {
			failed = append(failed, cannot("delete "+noun+" "+name, errs[i]))
			continue
		}
		deleted = append(deleted, name)
		if !a.json {
			if err := a.print(fmt.Appendf(nil, "%s deleted\n", name)); err != nil {
				return err
			}
		}
	}
	if a.json {
		if err := a.printValue(map[string][]string{"deleted": deleted}); err != nil {
			return err
		}
	}
	if failed == nil {
		return nil
	}
	return failed
}

// printValue writes the one document of --json where no message of the API
// holds it.
func (a *app) printValue(v any) error {
	doc, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return a.print(append(doc, '\n'))
}
