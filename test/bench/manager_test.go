package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/test/builder"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/scenario"
)

const (
	// floodPods is how many pods have long logs: as many as the manager reads at a time, so that everything that it holds while it reads one is held as often as it can be.
	floodPods       = 16
	floodContainers = 2
	// floodLines is how many lines each container has printed, of some 120 bytes with the time.
	floodLines = "560000"
	// streamed is how many bytes of logs have to have come through the manager, and maxMemory how much of it may have been resident at any moment.
	streamed  = 2_000_000_000
	maxMemory = 150_000_000
	// floodPatience is a limit against hanging.
	floodPatience = 20 * time.Minute
)

// BenchmarkManagerMemory measures the most memory that the whole manager, a process of its own, ever has resident while it contains an Incident and brings more than 2 GB of logs into a store that is a directory. It
// fails above 150 MB. idle-MB is what the manager has had resident by the time that it is ready.
func BenchmarkManagerMemory(b *testing.B) {
	if _, err := peakMemory(os.Getpid()); err != nil {
		b.Skipf("the peak of a process is not to be had here: %v", err)
	}
	server := startCluster(b)
	admin, err := client.New(server.RESTConfig, client.Options{Scheme: controllers.NewScheme()})
	if err != nil {
		b.Fatal(err)
	}
	program := buildManager(b, server.Root)
	var idle, peak, read int64
	for b.Loop() {
		f := newFlood(b, admin)
		m := startManager(b, server, program)
		idle = max(idle, m.peak(b))
		read = f.contain(b, m)
		peak = max(peak, m.peak(b))
		m.stop(b)
	}
	b.ReportMetric(float64(peak)/1e6, "MB")
	b.ReportMetric(float64(idle)/1e6, "idle-MB")
	b.ReportMetric(float64(read)/1e6, "logs-MB/op")
	if read < streamed {
		b.Errorf("%d bytes of logs were stored, and it takes %d to say anything", read, int64(streamed))
	}
	if peak > maxMemory { // the metrics of a benchmark that fails are not printed
		b.Errorf("the manager has had %d bytes resident, more than %d; it had %d when it was ready", peak, int64(maxMemory), idle)
	}
}

// buildManager builds the manager as its image has it: what is in bin/ may be older than the code.
func buildManager(b *testing.B, root string) string {
	b.Helper()
	program := filepath.Join(b.TempDir(), "manager")
	build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./cmd/manager")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("building the manager: %v\n%s", err, out)
	}
	return program
}

// manager is a manager that runs as a process.
type manager struct {
	cmd    *exec.Cmd
	store  string
	log    string
	exited chan struct{}
}

// startManager runs the manager with the rights of config/rbac and a new store, and returns once it leads.
func startManager(b *testing.B, server *cluster.Cluster, program string) *manager {
	b.Helper()
	dir := b.TempDir()
	m := &manager{store: filepath.Join(dir, "evidence"), log: filepath.Join(dir, "log"), exited: make(chan struct{})}
	log, err := os.Create(m.log)
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the child has a handle of its own
	m.cmd = exec.CommandContext(b.Context(), program, "--leader-elect", "--operator-namespace="+cluster.OperatorNamespace,
		"--evidence-store="+(&url.URL{Scheme: "file", Path: m.store}).String(), "--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0")
	// Nobody's settings decide how much memory it takes.
	m.cmd.Env = append(os.Environ(), "KUBECONFIG="+operatorKubeconfig(b, server, dir), "GOGC=", "GOMEMLIMIT=", "GODEBUG=")
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		_ = m.cmd.Wait() // its state says it all
		close(m.exited)
	}()
	b.Cleanup(func() {
		_ = m.cmd.Process.Kill() // it has ended already if this fails
		<-m.exited
	})
	err = wait.PollUntilContextTimeout(b.Context(), 100*time.Millisecond, scenario.Patience, true, func(context.Context) (bool, error) {
		said, err := os.ReadFile(m.log)
		return bytes.Count(said, []byte("Starting workers")) >= 2, errors.Join(err, m.ended()) // one for each kind
	})
	if err != nil {
		b.Fatalf("starting the manager: %v\n%s", err, m.said())
	}
	return m
}

// operatorKubeconfig is the administrator's kubeconfig with the identity of the operator.
func operatorKubeconfig(b *testing.B, server *cluster.Cluster, dir string) string {
	b.Helper()
	config, err := clientcmd.LoadFromFile(server.Kubeconfig)
	if err != nil {
		b.Fatal(err)
	}
	as := server.OperatorConfig().Impersonate
	for _, person := range config.AuthInfos {
		person.Impersonate, person.ImpersonateGroups = as.UserName, as.Groups
	}
	path := filepath.Join(dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		b.Fatal(err)
	}
	return path
}

// ended is an error if the manager has ended by itself.
func (m *manager) ended() error {
	select {
	case <-m.exited:
		return fmt.Errorf("the manager has ended by itself: %s", m.cmd.ProcessState)
	default:
		return nil
	}
}

// said is the end of what the manager has logged.
func (m *manager) said() string {
	said, _ := os.ReadFile(m.log) // only for a message
	return string(said[max(0, len(said)-4000):])
}

func (m *manager) stop(b *testing.B) {
	b.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.Fatal(err)
	}
	select {
	case <-m.exited:
	case <-time.After(scenario.Patience):
		b.Fatal("the manager does not end")
	}
}

func (m *manager) peak(b *testing.B) int64 {
	b.Helper()
	peak, err := peakMemory(m.cmd.Process.Pid)
	if err != nil {
		b.Fatalf("%v\n%s", err, m.said())
	}
	return peak
}

// peakMemory is the most that a process has ever had resident, in bytes. The Maxrss of a child that has ended is not: it counts what its parent had when it was started.
func peakMemory(pid int) (int64, error) {
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer status.Close() //nolint:errcheck // nothing was written
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if peak, found := strings.CutPrefix(lines.Text(), "VmHWM:"); found {
			kibibytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(peak), " kB"), 10, 64)
			return kibibytes << 10, err
		}
	}
	return 0, errors.New("the status of the process has no VmHWM")
}

// flood is pods with long logs.
type flood struct {
	admin     client.Client
	namespace string
}

func newFlood(b *testing.B, admin client.Client) *flood {
	b.Helper()
	f := &flood{admin: admin, namespace: fmt.Sprintf("flood-%d", time.Now().UnixNano())}
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.namespace, Labels: map[string]string{"shop": f.namespace}}},
		scenario.Policy(f.namespace, func(p *v1alpha1.ContainmentPolicy) {
			p.Spec.Evidence.Logs = v1alpha1.LogOrders{MaxBytes: 1 << 30, DeadlineSeconds: int32(floodPatience.Seconds())}
		}),
	}
	for i := range floodPods {
		pod := builder.Pod(f.namespace, fmt.Sprintf("pod-%02d", i), "app", "flood")
		pod.Annotations = map[string]string{"sim.cofferdam.dev/log-lines": floodLines} // hack/controlplane/internal/sim
		app := pod.Spec.Containers[0]
		pod.Spec.Containers = nil
		for j := range floodContainers {
			app.Name = fmt.Sprintf("%d-%s", j, builder.Long(50)) // it is part of every line
			pod.Spec.Containers = append(pod.Spec.Containers, app)
		}
		objects = append(objects, pod)
	}
	for _, obj := range objects {
		if err := admin.Create(b.Context(), obj); err != nil {
			b.Fatal(err)
		}
	}
	err := wait.PollUntilContextTimeout(b.Context(), time.Second, scenario.Patience, true, func(ctx context.Context) (bool, error) {
		var pods corev1.PodList
		err := admin.List(ctx, &pods, client.InNamespace(f.namespace))
		return !slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return p.Status.Phase != corev1.PodRunning }), err
	})
	if err != nil {
		b.Fatalf("waiting for the pods to run: %v", err)
	}
	return f
}

// contain declares the Incident, waits until its evidence is collected, and returns how many bytes of logs are in the store.
func (f *flood) contain(b *testing.B, m *manager) (read int64) {
	b.Helper()
	inc := builder.Incident(f.namespace, "flood", builder.Targets(builder.Selected(v1alpha1.TargetPod, "", "app", "flood")))
	if err := f.admin.Create(b.Context(), inc); err != nil {
		b.Fatal(err)
	}
	err := wait.PollUntilContextTimeout(b.Context(), time.Second, floodPatience, true, func(ctx context.Context) (bool, error) {
		err := f.admin.Get(ctx, client.ObjectKeyFromObject(inc), inc)
		return scenario.Is(v1alpha1.ConditionEvidenceCollected)(inc), errors.Join(err, m.ended())
	})
	if err != nil {
		b.Fatalf("waiting for the evidence: %v\n%s\n%s", err, scenario.Conditions(inc), m.said())
	}
	for _, item := range inc.Status.Evidence {
		if item.Type == v1alpha1.EvidenceLogs {
			read += logBytes(b, filepath.Join(m.store, filepath.FromSlash(item.Location)))
		}
	}
	return read
}

// logBytes is how much log is in a zip.
func logBytes(b *testing.B, path string) (n int64) {
	b.Helper()
	archive, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer archive.Close() //nolint:errcheck // nothing was written
	info, err := archive.Stat()
	if err != nil {
		b.Fatal(err)
	}
	index, err := evidence.ReadIndex(archive, info.Size())
	if err != nil {
		b.Fatal(err)
	}
	for _, log := range index.Logs {
		n += log.Bytes
	}
	return n
}
