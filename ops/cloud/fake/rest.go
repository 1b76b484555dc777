package fake

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

func (a *AWS) sts(r *request) (answer, error) {
	if r.action != "GetCallerIdentity" {
		return answer{}, refuse("InvalidAction", "%s", r.action)
	}
	if err := a.admit(r, Call{Action: "sts:GetCallerIdentity", Resources: []Resource{{ARN: "*"}}}); err != nil {
		return answer{}, err
	}
	who := in("GetCallerIdentityResult", el("Arn", "arn:aws:sts::"+Account+":assumed-role/gt06ops-"+r.caller+"/session"), el("UserId", "AROA:session"), el("Account", Account))
	return answer{kind: "text/xml", body: document("GetCallerIdentityResponse", "https://sts.amazonaws.com/doc/2011-06-15/", who, in("ResponseMetadata", el("RequestId", "fake")))}, nil
}

func stsRefusal(_ *request, e *refusal) answer {
	return answer{status: e.status, kind: "text/xml", body: document("ErrorResponse", "https://sts.amazonaws.com/doc/2011-06-15/", in("Error", el("Type", "Sender"), el("Code", e.code), el("Message", e.message)), el("RequestId", "fake"))}
}

type fields = map[string]any

func jsonAnswer(v any) (answer, error) {
	body, err := json.Marshal(v)
	return answer{kind: "application/json", body: body}, err
}

func jsonRefusal(_ *request, e *refusal) answer {
	body, _ := json.Marshal(fields{"__type": e.code, "message": e.message})
	return answer{status: e.status, kind: "application/json", header: map[string]string{"X-Amzn-Errortype": e.code}, body: body}
}

// epoch is a time as JSON protocols write it.
func epoch(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// routes of the services that speak REST with JSON.
var routes = []struct { //nolint:gochecknoglobals // a table
	service, method string
	path            *regexp.Regexp
	action          string
	do              func(*AWS, []string) (any, error)
}{
	{"rbin", http.MethodPost, regexp.MustCompile(`^/list-rules$`), "ListRules", (*AWS).listRules},
	{"rbin", http.MethodGet, regexp.MustCompile(`^/rules/([^/]+)$`), "GetRule", (*AWS).getRule},
	{"backup", http.MethodGet, regexp.MustCompile(`^/backup/plans$`), "ListBackupPlans", (*AWS).listPlans},
	{"backup", http.MethodGet, regexp.MustCompile(`^/backup/plans/([^/]+)$`), "GetBackupPlan", (*AWS).getPlan},
	{"backup", http.MethodGet, regexp.MustCompile(`^/backup/plans/([^/]+)/selections$`), "ListBackupSelections", (*AWS).listSelections},
	{"backup", http.MethodGet, regexp.MustCompile(`^/backup/plans/([^/]+)/selections/([^/]+)$`), "GetBackupSelection", (*AWS).getSelection},
	{"backup", http.MethodGet, regexp.MustCompile(`^/resources/([^/]+)/recovery-points$`), "ListRecoveryPointsByResource", (*AWS).listPoints},
}

func route(r *request) (index int, args []string) {
	path := strings.TrimSuffix(r.URL.EscapedPath(), "/")
	for i, to := range routes {
		if m := to.path.FindStringSubmatch(path); m != nil && to.service == r.service && to.method == r.Method {
			for _, arg := range m[1:] {
				plain, _ := url.PathUnescape(arg)
				args = append(args, plain)
			}
			return i, args
		}
	}
	return -1, nil
}

func restAction(r *request) string {
	if i, _ := route(r); i >= 0 {
		return routes[i].action
	}
	return r.Method + " " + r.URL.Path
}

func (a *AWS) rest(r *request) (answer, error) {
	i, args := route(r)
	if i < 0 {
		return answer{}, refuse("InvalidAction", "%s %s", r.Method, r.URL.Path)
	}
	if err := a.admit(r, Call{Action: r.service + ":" + r.action, Resources: []Resource{{ARN: "*"}}}); err != nil {
		return answer{}, err
	}
	v, err := routes[i].do(a, args)
	if err != nil {
		a.settled(err)
		return answer{}, err
	}
	return jsonAnswer(v)
}

func (a *AWS) listRules([]string) (any, error) {
	rules := []fields{}
	for _, r := range a.world.rules {
		rules = append(rules, fields{"Identifier": r.ID})
	}
	return fields{"Rules": rules}, nil
}

func (a *AWS) getRule(args []string) (any, error) {
	for _, r := range a.world.rules {
		if r.ID == args[0] {
			return fields{"Identifier": r.ID, "ResourceType": "EBS_SNAPSHOT", "Status": "available", "RetentionPeriod": fields{"RetentionPeriodValue": r.Days, "RetentionPeriodUnit": "DAYS"}}, nil
		}
	}
	return nil, &refusal{http.StatusNotFound, "ResourceNotFoundException", "no rule " + args[0]}
}

func (a *AWS) plan(id string) (BackupPlan, error) {
	if i := slices.IndexFunc(a.world.plans, func(p BackupPlan) bool { return p.ID == id }); i >= 0 {
		return a.world.plans[i], nil
	}
	return BackupPlan{}, &refusal{http.StatusNotFound, "ResourceNotFoundException", "no plan " + id}
}

func (a *AWS) listPlans([]string) (any, error) {
	plans := []fields{}
	for _, p := range a.world.plans {
		plans = append(plans, fields{"BackupPlanId": p.ID, "BackupPlanName": p.Name})
	}
	return fields{"BackupPlansList": plans}, nil
}

func (a *AWS) getPlan(args []string) (any, error) {
	p, err := a.plan(args[0])
	rule := fields{"RuleName": "daily", "TargetBackupVaultName": "Default", "ScheduleExpression": p.Schedule}
	if p.KeepDays > 0 {
		rule["Lifecycle"] = fields{"DeleteAfterDays": p.KeepDays}
	}
	return fields{"BackupPlanId": p.ID, "BackupPlan": fields{"BackupPlanName": p.Name, "Rules": []fields{rule}}}, err
}

func (a *AWS) listSelections(args []string) (any, error) {
	p, err := a.plan(args[0])
	return fields{"BackupSelectionsList": []fields{{"SelectionId": "s-" + p.ID, "SelectionName": "all", "BackupPlanId": p.ID}}}, err
}

func (a *AWS) getSelection(args []string) (any, error) {
	p, err := a.plan(args[0])
	return fields{"SelectionId": args[1], "BackupPlanId": p.ID, "BackupSelection": fields{"SelectionName": "all", "IamRoleArn": "arn:aws:iam::" + Account + ":role/backup", "Resources": p.Resources}}, err
}

func (a *AWS) listPoints(args []string) (any, error) {
	points := []fields{}
	for _, p := range a.world.points {
		if p.Resource == args[0] {
			points = append(points, fields{"RecoveryPointArn": "arn:aws:ec2:" + Region + "::snapshot/" + p.ID, "Status": "COMPLETED", "CreationDate": epoch(p.Created)})
		}
	}
	return fields{"RecoveryPoints": points}, nil
}

func targetAction(r *request) string {
	_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	return action
}

// target serves the services whose action is in a header: SSM and CloudTrail.
func (a *AWS) target(r *request) (answer, error) {
	switch r.action {
	case "SendCommand":
		return a.sendCommand(r)
	case "GetCommandInvocation":
		return a.commandInvocation(r)
	case "LookupEvents":
		return a.lookupEvents(r)
	}
	return answer{}, refuse("InvalidAction", "%s", r.action)
}

func (a *AWS) sendCommand(r *request) (answer, error) {
	var q struct {
		DocumentName string
		InstanceIDs  []string `json:"InstanceIds"`
		Parameters   map[string][]string
	}
	if err := json.Unmarshal(r.body, &q); err != nil || len(q.InstanceIDs) != 1 {
		return answer{}, refuse("ValidationException", "want one instance: %v", err)
	}
	instance, err := a.resource(q.InstanceIDs[0])
	if err != nil {
		return answer{}, refuse("InvalidInstanceId", "%v", err)
	}
	c := Call{Action: "ssm:SendCommand", Changes: true, Resources: []Resource{instance, {ARN: "arn:aws:ssm:" + Region + "::document/" + q.DocumentName}}}
	if err := a.admit(r, c); err != nil {
		return answer{}, err
	}
	if a.Guest == nil || a.world.instances[q.InstanceIDs[0]].state != "running" {
		err := refuse("InvalidInstanceId", "Instances [[%s]] not in a valid state for account %s", q.InstanceIDs[0], Account)
		a.settled(err)
		return answer{}, err
	}
	done := &command{code: -1}
	id := a.id("cmd")
	a.world.commands[id] = done
	go func() {
		code, stdout, stderr := a.Guest(q.InstanceIDs[0], strings.Join(q.Parameters["commands"], "\n"))
		a.mu.Lock()
		defer a.mu.Unlock()
		*done = command{code, stdout, stderr}
	}()
	return jsonAnswer(fields{"Command": fields{"CommandId": id}})
}

func (a *AWS) commandInvocation(r *request) (answer, error) {
	var q struct {
		CommandID  string `json:"CommandId"`
		InstanceID string `json:"InstanceId"`
	}
	if err := json.Unmarshal(r.body, &q); err != nil {
		return answer{}, refuse("ValidationException", "%v", err)
	}
	if err := a.admit(r, Call{Action: "ssm:GetCommandInvocation", Resources: []Resource{{ARN: "*"}}}); err != nil {
		return answer{}, err
	}
	c, ok := a.world.commands[q.CommandID]
	if !ok {
		return answer{}, refuse("InvocationDoesNotExist", "%s", q.CommandID)
	}
	status := "Success"
	switch {
	case c.code < 0:
		status = "InProgress"
	case c.code > 0:
		status = "Failed"
	}
	return jsonAnswer(fields{"CommandId": q.CommandID, "InstanceId": q.InstanceID, "Status": status, "ResponseCode": c.code, "StandardOutputContent": c.stdout, "StandardErrorContent": c.stderr})
}

func (a *AWS) lookupEvents(r *request) (answer, error) {
	var q struct {
		StartTime        float64
		LookupAttributes []struct{ AttributeKey, AttributeValue string }
	}
	if err := json.Unmarshal(r.body, &q); err != nil {
		return answer{}, refuse("ValidationException", "%v", err)
	}
	if err := a.admit(r, Call{Action: "cloudtrail:LookupEvents", Resources: []Resource{{ARN: "*"}}}); err != nil {
		return answer{}, err
	}
	found := []fields{}
	for _, e := range a.world.events {
		if epoch(e.Time) < q.StartTime || len(q.LookupAttributes) == 1 && q.LookupAttributes[0].AttributeValue != e.Name {
			continue
		}
		var resources []fields
		for _, id := range e.Resources {
			resources = append(resources, fields{"ResourceName": id})
		}
		found = append(found, fields{"EventId": e.ID, "EventName": e.Name, "EventTime": epoch(e.Time), "Username": e.User, "Resources": resources})
	}
	return jsonAnswer(fields{"Events": found})
}

// metadata is IMDSv2: a token by PUT, then GET with it.
func (a *AWS) metadata(w http.ResponseWriter, r *http.Request) {
	const token = "fake-token"
	if a.On == "" {
		http.NotFound(w, r)
		return
	}
	path, isData := strings.CutPrefix(r.URL.Path, "/latest/meta-data/")
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
		_, _ = fmt.Fprint(w, token)
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != token:
		http.Error(w, "IMDSv1 is off", http.StatusUnauthorized)
	case isData && path == "instance-id":
		_, _ = fmt.Fprint(w, a.On)
	case isData && path == "public-ipv4":
		for _, e := range a.world.addresses {
			if e.instance == a.On {
				_, _ = fmt.Fprint(w, e.ip)
				return
			}
		}
		http.NotFound(w, r)
	default:
		http.NotFound(w, r)
	}
}
