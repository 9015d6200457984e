package command

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"cofferdam.dev/cofferdam/controllers/explain"
)

var update = flag.Bool("update", false, "write what the command prints to testdata/*.txt")

// result is what a command line leaves behind.
type result struct {
	code     int
	out, err string
}

func run(in string, args ...string) result {
	var out, errOut bytes.Buffer
	code := Run(context.Background(), args, strings.NewReader(in), &out, &errOut)
	return result{code: code, out: out.String(), err: errOut.String()}
}

func TestTextOfAnExplanationFromFiles(t *testing.T) {
	cases := map[string]struct {
		pod  string
		code int
	}{
		"isolated":        {pod: "web-1", code: 0},
		"leaking":         {pod: "web", code: 1},
		"latent":          {pod: "web", code: 1},
		"cilium":          {pod: "web", code: 2},
		"host-network":    {pod: "agent", code: 1},
		"static":          {pod: "etcd-node-1", code: 2},
		"antrea":          {pod: "web", code: 2},
		"unread-incident": {pod: "web", code: 2},
		"hostile":         {pod: "web", code: 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := run("", "explain", "pod/"+tc.pod, "-n", "shop", "-f", filepath.Join("testdata", name))
			if got.code != tc.code || got.err != "" {
				t.Errorf("exit code %d, want %d; printed on stderr: %q", got.code, tc.code, got.err)
			}
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got.out), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.out); diff != "" {
				t.Errorf("text mismatch (-want +got); if it is meant, run go test with -update:\n%s", diff)
			}
		})
	}
}

func TestDocumentsParseBackAndSayTheSameInEveryOutput(t *testing.T) {
	folders, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil || len(folders) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	pods := map[string]string{"isolated": "web-1", "host-network": "agent", "static": "etcd-node-1"}
	for _, golden := range folders {
		name := strings.TrimSuffix(filepath.Base(golden), ".txt")
		t.Run(name, func(t *testing.T) {
			pod, named := pods[name]
			if !named {
				pod = "web"
			}
			args := []string{"explain", "pod/" + pod, "-n", "shop", "-f", strings.TrimSuffix(golden, ".txt"), "-o"}
			asYAML, asJSON := run("", append(args, "yaml")...), run("", append(args, "json")...)
			var fromYAML, fromJSON explain.PodExplanation
			if err := yaml.UnmarshalStrict([]byte(asYAML.out), &fromYAML); err != nil {
				t.Fatalf("reading the YAML back: %v", err)
			}
			decoder := json.NewDecoder(strings.NewReader(asJSON.out))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&fromJSON); err != nil {
				t.Fatalf("reading the JSON back: %v", err)
			}
			if diff := cmp.Diff(fromYAML, fromJSON); diff != "" {
				t.Errorf("YAML and JSON differ (-yaml +json):\n%s", diff)
			}
			if fromYAML.APIVersion != explain.APIVersion || fromYAML.Kind != explain.Kind {
				t.Errorf("the document is a %s %s", fromYAML.APIVersion, fromYAML.Kind)
			}
			if asYAML.code != fromYAML.ExitCode || asJSON.code != fromJSON.ExitCode {
				t.Errorf("exit codes %d and %d, and the document says %d", asYAML.code, asJSON.code, fromYAML.ExitCode)
			}
		})
	}
}

func TestNothingUnprintableIsPrinted(t *testing.T) {
	for _, output := range []string{"text", "yaml", "json"} {
		got := run("", "explain", "pod/web", "-n", "shop", "-f", "testdata/hostile", "-o", output)
		for _, r := range got.out + got.err {
			if !unicode.IsPrint(r) && r != '\n' {
				t.Errorf("-o %s prints %U", output, r)
			}
		}
		if lines := strings.Split(got.out, "\n"); strings.HasPrefix(lines[0], "ISOLATED") {
			t.Errorf("-o %s begins with %q", output, lines[0])
		}
	}
	bad := run("a: b\n\tc: \"\x1b[2J", "explain", "pod/web", "-f", "-")
	if strings.ContainsRune(bad.err, '\x1b') || strings.Count(bad.err, "\n") != 1 {
		t.Errorf("the error is %q", bad.err)
	}
}

func TestAPodIsNamedInEveryWayThatKubectlKnows(t *testing.T) {
	for name, args := range map[string][]string{
		"pod/NAME":  {"pod/web"},
		"pods/NAME": {"pods/web"},
		"po/NAME":   {"po/web"},
		"pod NAME":  {"pod", "web"},
		"NAME":      {"web"},
		"Pod/NAME":  {"Pod/web"},
	} {
		t.Run(name, func(t *testing.T) {
			got := run("", append([]string{"explain", "-f", "testdata/leaking"}, args...)...)
			if got.code != 1 || !strings.HasPrefix(got.out, "LEAKING: Pod shop/web: ") {
				t.Errorf("exit code %d, printed %q %q", got.code, got.out, got.err)
			}
		})
	}
}

func TestErrorsSayWhatToDoAndExitWithTwo(t *testing.T) {
	cases := map[string]struct {
		args []string
		in   string
		want string
	}{
		"no pod":                  {args: []string{"explain"}, want: "say which pod to explain"},
		"too many pods":           {args: []string{"explain", "a", "b", "c"}, want: "say which pod to explain"},
		"an empty name":           {args: []string{"explain", "pod/"}, want: "say which pod to explain"},
		"a workload":              {args: []string{"explain", "deployment/web"}, want: "only pods can be explained"},
		"a path":                  {args: []string{"explain", "pod/shop/web"}, want: "give the namespace with -n"},
		"an unknown output":       {args: []string{"explain", "web", "-o", "wide"}, want: "use text, yaml or json"},
		"an unknown flag":         {args: []string{"explain", "web", "--wide"}, want: "unknown flag: --wide"},
		"an unknown command":      {args: []string{"contain"}, want: `unknown command "contain"`},
		"no such file":            {args: []string{"explain", "web", "-f", "testdata/nowhere"}, want: "testdata/nowhere: no such file"},
		"no such pod":             {args: []string{"explain", "db", "-f", "testdata/leaking"}, want: "the files hold no Pod db, but shop/web"},
		"a pod elsewhere":         {args: []string{"explain", "web", "-n", "bank", "-f", "testdata/leaking"}, want: "the files hold no Pod web in namespace bank, but shop/web"},
		"no pods at all":          {args: []string{"explain", "web", "-f", "-"}, in: "kind: Deployment", want: "the files hold no Pods at all"},
		"YAML that is none":       {args: []string{"explain", "web", "-f", "-"}, in: "a: b\n---\nc:\n  d: [\n", want: "standard input:"},
		"no cluster":              {args: []string{"explain", "web", "--kubeconfig", "testdata/nowhere"}, want: "testdata/nowhere"},
		"a cluster out of reach":  {args: []string{"explain", "web", "--server", "http://127.0.0.1:1"}, want: "choose another cluster with --kubeconfig or --context"},
		"a context that is not":   {args: []string{"explain", "web", "--context", "nowhere"}, want: "nowhere"},
		"a namespace of two pods": {args: []string{"explain", "web", "-f", "-"}, in: "{kind: Pod, metadata: {name: web, namespace: a}}\n---\n{kind: Pod, metadata: {name: web, namespace: b}}", want: "say which one is meant with -n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
			got := run(tc.in, tc.args...)
			if got.code != explain.ExitUnknown || got.out != "" {
				t.Errorf("exit code %d, printed %q", got.code, got.out)
			}
			if !strings.HasPrefix(got.err, "error: ") || !strings.Contains(got.err, tc.want) || strings.Count(got.err, "\n") != 1 {
				t.Errorf("the error is %q, want one line with %q", got.err, tc.want)
			}
		})
	}
}

func TestHelpExitsWithZeroAndNamesTheExitCodes(t *testing.T) {
	got := run("", "explain", "--help")
	if got.code != 0 || !strings.Contains(got.out, "0  the pod is isolated") || !strings.Contains(got.out, "kubectl incident explain (pod/NAME | NAME)") {
		t.Errorf("exit code %d, printed %q %q", got.code, got.out, got.err)
	}
	if got := run(""); got.code != 0 || !strings.Contains(got.out, "kubectl incident [command]") {
		t.Errorf("exit code %d, printed %q %q", got.code, got.out, got.err)
	}
}

func TestOutputThatCannotBeWrittenIsAnError(t *testing.T) {
	var errOut bytes.Buffer
	if code := Run(t.Context(), []string{"explain", "web", "-f", "testdata/leaking"}, nil, failing{}, &errOut); code != explain.ExitUnknown {
		t.Errorf("exit code %d after %q", code, errOut.String())
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, os.ErrClosed }
