"""The row driver: asks the target what row attacks want to see, and does what repositories write again in each attack.

It keeps a working batch of rows (a sample at one rank), judges success on the very forward pass that gives the
gradient, keeps the right point, retires a row as soon as it has succeeded or taken its last step, starts the next row
in its slot, chains the ranks of a sample, counts, and leaves the classifier as it was.

What it promises (each is a test): K steps cost K gradient queries and one judging forward (none with `keep="last"`; one
more for each success of an attack that shows the model something else than its query);
ranks count as if they ran one after another, each only when those before it have failed; outcomes and counts do not
depend on batch size, order or refill, up to rounding. When few rows are left, later ranks of the same samples run
beside them in slots that would idle: what a lower rank then makes unnecessary is neither kept nor charged.

Searching and judging may differ: a search copy is another model, an attack may show the model something else than its
query, and a randomised target is judged by several evaluations. What the search claims is then confirmed by the target.

A randomised target (an oracle with several evaluations) judges each claim of the search, and each last point, by as
many fresh evaluations, all charged. A last point needs their majority; a search ends, or a distance counts, only with
more than three quarters, since a point at which the answers balance would not be confirmed. The target's own random
numbers follow from the batches, so batch size may then decide.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.attacks.base import Keep, Model, Outcome
from robustlab.attacks.leap import Leap, Leapt
from robustlab.attacks.rows import AskAndTell, Draw, Foreseeable, Observation, Rows, State, Watch
from robustlab.oracle import Oracle, most, undisturbed
from robustlab.threat.geometry import distance
from robustlab.threat.model import allowed

CLEAR = 0.75  # of the evaluations of a randomised target have to confirm what the search claims


def drive(
    attack: AskAndTell,
    oracle: Oracle,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    *,
    targets: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 128,
    search: Model | None = None,
    clean_logits: Tensor | None = None,
    quantum: int | None = None,
    keep: Keep | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Run a row attack on n samples; see `Attack.run` for the arguments.

    keep: which point to keep, if not the attack's own choice; "last" takes every step and judges nothing.
    quantum: the working batch shrinks in multiples of this many rows (default: 1 on a CPU; an eighth of the batch on a
    GPU, where every new shape costs), slots of ended rows idling until then.
    """
    if quantum is None:
        quantum = 1 if x.device.type == "cpu" else max(1, batch_size // 8)
    kept = keep or attack.keep
    with torch.inference_mode(False), undisturbed(oracle.model), undisturbed(search):
        return _Drive(
            attack, oracle, x, y, ids, targets, seed, batch_size, search, clean_logits, quantum, kept, watch
        ).run()


@dataclass(eq=False)
class _Drive:
    """One call of `drive`: the outcome so far, the waiting samples, and the working batch."""

    attack: AskAndTell
    oracle: Oracle
    x: Tensor
    y: Tensor
    ids: Tensor
    targets: Tensor | None
    seed: int
    batch_size: int
    search: Model | None
    clean_logits: Tensor | None
    quantum: int
    kept: Keep
    watch: Watch | None

    def __post_init__(self) -> None:
        attack, oracle, x, y = self.attack, self.oracle, self.x, self.y
        self.draw = Draw(self.seed)
        self.searcher = oracle if self.search is None else Oracle(self.search)
        self.searcher.expected = oracle.expected
        self.several = oracle.evaluations > 1
        # does the search see something else than what the target is judged by?
        indirect = self.searcher is not oracle or not attack.faithful or self.several
        self.confirms = indirect and self.kept != "last"
        clean_logits, looked = self.clean_logits, attack.aims and self.clean_logits is None
        if looked and len(x):
            clean_logits = torch.cat([oracle.looks(part).mean(0) for part in x.split(self.batch_size)])
        self.ranks = attack.ranks(y, self.targets, clean_logits)
        if self.kept == "last":  # nothing is judged on the way, so that there is nothing to try again for
            self.ranks = self.ranks[:, :1]
        n, r = self.ranks.shape
        self.images = x.clone()
        # the lowest rank that settled a sample, by a success or by NaN; r while none has
        self.settled = torch.full_like(y, r)
        self.failed = torch.full_like(y, -1)  # the highest rank whose last point is kept
        self.best = torch.full((n,), torch.inf, dtype=torch.float64, device=x.device)  # smallest distance so far
        self.forwards, self.backwards, self.refused = (torch.zeros_like(self.ranks) for _ in range(3))
        self.forwards[:, :1] += oracle.evaluations * looked
        self.success, self.invalid = (torch.zeros_like(self.ranks, dtype=torch.bool) for _ in range(2))
        self.allowed = allowed(attack.eps)
        self.stops = attack.stop_at_success and self.kept != "last" and math.isfinite(attack.eps)
        self.leap = None
        simple = self.kept == "adversarial" and oracle.query_budget is None and oracle.evaluations == attack.eot == 1
        if isinstance(attack, Foreseeable) and simple:
            # on a GPU a few rows cost as much as a full batch, on a CPU as much as some
            room = self.batch_size // 4 if x.device.type == "cpu" else self.batch_size
            self.leap = Leap(attack, self.searcher, self.draw, room)
        self.waiting: deque[tuple[int, int]] = deque((i, 0) for i in range(n))  # (pos, rank)
        self.next_rank = [1] * n

    def run(self) -> Outcome:
        attack = self.attack
        rows, state = self.admit(self.batch_size)
        while len(rows):
            live = rows.pos >= 0
            leapt = None if self.leap is None else self.leap.skip(rows, state)
            if leapt is not None:
                self.forwards[rows.pos[live], rows.rank[live]] += leapt.skipped[live]
            last = rows.age >= attack.queries
            seen = self.observe(rows, state, last, live, leapt)
            done = attack.done(rows, state)
            final = last if done is None else last | done
            succeeded = self.keep(rows, state["query"], seen.adversarial, live & final)
            end = final | succeeded | (self.settled[rows.pos] < rows.rank) if self.stops else final
            end = end | self.invalid[rows.pos, rows.rank]
            if self.oracle.query_budget is not None:
                end = end | self.spent(rows.pos)
            if bool((live & ~end).any()):
                if self.watch is not None:
                    self.watch(rows, seen)
                state = attack.tell(rows, state, seen, self.draw)
                rows.age += live & ~end
                if self.kept == "last":
                    end = end | (rows.age >= attack.queries)
                    self.images[rows.pos[end & live]] = attack.crafted(state)[end & live]
            rows, state = self.turn_over(rows, state, end & live)
        return self.outcome()

    def outcome(self) -> Outcome:
        """What the tries of each sample add up to; with retirement, those up to the rank that settled it."""
        n, r = self.ranks.shape
        at = torch.arange(r, device=self.x.device)
        counted = at <= self.settled[:, None] if self.stops else torch.ones_like(self.invalid)
        invalid = (self.invalid & counted).any(1)
        success = (self.success & counted).any(1) & ~invalid
        rank = torch.where(success, self.settled, -1)
        return Outcome(
            images=self.images,
            success=success,
            rank=rank,
            target=self.ranks.gather(1, rank.clamp_min(0)[:, None])[:, 0],
            forwards=(self.forwards * counted).sum(1),
            backwards=(self.backwards * counted).sum(1),
            invalid=invalid,
            refused=int((self.refused * counted).sum()),
        )

    def spent(self, pos: Tensor) -> Tensor:
        """(B,) bool: the sample has used up the oracle's query budget."""
        assert self.oracle.query_budget is not None
        return self.forwards[pos].sum(1) >= self.oracle.query_budget

    # --- slots ----------------------------------------------------------------------------------------------------

    def admit(self, count: int) -> tuple[Rows, State]:
        """The next waiting samples as rows with their starting state."""
        taken = [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]
        pos, rank = torch.tensor(taken, dtype=torch.long, device=self.x.device).view(-1, 2).unbind(1)
        rows = Rows(
            x=self.x[pos],
            y=self.y[pos],
            target=self.ranks[pos, rank],
            id=self.ids[pos],
            rank=rank.clone(),
            age=torch.zeros_like(pos),
            pos=pos.clone(),
        )
        return rows, self.attack.start(rows, self.draw) if len(rows) else {}

    def turn_over(self, rows: Rows, state: State, end: Tensor) -> tuple[Rows, State]:
        """Retire ended rows, queue their next ranks, refill their slots, and shrink the batch when nobody waits."""
        ended = end.nonzero()[:, 0]
        if len(ended):
            at = rows.pos[ended]
            over = self.spent(at) if self.oracle.query_budget is not None else torch.zeros_like(at, dtype=torch.bool)
            over = over | self.invalid[at].any(1) | (self.settled[at] < self.ranks.shape[1]) & self.stops
            for pos, is_over in torch.stack([at, over.long()], 1).tolist():
                if not is_over:
                    self.queue(pos)
            rows.pos[ended] = -1
            if self.oracle.query_budget is None and self.kept != "last":
                self.look_ahead(rows)
        free = (rows.pos < 0).nonzero()[:, 0]
        if self.waiting and len(free) >= min(self.quantum, len(rows)):
            fresh, start = self.admit(len(free))
            slots, free = free[: len(fresh)], free[len(fresh) :]
            rows.put(slots, fresh)
            for key, value in start.items():
                state[key][slots] = value
        if self.waiting and not len(free) and self.quantum == 1 and len(rows) < self.batch_size:
            fresh, start = self.admit(self.batch_size - len(rows))
            rows = rows.join(fresh)
            state = {key: torch.cat([value, start[key]]) for key, value in state.items()}
        live = len(rows) - len(free)
        size = -(-live // self.quantum) * self.quantum
        if live == 0 or size < len(rows):
            stay = torch.cat([(rows.pos >= 0).nonzero()[:, 0], free[: size - live]])
            rows, state = rows.take(stay), {key: value[stay] for key, value in state.items()}
        return rows, state

    def queue(self, pos: int) -> bool:
        """Let the sample's next rank wait for a slot, if it has one."""
        rank = self.next_rank[pos]
        if rank >= self.ranks.shape[1]:
            return False
        self.next_rank[pos] += 1
        self.waiting.append((pos, rank))
        return True

    def look_ahead(self, rows: Rows) -> None:
        """Queue later ranks of the samples still running until an eighth of the batch is busy.

        A step of a few rows costs nearly as much as one of a single row; without this the last stubborn sample would
        take all its ranks one by one.
        """
        live = rows.pos >= 0
        room = self.batch_size // 8 - int(live.sum()) - len(self.waiting)
        if room <= 0:
            return
        running = rows.pos[live & (self.settled[rows.pos] == self.ranks.shape[1])].tolist()
        open_ = list(dict.fromkeys([*running, *(pos for pos, _ in self.waiting)]))
        while room > 0 and open_:
            open_ = [pos for pos in open_[:room] if self.queue(pos)]
            room -= len(open_)

    # --- asking and judging ---------------------------------------------------------------------------------------

    def observe(self, rows: Rows, state: State, last: Tensor, live: Tensor, leapt: Leapt | None) -> Observation:
        """What the target shows at each row's query, and which of those points are adversarial.

        last, live: (B,) bool, rows at their last point, and slots that do not idle. leapt: what the leap has shown.
        """
        moving = bool((live & ~last).any())
        # with one evaluation, last points are judged by the target itself
        confirms = self.confirms and (moving or self.several)
        logits, loss, gradient = self.ask(rows, state, last, live, moving, confirms, leapt)
        adversarial = self.claimed(rows, state["query"], logits, last, live)
        self.check(logits, rows, live)
        if confirms:
            adversarial = self.confirmed(rows, state["query"], adversarial, last, live)
        if gradient is not None:  # not finite: no next step; an adversarial point still counts
            lost = live & ~last & ~adversarial & ~torch.isfinite(gradient.flatten(1).sum(1))
            self.invalid[rows.pos[lost], rows.rank[lost]] = True
            self.settle(rows, lost)
        shown = logits[0] if len(logits) == 1 else logits.mean(0)
        return Observation(shown, loss, gradient, adversarial & ~self.invalid[rows.pos, rows.rank])

    def ask(
        self, rows: Rows, state: State, last: Tensor, live: Tensor, moving: bool, confirms: bool, leapt: Leapt | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits (evaluations, B, K), loss (B,) and gradient at each query, charged to their rows.

        moving: does a row go on from here? confirms: will the target judge what is claimed?
        """
        attack, cell = self.attack, (rows.pos[live], rows.rank[live])  # one row each
        gradient = None
        if attack.needs == "gradient" and moving:
            judged = attack.judged(rows, state)
            logits, loss, gradient = self.follow(rows, state, judged if self.quantum == 1 else None)
            shown = attack.views * attack.eot
            self.backwards[cell] += torch.where(last if judged is None else last | judged, 0, shown)[live]
        else:
            shown = attack.eot if moving else 1
            logits = self.scores(state["query"], self.searcher if confirms else self.oracle, shown, leapt)
            losses = [attack.objective(z, rows, state) for z in logits] if self.oracle.gives != "labels" else []
            loss = torch.stack(losses).mean(0) if losses else logits.new_zeros(len(rows))
        # a last point needs one look; where it takes several evaluations, `confirmed` charges them
        self.forwards[cell] += torch.where(last, 0 if self.several and confirms else 1, shown)[live]
        return logits, loss, gradient

    def scores(self, query: Tensor, asked: Oracle, times: int, leapt: Leapt | None) -> Tensor:
        """(times, B, K): the logits at each query; what the leap has shown the searcher is not asked again."""
        if leapt is None or asked is not self.searcher:
            return torch.stack([asked.logits(query) for _ in range(times)])
        logits, new = leapt.logits[None], (~leapt.shown).nonzero()[:, 0]
        if len(new):
            logits[0, new] = asked.logits(query[new])
        return logits

    def claimed(self, rows: Rows, query: Tensor, logits: Tensor, last: Tensor, live: Tensor) -> Tensor:
        """(B,) bool: by these logits the point is adversarial and may count."""
        found = self.adversarial(logits, rows) & live
        if self.kept == "adversarial":  # some search outside the ball on their way; only points inside count
            i = found.nonzero()[:, 0]
            found[i] = distance(query[i] - rows.x[i], self.attack.norm) <= self.allowed
        if not self.attack.faithful and self.oracle.query_budget is not None:
            found &= last | ~self.spent(rows.pos)  # nothing is left to confirm it
        return found

    def confirmed(self, rows: Rows, query: Tensor, claimed: Tensor, last: Tensor, live: Tensor) -> Tensor:
        """(B,) bool: `claimed`, with the target's own verdict on each claim that is news and on every last point."""
        # of an attack that takes every step, a claim after the first success changes nothing
        first_only = self.stops or (self.kept == "adversarial" and not self.several)
        news = rows.rank < self.settled[rows.pos] if first_only else torch.ones_like(claimed)
        if self.kept == "smallest":
            news = news & (distance(query - rows.x, self.attack.norm) < self.best[rows.pos])
        i = ((claimed | last) & live & news).nonzero()[:, 0]
        if not len(i):
            return claimed
        logits, asked, ending = self.oracle.looks(query[i]), rows.take(i), last[i]
        self.check(logits, asked, torch.ones_like(ending))
        found = self.adversarial(logits, asked)
        if self.several:
            found &= ending | self.adversarial(logits, asked, CLEAR)
            self.forwards[asked.pos, asked.rank] += self.oracle.evaluations
        elif not self.attack.faithful:
            self.forwards[asked.pos, asked.rank] += (~ending).long()
        self.refused[asked.pos, asked.rank] += (claimed[i] & ~found & ~ending).long()
        return claimed.index_copy(0, i, found)

    def follow(self, rows: Rows, state: State, judged: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The searcher's logits (evaluations, B, K), loss (B,) and gradient (B, C, H, W) at each query.

        The gradient is zero for the rows that want to be judged only, which costs them a forward pass and no more.
        """
        attack, query = self.attack, state["query"]
        if judged is not None and bool(judged.any()):
            at, rest = (~judged).nonzero()[:, 0], judged.nonzero()[:, 0]
            seen = torch.stack([self.searcher.logits(query[rest]) for _ in range(attack.eot)])
            logits = seen.new_zeros(len(seen), len(rows), seen.shape[2])
            logits[:, rest], gradient = seen, torch.zeros_like(query)
            if len(at):
                part = {key: value[at] for key, value in state.items()}
                logits[:, at], _, gradient[at] = self.follow(rows.take(at), part, None)
            return logits, torch.stack([attack.objective(z, rows, state) for z in logits]).mean(0), gradient
        return self.searcher.gradient(
            query,
            lambda z: attack.objective(z, rows, state),
            lambda q, i: attack.view(q, rows, i, self.draw),
            attack.views,
            attack.eot,
        )

    def check(self, logits: Tensor, rows: Rows, live: Tensor) -> None:
        """Mark the tries for which the target did not return finite values."""
        bad = live & ~torch.isfinite(logits).all(2).all(0)
        self.invalid[rows.pos[bad], rows.rank[bad]] = True
        self.settle(rows, bad)

    def settle(self, rows: Rows, settled: Tensor) -> None:
        i = settled.nonzero()[:, 0]
        self.settled.scatter_reduce_(0, rows.pos[i], rows.rank[i], "amin")

    def adversarial(self, logits: Tensor, rows: Rows, share: float = 0.5) -> Tensor:
        """(B,) bool: do more than this share of the evaluations (evaluations, B, K) say so?"""
        predicted = logits.argmax(2)
        return most(self.attack.succeeds(predicted, rows.y, rows.target), share)

    def keep(self, rows: Rows, query: Tensor, adversarial: Tensor, final: Tensor) -> Tensor:
        """Write the points that are to be kept into the outcome; returns the rows that have succeeded, (B,) bool.

        The first point inside the budget is kept, of the lowest rank that found one. An attack on the distance keeps
        the nearest adversarial point where it has no budget, or found nothing inside it; other attacks then show the
        last point of their last rank.
        """
        if self.kept == "last":
            return torch.zeros_like(adversarial)
        succeeded, open_ = adversarial, self.settled[rows.pos] == self.ranks.shape[1]
        if self.kept == "smallest":
            size = distance(query - rows.x, self.attack.norm)
            succeeded = adversarial & (size <= self.allowed)
            nearer = adversarial & (size < self.best[rows.pos]) & (open_ | (not self.stops))
            i = nearer.nonzero()[:, 0]
            self.best.scatter_reduce_(0, rows.pos[i], size[i], "amin")
            stored = nearer & (size == self.best[rows.pos])  # ranks of one sample may run side by side
        else:
            failing = final & ~adversarial & open_
            i = failing.nonzero()[:, 0]
            self.failed.scatter_reduce_(0, rows.pos[i], rows.rank[i], "amax")
            stored = failing & (rows.rank == self.failed[rows.pos])
        if self.stops or self.kept == "adversarial":
            first = succeeded & (rows.rank < self.settled[rows.pos])
            self.settle(rows, first)
            stored = stored & (self.settled[rows.pos] == self.ranks.shape[1])
            stored |= first & (rows.rank == self.settled[rows.pos])
        else:
            self.settled[rows.pos[stored]] = rows.rank[stored]
        i = stored.nonzero()[:, 0]
        if len(i):
            self.images[rows.pos[i]] = query[i]
        i = succeeded.nonzero()[:, 0]
        self.success[rows.pos[i], rows.rank[i]] = True
        return succeeded
