package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"cofferdam.dev/cofferdam/controllers/store"
)

// racerVariable makes the test binary a racer: it creates the keys that it is told, in the directory that the variable names.
const racerVariable = "COFFERDAM_STORE_RACER"

func TestMain(m *testing.M) {
	if url := os.Getenv(racerVariable); url != "" {
		if err := race(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func race(url string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, url, store.Options{})
	if err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		err := s.Create(ctx, in.Text(), fmt.Appendf(nil, "by %d", os.Getpid()))
		if err != nil && !errors.Is(err, store.ErrExists) {
			return err
		}
		fmt.Println(err == nil)
	}
	return errors.Join(in.Err(), s.Close())
}

// racer is another process.
type racer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startRacer(t *testing.T, url string) *racer {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), racerVariable+"="+url)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &racer{cmd, in, bufio.NewScanner(out)}
}

// TestProcessesRace sends each key to two processes at once. Exactly one may create it, and it has to be the one whose bytes are there.
func TestProcessesRace(t *testing.T) {
	url := "file://" + t.TempDir()
	racers := []*racer{startRacer(t, url), startRacer(t, url)}
	s := mustOpen(t, url, store.Options{})
	for i := range 300 {
		// Every tenth key is in a directory that has to be made first.
		key := fmt.Sprintf("incidents/%d/ledger/%012d-01.jsonl", i/10, i)
		for _, r := range racers {
			if _, err := fmt.Fprintln(r.in, key); err != nil {
				t.Fatal(err)
			}
		}
		winner := 0
		for _, r := range racers {
			if !r.out.Scan() {
				t.Fatalf("a racer stopped: %v", r.out.Err())
			}
			if r.out.Text() != "true" {
				continue
			}
			if winner != 0 {
				t.Fatalf("both created %s", key)
			}
			winner = r.cmd.Process.Pid
		}
		got, err := s.Read(t.Context(), key)
		if want := fmt.Sprintf("by %d", winner); err != nil || string(got) != want {
			t.Fatalf("%s: %q, %v; want %q", key, got, err, want)
		}
	}
	for _, r := range racers {
		if err := errors.Join(r.in.Close(), r.cmd.Wait()); err != nil {
			t.Error(err)
		}
	}
	wantKeys(t, s, "incoming/")
}
