package main

import (
	"fmt"
	"time"
)

// check is one thing that the demo claims, and what came of looking.
type check struct {
	claim string
	err   error
}

type figure struct {
	name string
	took time.Duration
}

// result collects what the demo has found out.
type result struct {
	checks  []check
	figures []figure
}

// check records and prints a claim; err says what contradicts it, or why it could not be looked at.
func (r *result) check(claim string, err error) {
	c := check{claim: claim, err: err}
	r.checks = append(r.checks, c)
	c.print()
}

func (r *result) measure(name string, took time.Duration) {
	r.figures = append(r.figures, figure{name: name, took: took})
}

func (c check) print() {
	mark := "✓"
	if c.err != nil {
		mark = "✗"
	}
	for i, line := range wrap(c.claim, width-4) {
		if i > 0 {
			mark = " "
		}
		fmt.Printf("  %s %s\n", mark, line)
	}
	if c.err != nil {
		quote(c.err.Error())
	}
}

// conclude prints the result block and reports whether everything came true. fatal is what kept the demo from going on.
func (r *result) conclude(fatal error, total time.Duration) bool {
	fmt.Printf("\n%s\nResult\n", line())
	wrong := 0
	for _, c := range r.checks {
		c.print()
		if c.err != nil {
			wrong++
		}
	}
	if len(r.figures) > 0 {
		blank()
	}
	for _, f := range r.figures {
		fmt.Printf("  %8s  %s\n", seconds(f.took), f.name)
	}
	blank()
	switch {
	case fatal != nil:
		fmt.Println("  FAILED: the demo could not go on, and what should have followed was not checked:")
		quote(fatal.Error())
	case wrong > 0:
		fmt.Printf("  FAILED: %d of %d checks are not true.\n", wrong, len(r.checks))
	default:
		fmt.Printf("  PASSED: all %d checks are true. The demo took %s.\n", len(r.checks), seconds(total))
	}
	return fatal == nil && wrong == 0
}
