package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"gt06/ops"
	"gt06/ops/cloud"
	"gt06/ops/runbook"
)

func (o *opsTool) auditCommand() *cobra.Command {
	var since time.Duration
	var textfile string
	c := o.looking(&cobra.Command{
		Use: "audit", Short: "Is the account as both documents want it, and did anybody do what they forbid",
		Long: `audit asks for the daily backup, the Recycle Bin, names, locks, left-over rescue
instances, the Elastic IP, ports open to the world, and for calls in CloudTrail
that no change explains. Any answer that is no ends with exit code 7. With --textfile
the answers are written for the textfile collector of Prometheus' node exporter, too.`,
		Example: "  gt06ctl ops audit --since 168h\n  gt06ctl ops audit --textfile /var/lib/prometheus/node-exporter/gt06.prom",
	}, func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		w, err := o.work(ctx, cmd)
		if err != nil {
			return err
		}
		if err := w.Session.Journals.Sync(ctx); err != nil {
			return err
		}
		changes, err := w.Session.Journals.List()
		if err != nil {
			return err
		}
		var work []runbook.Span
		for i := range changes {
			j, err := w.Session.Journals.Open(ctx, changes[i].ID)
			if err != nil {
				return err
			}
			work = append(work, runbook.Work(j.Records())...)
		}
		checks, err := w.site().Audit(ctx, time.Now().Add(-since), work)
		if err != nil {
			return err
		}
		if textfile != "" {
			if err := writeAudit(textfile, checks, time.Now()); err != nil {
				return ops.Fail(ops.Usage, err, "name a file in a directory that is there")
			}
		}
		var b strings.Builder
		checks.Print(&b)
		if err := o.say(cmd, map[string]any{"ok": checks.OK(), "checks": checks}, b.String()); err != nil {
			return err
		}
		if n := len(checks.Failed()); n > 0 {
			return ops.Fail(ops.Red, fmt.Errorf("%d of %d answers are no", n, len(checks)))
		}
		return nil
	})
	c.Flags().StringVar(&textfile, "textfile", "", "file to write the answers to, as metrics")
	c.Flags().DurationVar(&since, "since", 7*24*time.Hour, "how far back CloudTrail is read; it keeps 90 days")
	return c
}

// writeAudit writes the answers of an audit as metrics, so that one that is no,
// and one that is not asked any more, is an alert like the server's own.
func writeAudit(path string, checks ops.Checks, now time.Time) error {
	at := prometheus.NewGauge(prometheus.GaugeOpts{Name: "gt06_audit_timestamp_seconds", Help: "When gt06ctl ops audit asked last, Unix time."})
	answers := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "gt06_audit_ok", Help: "What gt06ctl ops audit found, by the id of the check: 1 yes, 0 no."}, []string{"check"})
	at.Set(float64(now.Unix()))
	for i := range checks {
		ok := 0.
		if checks[i].OK {
			ok = 1
		}
		answers.WithLabelValues(checks[i].ID).Set(ok)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(at, answers)
	return prometheus.WriteToTextfile(path, r)
}

func (o *opsTool) costCommand() *cobra.Command {
	return o.looking(&cobra.Command{
		Use: "cost", Short: "What protection costs a month, beside the strategy's figures",
		Long: `cost adds up snapshots, images, addresses, left-over instances and S3 from what is
there now, with dated prices (cost.prices), in rupees. Snapshots are cheaper than
downtime: it says what they cost and leaves it at that.`,
		Example: "  gt06ctl ops cost",
	}, func(cmd *cobra.Command, _ []string) error {
		w, err := o.work(cmd.Context(), cmd)
		if err != nil {
			return err
		}
		table, err := w.site().Cost(cmd.Context())
		if err != nil {
			return err
		}
		return o.say(cmd, table, costText(table))
	})
}

func costText(table runbook.CostTable) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "low\ttypical\thigh\tdocument\t fits\t item")
	for _, r := range table.Rows {
		fits := "yes"
		if !r.Fits {
			fits = "NO"
		}
		fmt.Fprintf(t, "%.1f\t%.1f\t%.1f\t%s\t %s\t %s: %s\n", r.Low, r.Typical, r.High, r.Document, fits, r.Item, r.Seen)
	}
	fmt.Fprintf(t, "%.1f\t%.1f\t%.1f\t\t\t rupees a month in all\n", table.Low, table.Typical, table.High)
	_ = t.Flush()
	fmt.Fprintf(&b, "prices: %s\n", table.Prices)
	if table.Stale {
		b.WriteString("the prices are older than 90 days: look them up and set cost.prices and cost.as_of\n")
	}
	if table.DowntimeHour > 0 {
		fmt.Fprintf(&b, "an hour of downtime: %.0f rupees\n", table.DowntimeHour)
	}
	return b.String()
}

func (o *opsTool) selftestCommand() *cobra.Command {
	var account bool
	c := o.looking(&cobra.Command{
		Use: "selftest --account", Short: "Try every call that changes nothing against the real account",
		Long: `selftest makes the reads and the DryRun calls operations need, and says what that
proved and what it could not. A refusal ends with exit code 8.`,
		Example: "  gt06ctl ops selftest --account",
	}, func(cmd *cobra.Command, _ []string) error {
		if !account {
			return ops.Fail(ops.Usage, errors.New("what is to be tested?"), "gt06ctl ops selftest --account")
		}
		w, err := o.work(cmd.Context(), cmd)
		if err != nil {
			return err
		}
		proofs, unproven, err := w.site().Selftest(cmd.Context())
		if err != nil {
			return err
		}
		var b strings.Builder
		bad := 0
		for _, p := range proofs {
			mark := "ok"
			if !p.OK {
				mark, bad = "NO", bad+1
			}
			fmt.Fprintf(&b, "%-3s %s: %s\n", mark, p.Call, p.Seen)
		}
		fmt.Fprintf(&b, "\nproven: %d of %d calls\nnot proven, because they cannot be tried without doing them:\n  %s\n", len(proofs)-bad, len(proofs), strings.Join(unproven, "\n  "))
		if err := o.say(cmd, map[string]any{"proven": proofs, "not_proven": unproven}, b.String()); err != nil {
			return err
		}
		if bad > 0 {
			return ops.Fail(ops.Denied, fmt.Errorf("%d of %d calls failed", bad, len(proofs)), "the policies: gt06ctl ops init")
		}
		return nil
	})
	c.Flags().BoolVar(&account, "account", false, "test what the role may do in the account")
	return c
}

func (o *opsTool) initCommand() *cobra.Command {
	var instance, bucket, region, endpoint string
	c := o.looking(&cobra.Command{
		Use: "init", Short: "Find the machine in the account, write the configuration, print what the account should have",
		Long: `init reads the account, writes the configuration (a file that is there is left
alone), and prints the roles, the Recycle Bin rule, the daily plan and the bucket
as a CloudFormation template, and the tags. It applies nothing.`,
		Example: "  gt06ctl ops init --region ap-south-1 --profile ops > gt06ops.json\n  aws cloudformation deploy --stack-name gt06ops --template-file gt06ops.json --capabilities CAPABILITY_NAMED_IAM",
	}, func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		if region == "" {
			return ops.Fail(ops.Usage, errors.New("which region is it?"), "gt06ctl ops init --region ap-south-1")
		}
		account, err := cloud.Open(ctx, cloud.Options{Region: region, Profile: o.profile, Endpoint: endpoint})
		if err != nil {
			return ops.Fail(ops.Usage, err)
		}
		found, err := runbook.Discover(ctx, account, instance, bucket)
		if err != nil {
			return err
		}
		template, err := found.Template()
		if err != nil {
			return err
		}
		say := cmd.ErrOrStderr()
		wrote, err := writeNew(o.config, found.Config(o.profile, endpoint))
		if err != nil {
			return err
		}
		if wrote {
			_, _ = fmt.Fprintf(say, "wrote %s\n", o.config)
		} else {
			_, _ = fmt.Fprintf(say, "%s is there already and was left alone; it would be:\n%s", o.config, found.Config(o.profile, endpoint))
		}
		for _, open := range found.Openings {
			_, _ = fmt.Fprintf(say, "open to the world: %s %d-%d (%s)\n", open.Protocol, open.From, open.To, open.Group)
		}
		_, _ = fmt.Fprintf(say, "next: %s\nnext: aws cloudformation deploy --stack-name gt06ops --template-file FILE --capabilities CAPABILITY_NAMED_IAM\nnext: gt06ctl ops selftest --account\n", strings.Join(found.Tags(), "\nnext: "))
		if o.json {
			return printJSON(cmd.OutOrStdout(), map[string]any{"found": found, "config": o.config, "written": wrote, "tags": found.Tags(), "template": string(template)})
		}
		_, err = cmd.OutOrStdout().Write(append(template, '\n'))
		return err
	})
	c.Flags().StringVar(&instance, "instance", "", "instance id; default: this one, or the only one that runs")
	c.Flags().StringVar(&bucket, "bucket", "", "bucket for journal and backups; default gt06ops-ACCOUNT")
	c.Flags().StringVar(&region, "region", os.Getenv("AWS_REGION"), "region of the machine (AWS_REGION)")
	c.Flags().StringVar(&endpoint, "endpoint-url", "", "another address than AWS'; loopback only, for practice")
	return c
}

// writeNew writes a file that is not there.
func writeNew(path, text string) (bool, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if errors.Is(err, os.ErrExist) {
		return false, nil
	}
	if errors.Is(err, os.ErrPermission) {
		return false, ops.Fail(ops.Denied, err, "run it with sudo, or name another place: --config FILE")
	}
	if err != nil {
		return false, ops.Fail(ops.Usage, err, "name a place for the configuration: --config FILE")
	}
	_, err = f.WriteString(text)
	return true, errors.Join(err, f.Sync(), f.Close())
}
