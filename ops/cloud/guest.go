package cloud

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// Self asks the metadata service (IMDSv2 only) which instance this program
// runs on; ok is false where it runs on none. An answer other than "not here"
// is an error, because a step that must not run on its own target may not be
// let through by a guess.
func (c *Cloud) Self(ctx context.Context) (m Metadata, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	m.InstanceID, err = c.metadata(ctx, "instance-id")
	if refused, is := errors.AsType[*awshttp.ResponseError](err); is && refused.HTTPStatusCode() >= 500 || errors.Is(err, errMetadata) {
		return Metadata{}, false, fmt.Errorf("ask the metadata service which instance this is: %w", err)
	}
	if err != nil {
		return Metadata{}, false, nil // nobody answers, or no metadata service does: not on an instance
	}
	// An instance without a public address answers 404.
	m.PublicIP, _ = c.metadata(ctx, "public-ipv4")
	return m, true, nil
}

var errMetadata = errors.New("an answer that is no instance id")

func (c *Cloud) metadata(ctx context.Context, path string) (string, error) {
	out, err := c.imds.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return "", err
	}
	defer func() { _ = out.Content.Close() }()
	text, err := io.ReadAll(io.LimitReader(out.Content, 256))
	if err == nil && path == "instance-id" && !strings.HasPrefix(string(text), "i-") {
		return "", errMetadata
	}
	return strings.TrimSpace(string(text)), err
}

// Output is what a command on a machine printed and how it ended.
type Output struct {
	Code   int
	Stdout string
	Stderr string
}

// Run runs one shell command on an instance through SSM and waits for its end.
// Output is cut by SSM at 24,000 characters. A command that ends with a code
// other than 0 is no error here.
func (c *Cloud) Run(ctx context.Context, instance, command string, limit time.Duration) (Output, error) {
	doing := "run a command on " + instance
	sent, err := c.ssm.SendCommand(ctx, &ssm.SendCommandInput{
		DocumentName: aws.String("AWS-RunShellScript"), InstanceIds: []string{instance}, TimeoutSeconds: aws.Int32(60),
		Parameters: map[string][]string{"commands": {command}, "executionTimeout": {fmt.Sprint(int(limit.Seconds()))}},
	}, func(o *ssm.Options) { o.Retryer = c.refusedOnly() })
	if err != nil {
		return Output{}, explain(doing, err)
	}
	ctx, cancel := context.WithTimeout(ctx, limit+time.Minute)
	defer cancel()
	var done Output
	err = c.Await(ctx, nil, func(ctx context.Context) (bool, string, error) {
		out, err := c.ssm.GetCommandInvocation(ctx, &ssm.GetCommandInvocationInput{CommandId: sent.Command.CommandId, InstanceId: aws.String(instance)})
		if hasCode(err, "InvocationDoesNotExist") {
			return false, "sent", nil // takes a moment to be known
		}
		if err != nil {
			return false, "", explain(doing, err)
		}
		switch out.Status {
		case "Success", "Failed":
			done = Output{Code: int(out.ResponseCode), Stdout: aws.ToString(out.StandardOutputContent), Stderr: aws.ToString(out.StandardErrorContent)}
			return true, string(out.Status), nil
		case "Pending", "InProgress", "Delayed":
			return false, string(out.Status), nil
		default:
			return false, "", fmt.Errorf("%s: SSM says %s: %s", doing, out.Status, aws.ToString(out.StatusDetails))
		}
	})
	return done, err
}

// Console is what an instance has printed on its console, the newest there is;
// "" before it said anything.
func (c *Cloud) Console(ctx context.Context, instance string) (string, error) {
	out, err := c.ec2.GetConsoleOutput(ctx, &ec2.GetConsoleOutputInput{InstanceId: aws.String(instance), Latest: aws.Bool(true)})
	if hasCode(err, "UnsupportedOperation") { // older types have no latest
		out, err = c.ec2.GetConsoleOutput(ctx, &ec2.GetConsoleOutputInput{InstanceId: aws.String(instance)})
	}
	if err != nil {
		return "", explain("read the console of "+instance, err)
	}
	text, err := base64.StdEncoding.DecodeString(aws.ToString(out.Output))
	return string(text), err
}
