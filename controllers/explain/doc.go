// Package explain answers, for one pod, what can still reach it and what it can still reach, why, and what closes it: for people and, as a stable document, for
// programs. The pod need not be quarantined.
//
// [Explain] decides, as a pure function of [Facts]. These come from a cluster ([Cluster.Facts]) or from YAML files without one ([ReadFiles]). What could not be read is
// part of the facts: where it may change the answer the verdict is Unknown, and it is named.
package explain
