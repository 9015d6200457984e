package incident

import (
	"testing"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/target"
)

// What a declarer may not do any more is not done in their name: a recovery does not begin, and says why.
func TestRecoveryTakesTheDeclarersRight(t *testing.T) {
	for _, reason := range []string{v1alpha1.ReasonNotAuthorized, v1alpha1.ReasonDeclarerUnknown} {
		s := changed(contained(), goal(v1alpha1.GoalRecover))
		s.problem = &target.Problem{Reason: reason, Message: "dora may not create Incidents in namespace shop"}
		if err := s.recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.planReason != reason || s.planProblem != s.problem.Message || s.next.Recovery != nil {
			t.Errorf("the recovery says %s %q, and is %v", s.planReason, s.planProblem, s.next.Recovery)
		}
	}
}
