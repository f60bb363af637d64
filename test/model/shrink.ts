/** Shrinks a failing sequence while it still fails. */
import { Effect } from "effect"
import type { Command, Sequence } from "./commands.ts"

/** The simplest value of each field. */
const simplestFields: {
  readonly [Tag in Command["_tag"]]?: Partial<Extract<Command, { readonly _tag: Tag }>>
} = {
  Enqueue: {
    key: undefined,
    delay: 0,
    expires: undefined,
    priority: 100,
    payload: "1",
    queue: 0,
    forgets: false,
    otherTask: false,
    mode: "reserveFirst",
    steps: 3,
    id: "a"
  },
  Continue: { producer: 0, steps: 3 },
  Purge: { queue: 0, withdraws: true },
  Withdraw: { purge: 0 },
  Claim: { lost: false, fused: false, worker: "v", max: 1 },
  RetryClaim: { worker: "v" },
  NextStep: { ending: "success", fused: false, claim: 0 },
  Settle: { ending: "success", fused: false, claim: 0 },
  RenewRun: { progress: undefined, claim: 0 },
  RenewClaim: { claim: 0 },
  RepeatStart: { claim: 0 },
  Ack: { claim: 0 },
  ReleaseMessage: { after: 0, preserveDueTime: false, claim: 0 },
  AdvanceTime: { units: 1 },
  Compare: { watch: false },
  Park: { letter: "p1", retention: undefined },
  Replay: { letter: 0, steps: 3 },
  RemoveLetter: { letter: 0 },
  Duplicate: { message: 0 },
  Cancel: { id: "a" },
  Forget: { id: "a" }
}

/** Yields sequences with fewer commands: first without many of them, then without few. */
function* shorter({ commands, comparesEach }: Sequence): Generator<Sequence> {
  for (
    let count = Math.ceil(commands.length / 2);
    count >= 1;
    count = count === 1 ? 0 : Math.ceil(count / 2)
  ) {
    for (let from = commands.length - count; from > -count; from -= count) {
      const start = Math.max(0, from)
      yield { comparesEach, commands: commands.toSpliced(start, count) }
    }
  }
}

/** Yields sequences with one simpler field. */
function* simpler({ commands, comparesEach }: Sequence): Generator<Sequence> {
  if (!comparesEach) yield { comparesEach: true, commands }
  for (const [n, command] of commands.entries()) {
    for (const [name, value] of Object.entries(simplestFields[command._tag] ?? {})) {
      const changed = { ...command, [name]: value }
      if (Object.entries(command).some(([key, before]) => key === name && before !== value)) {
        yield { comparesEach, commands: commands.with(n, changed) }
      }
    }
  }
}

/** Time limit of shrinking: in real time every attempt takes a while. */
const PATIENCE_MILLIS = 60_000

/**
 * Returns the simplest failing sequence found, and its failure. `fails` returns how a sequence fails, or `undefined`.
 */
export const shrink = Effect.fnUntraced(function* <F>(
  sequence: Sequence,
  failure: F,
  fails: (sequence: Sequence) => Effect.Effect<F | undefined>
) {
  let best = { sequence, failure }
  const until = performance.now() + PATIENCE_MILLIS
  const improve = Effect.fnUntraced(function* (candidates: (sequence: Sequence) => Iterable<Sequence>) {
    let improved = false
    for (let again = true; again;) {
      again = false
      for (const candidate of candidates(best.sequence)) {
        if (performance.now() > until) return false
        const failure = yield* fails(candidate)
        if (failure === undefined) continue
        best = { sequence: candidate, failure }
        improved = again = true
        break
      }
    }
    return improved
  })
  while ((yield* improve(shorter)) || (yield* improve(simpler)));
  return best
})
