/** Checks a store with random sequences. */
import { Arbitrary, Cause, Effect, Exit, Random, Scope } from "effect"
import { type Sequence, sequences } from "./commands.ts"
import { Disagreement, TooSlow, type Setting, type Store } from "./modelFixture.ts"
import { runSequence } from "./runCommands.ts"
import { shrink } from "./shrink.ts"

/** How a store is checked. */
export interface CheckOptions extends Setting {
  /** Makes an empty store. A store that a sequence leaves empty is used again. */
  readonly make: Effect.Effect<Store, unknown, Scope.Scope>
  readonly sequences: number
  /** No sequence starts later than this many milliseconds after the beginning. */
  readonly millis?: number | undefined
  /** Maximum of commands in a sequence. */
  readonly commands: number
  /** Sequences that run at once, each in its own store. */
  readonly concurrency?: number | undefined
  readonly seed?: string | number | undefined
}

interface OpenStore {
  readonly store: Store
  readonly scope: Scope.Closeable
}

/** Extra time for sequences that run when the time is over. */
const GRACE_MILLIS = 5_000

/** Fails with the shortest sequence found on which store and model disagree. */
export const check = Effect.fnUntraced(function* (
  options: CheckOptions
): Effect.fn.Return<void, Disagreement, Scope.Scope> {
  const free: Array<OpenStore> = []
  const open = Effect.gen(function* () {
    const scope = yield* Scope.make()
    const store = yield* Effect.orDie(Scope.provide(options.make, scope))
    return { store, scope }
  })
  const close = ({ scope }: OpenStore) => Scope.close(scope, Exit.void)
  yield* Effect.addFinalizer(() => Effect.forEach(free, close, { discard: true }))

  const attempt = (sequence: Sequence, unit: number) =>
    Effect.acquireUseRelease(
      Effect.suspend(() => {
        const opened = free.pop()
        return opened === undefined ? open : Effect.succeed(opened)
      }),
      ({ store }) => runSequence(store, { ...options, unit }, sequence),
      (opened, exit) =>
        Exit.isSuccess(exit) && exit.value && options.live
          ? Effect.sync(() => void free.push(opened))
          : close(opened)
    )
  const until = performance.now() + (options.millis ?? Infinity)
  let { unit } = options
  let decided = 0
  /**
   * Returns how a sequence fails; `undefined` if it does not, or if the time is over and another sequence was
   * decided.
   */
  const fails = Effect.fnUntraced(function* (sequence: Sequence, bounded = false) {
    for (;;) {
      const current = unit
      const left = Math.max(0, until + GRACE_MILLIS - performance.now())
      const played = attempt(sequence, current)
      const exit = yield* Effect.exit(
        bounded && decided > 0 && options.live
          ? Effect.timeoutOrElse(played, { duration: left, orElse: () => Effect.fail(new TooSlow()) })
          : played
      )
      if (Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) return yield* Effect.interrupt
      const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      if (error instanceof TooSlow) {
        unit = Math.max(unit, current * 2)
        if (performance.now() > until && decided > 0) return undefined
        continue
      }
      decided++
      if (Exit.isSuccess(exit)) return undefined
      return error instanceof Disagreement ? error.message : Cause.pretty(exit.cause)
    }
  })
  const { commands, concurrency = 1, sequences: count } = options
  const seed = options.seed ?? (yield* Random.nextInt)
  const checkOne = Effect.fnUntraced(function* (n: number) {
    const samples = yield* Effect.orDie(
      Arbitrary.sampleEffect(sequences(commands), { count: 1, size: commands, seed: `${seed}/${n}` })
    )
    for (const sequence of samples) {
      const failure = yield* fails(sequence, true)
      if (failure === undefined) continue
      const { failure: last } = yield* shrink(sequence, failure, fails)
      return yield* new Disagreement({ message: `sequence ${n} of seed ${seed}:\n${last}` })
    }
  })
  yield* Effect.forEach(
    Array.from({ length: count }, (_, n) => n),
    (n) => (performance.now() < until || decided === 0 ? checkOne(n) : Effect.void),
    { concurrency, discard: true }
  )
})
