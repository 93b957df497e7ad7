"""The row driver: asks the target what row attacks want to see, and does what repositories write again in each attack.

It keeps a working batch of rows (a sample at one rank), judges success on the very forward pass that gives the
gradient, keeps the right point, retires a row as soon as it is fooled or spent, starts the next row in
its slot, chains the ranks of a sample, counts, and leaves the classifier as it was.

What it promises (each is a test): K steps cost K gradient queries and one judging forward (none with `keep="last"`);
rank k+1 starts only when k has failed; outcomes and counts do not depend on batch size, order or refill, up to
rounding.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from robustlab.attacks.base import Draw, Model, Outcome, RowAttack, Rows, Seen, State
from robustlab.oracle import Oracle, undisturbed
from robustlab.threat import distance


def drive(
    attack: RowAttack,
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
) -> Outcome:
    """Run a row attack on n samples; see `RowAttack.run` for the arguments.

    quantum: the working batch shrinks in multiples of this many rows (default: 1 on a CPU; an eighth of the batch on a
    GPU, where every new shape costs), slots of ended rows idling until then.
    """
    if quantum is None:
        quantum = 1 if x.device.type == "cpu" else max(1, batch_size // 8)
    with torch.inference_mode(False), undisturbed(oracle.model), undisturbed(search):
        return _Drive(attack, oracle, x, y, ids, targets, seed, batch_size, search, clean_logits, quantum).run()


class _Drive:
    """One call of `drive`: the outcome so far, the waiting samples, and the working batch."""

    def __init__(
        self,
        attack: RowAttack,
        oracle: Oracle,
        x: Tensor,
        y: Tensor,
        ids: Tensor,
        targets: Tensor | None,
        seed: int,
        batch_size: int,
        search: Model | None,
        clean_logits: Tensor | None,
        quantum: int,
    ) -> None:
        self.attack, self.oracle, self.draw = attack, oracle, Draw(seed)
        self.searcher = oracle if search is None else Oracle(search)
        self.x, self.y, self.ids = x, y, ids
        self.batch_size, self.quantum = batch_size, quantum
        if attack.aims and clean_logits is None:
            clean_logits = torch.cat([oracle.logits(part) for part in x.split(batch_size)]) if len(x) else None
        self.ranks = attack.ranks(y, targets, clean_logits)
        n, zeros = len(x), torch.zeros_like(y)
        self.out = Outcome(
            images=x.clone(),
            success=torch.zeros(n, dtype=torch.bool, device=x.device),
            rank=zeros - 1,
            target=self.ranks[:, 0].clone() if n else zeros,
            forwards=zeros.clone(),
            backwards=zeros.clone(),
            invalid=torch.zeros(n, dtype=torch.bool, device=x.device),
        )
        self.best = torch.full((n,), torch.inf, dtype=torch.float64, device=x.device)  # smallest distance so far
        self.stops = attack.stop_when_fooled and attack.keep == "adversarial"
        self.waiting: deque[tuple[int, int]] = deque((i, 0) for i in range(n))  # (pos, rank)

    def run(self) -> Outcome:
        attack = self.attack
        rows, state = self.admit(self.batch_size)
        while len(rows):
            live = rows.pos >= 0
            last = rows.age >= attack.steps
            seen, hit = self.ask(rows, state, last, live)
            self.keep(rows, state, seen, hit, live & last)
            end = (last | hit if self.stops else last) | self.out.invalid[rows.pos]
            done = attack.done(rows, state)
            if done is not None:
                end = end | done
            if self.oracle.queries is not None:
                end = end | (self.out.forwards[rows.pos] >= self.oracle.queries)
            if bool((live & ~end).any()):
                state = attack.tell(rows, state, seen._replace(hit=hit), self.draw)
                rows.age += 1
                if attack.keep == "last":
                    end = end | (rows.age >= attack.steps)
                    self.out.images[rows.pos[end & live]] = state["query"][end & live]
            rows, state = self.turn_over(rows, state, end & live)
        return self.out

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
            spent = torch.zeros_like(self.out.success[at])
            if self.oracle.queries is not None:
                spent = self.out.forwards[at] >= self.oracle.queries
            over = spent | self.out.invalid[at] | (self.out.success[at] & self.stops)
            for pos, rank, is_over in torch.stack([at, rows.rank[ended], over.long()], 1).tolist():
                if rank + 1 < self.ranks.shape[1] and not is_over:
                    self.waiting.append((pos, rank + 1))
            rows.pos[ended] = -1
        free = (rows.pos < 0).nonzero()[:, 0]
        if self.waiting and len(free) >= min(self.quantum, len(rows)):
            fresh, start = self.admit(len(free))
            slots, free = free[: len(fresh)], free[len(fresh) :]
            rows.put(slots, fresh)
            for key, value in start.items():
                state[key][slots] = value
        live = len(rows) - len(free)
        size = -(-live // self.quantum) * self.quantum
        if live == 0 or size < len(rows):
            stay = torch.cat([(rows.pos >= 0).nonzero()[:, 0], free[: size - live]])
            rows, state = rows.take(stay), {key: value[stay] for key, value in state.items()}
        return rows, state

    # --- asking and judging ---------------------------------------------------------------------------------------

    def ask(self, rows: Rows, state: State, last: Tensor, live: Tensor) -> tuple[Seen, Tensor]:
        """What the target shows at each row's query, and which of those points are adversarial."""
        attack, query = self.attack, state["query"]
        moving = bool((live & ~last).any())
        searching = self.searcher is not self.oracle
        pos = rows.pos[live]
        if attack.needs == "gradient" and moving:
            logits, loss, gradient = self.searcher.gradient(
                query,
                lambda z: attack.objective(z, rows, state),
                lambda q, i: attack.view(q, rows, i, self.draw),
                attack.views,
            )
            self.out.forwards.index_add_(0, pos, torch.where(last, 1, attack.views)[live])
            self.out.backwards.index_add_(0, pos, torch.where(last, 0, attack.views)[live])
        else:
            gradient = None
            searching = searching and moving  # the last point of a row is judged by the target itself
            logits = (self.searcher if searching else self.oracle).logits(query)
            loss = (
                attack.objective(logits, rows, state) if self.oracle.gives != "labels" else logits.new_zeros(len(rows))
            )
            self.out.forwards.index_add_(0, pos, torch.ones_like(pos))
        hit = self.adversarial(logits, rows) & live
        self.check(logits, rows.pos, live)
        if searching:
            news = self.nearer(rows, query) if attack.keep == "smallest" else ~self.out.success[rows.pos]
            doubtful = (hit | last) & live & news
            i = doubtful.nonzero()[:, 0]
            if len(i):
                claimed = hit[i]
                judging = self.oracle.logits(query[i])
                self.check(judging, rows.pos[i], torch.ones_like(claimed))
                judged = self.adversarial(judging, rows.take(i))
                self.out.refused += int((claimed & ~judged & ~last[i]).sum())  # a last point is judged anyway
                hit = hit & ~doubtful
                hit[i] = judged
        hit = hit & ~self.out.invalid[rows.pos]
        return Seen(logits, loss, gradient, hit), hit

    def check(self, logits: Tensor, pos: Tensor, live: Tensor) -> None:
        """Mark the samples for which the target did not return finite values."""
        bad = pos[live & ~torch.isfinite(logits).all(1)]
        self.out.invalid[bad] = True

    def adversarial(self, logits: Tensor, rows: Rows) -> Tensor:
        predicted = logits.argmax(1)
        return predicted == rows.target if self.attack.targeted else predicted != rows.y

    def nearer(self, rows: Rows, query: Tensor) -> Tensor:
        return distance(query - rows.x, self.attack.norm) < self.best[rows.pos]

    def keep(self, rows: Rows, state: State, seen: Seen, hit: Tensor, final: Tensor) -> None:
        """Write the points that are to be kept into the outcome."""
        attack, out, query = self.attack, self.out, state["query"]
        if attack.keep == "last":
            return
        if attack.keep == "smallest":
            first = stored = hit & self.nearer(rows, query)
            self.best[rows.pos[stored]] = distance(query[stored] - rows.x[stored], attack.norm)
        else:
            first = hit & ~out.success[rows.pos]
            stored = first | (final & ~out.success[rows.pos])  # a failure shows the last point of its last rank
        i = stored.nonzero()[:, 0]
        if len(i):
            out.images[rows.pos[i]] = query[i]
        i = first.nonzero()[:, 0]
        if len(i):
            pos = rows.pos[i]
            out.success[pos], out.rank[pos], out.target[pos] = True, rows.rank[i], rows.target[i]
