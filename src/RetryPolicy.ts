/**
 * Which failures of a task are tried again, and when.
 *
 * A policy is plain data, narrowed by a spread:
 *
 * ```ts
 * const Charge = Task.make("card.charge", {
 *   error: Schema.Union([RateLimited, CardDeclined]),
 *   retry: {
 *     ...RetryPolicy.exponential({ maxRetries: 5, delay: "1 second" }),
 *     byTag: { RateLimited: (error) => error.retryAfter, CardDeclined: "never" }
 *   }
 * })
 * ```
 *
 * The delay lives in the broker, never in a sleeping worker. Defects are bugs and are not retried, unless the task
 * says `retryDefects`; a timeout of an attempt is.
 */
import { Duration, Effect, Option, Predicate, Pull, Random, Schedule } from "effect"
import { nonNegativeDuration, positiveNumber, wholeNumber } from "./internal/options.ts"

/** What becomes of one tag of error: no retry, a delay, or a function of the error that gives either. */
export type Rule<E> = "never" | Duration.Input | ((error: E) => Duration.Input | "never")

/** A rule for each tag of the task's error; the schedule serves the others. */
export type ByTag<E> = {
  readonly [Tag in Extract<E, { readonly _tag: string }>["_tag"]]?: Rule<Extract<E, { readonly _tag: Tag }>>
} & {
  /** Only keeps the type from being `{}`, which would accept any tag. */
  readonly "~rules"?: never
}

/** When a failed task is tried again. */
export interface RetryPolicy<in E = unknown> {
  /** Retries after the first attempt. */
  readonly maxRetries: number
  /** The delay before each retry, replayed from its first step. */
  readonly schedule: Schedule.Schedule<unknown, E>
  /** No delay is longer than this, whatever rule it came from; only a countdown that the handler asks for may be. */
  readonly maxDelay?: Duration.Input | undefined
  /** Spreads each delay between 80 % and 120 % of itself. Never beyond `maxDelay`. */
  readonly jitter?: boolean | undefined
  /** Errors for which it is false are not retried. */
  readonly while?: ((error: E) => boolean) | undefined
  readonly byTag?: ByTag<E> | undefined
}

/** What `fixed`, `linear` and `exponential` take. */
export interface Options {
  /** Retries after the first attempt: a whole number from 0. */
  readonly maxRetries: number
  readonly delay: Duration.Input
  readonly maxDelay?: Duration.Input | undefined
  readonly jitter?: boolean | undefined
}

const make = (
  caller: string,
  options: Options,
  schedule: (delay: Duration.Duration) => Schedule.Schedule<unknown>
) => {
  const { delay, jitter, maxDelay, maxRetries } = options
  return check(caller, {
    maxRetries,
    schedule: schedule(nonNegativeDuration(`${caller}: delay`, delay)),
    ...(maxDelay === undefined ? {} : { maxDelay }),
    ...(jitter === undefined ? {} : { jitter })
  })
}

/** @internal Refuses what is out of range: a programmer's error, so it throws. */
export const check = <E>(caller: string, policy: RetryPolicy<E>): RetryPolicy<E> => {
  wholeNumber(`${caller}: maxRetries`, policy.maxRetries, 0)
  if (policy.maxDelay !== undefined) nonNegativeDuration(`${caller}: maxDelay`, policy.maxDelay)
  for (const [tag, rule] of Object.entries<Rule<never> | undefined>(policy.byTag ?? {})) {
    if (rule !== undefined && rule !== "never" && typeof rule !== "function") {
      nonNegativeDuration(`${caller}: byTag.${tag}`, rule)
    }
  }
  return policy
}

/** No retries: the default. */
export const never: RetryPolicy = { maxRetries: 0, schedule: Schedule.recurs(0) }

/** The same delay before each retry. */
export const fixed = (options: Options): RetryPolicy => make("RetryPolicy.fixed", options, Schedule.spaced)

/** Waits `delay` before the first retry, twice that before the second, n times that before the n-th. */
export const linear = (options: Options): RetryPolicy =>
  make("RetryPolicy.linear", options, (delay) =>
    Schedule.modifyDelay(Schedule.forever, ({ output }) => Effect.succeed(Duration.times(delay, output + 1)))
  )

/** Waits `delay` before the first retry, and `factor` (default 2) times the last delay before each further one. */
export const exponential = (options: Options & { readonly factor?: number | undefined }): RetryPolicy =>
  make("RetryPolicy.exponential", options, (delay) =>
    Schedule.exponential(delay, positiveNumber("RetryPolicy.exponential: factor", options.factor ?? 2))
  )

/**
 * The delays of a schedule, which is replayed from its first step for each retry, on a clock that advances by the
 * delays alone; it ends the retries when it is done. `maxRetries`: no bound of its own by default.
 */
export const fromSchedule = <E = unknown>(
  schedule: Schedule.Schedule<unknown, E>,
  options?: { readonly maxRetries?: number | undefined }
): RetryPolicy<E> =>
  check("RetryPolicy.fromSchedule", { maxRetries: options?.maxRetries ?? Number.MAX_SAFE_INTEGER, schedule })

/** @internal What a policy says of a failure. */
export type Decision =
  | { readonly _tag: "Retry"; readonly after: Duration.Duration }
  /** `exhausted`: a retry would have been allowed, and none was left. */
  | { readonly _tag: "GiveUp"; readonly exhausted: boolean }

const giveUp = (exhausted: boolean): Effect.Effect<Decision> => Effect.succeed({ _tag: "GiveUp", exhausted })

/** @internal What the policy says of an error, after so many retries. */
export const decide = <E>(policy: RetryPolicy<E>, error: E, retries: number): Effect.Effect<Decision> =>
  Effect.suspend(() => {
    if (policy.maxRetries === 0) return giveUp(false)
    if (policy.while !== undefined && !policy.while(error)) return giveUp(false)
    const rule = ruleOf(policy, error)
    const given = typeof rule === "function" ? rule(error) : rule
    if (given === "never") return giveUp(false)
    if (retries >= policy.maxRetries) return giveUp(true)
    return given === undefined
      ? fromDelay(policy, replay(policy.schedule, error, retries))
      : fromDelay(
          policy,
          Effect.succeedSome(nonNegativeDuration("RetryPolicy: the delay that byTag gives", given))
        )
  })

/** @internal What the policy says of a failure that is no error of the task: a timeout, a defect, a retry asked for. */
export const decideUntyped = <E>(
  policy: RetryPolicy<E>,
  retries: number,
  countdown?: Duration.Duration
): Effect.Effect<Decision> =>
  Effect.suspend(() => {
    if (policy.maxRetries === 0) return giveUp(countdown !== undefined)
    if (retries >= policy.maxRetries) return giveUp(true)
    return countdown === undefined
      ? fromDelay(policy, replay(policy.schedule, undefined as E, retries))
      : Effect.succeed<Decision>({ _tag: "Retry", after: countdown })
  })

const ruleOf = <E>(policy: RetryPolicy<E>, error: E): Rule<E> | undefined =>
  policy.byTag !== undefined && Predicate.hasProperty(error, "_tag") && typeof error._tag === "string"
    ? (policy.byTag as { readonly [tag: string]: Rule<E> | undefined })[error._tag]
    : undefined

const fromDelay = <E>(
  policy: RetryPolicy<E>,
  delay: Effect.Effect<Option.Option<Duration.Duration>>
): Effect.Effect<Decision> =>
  Effect.flatMap(delay, (found) => {
    if (Option.isNone(found)) return giveUp(true)
    const spread = policy.jitter === true ? Effect.map(Random.next, (n) => 0.8 + n * 0.4) : Effect.succeed(1)
    return Effect.map(spread, (factor): Decision => {
      const after = Duration.times(found.value, factor)
      return {
        _tag: "Retry",
        after:
          policy.maxDelay === undefined
            ? after
            : Duration.min(after, Duration.fromInputUnsafe(policy.maxDelay))
      }
    })
  })

/** The delay of a schedule's step number `retries`, counted from 0; none when it ends before. */
const replay = <E>(
  schedule: Schedule.Schedule<unknown, E>,
  error: E,
  retries: number
): Effect.Effect<Option.Option<Duration.Duration>> =>
  Effect.gen(function* () {
    const step = yield* Schedule.toStep(schedule)
    let now = 0
    let delay = Duration.zero
    for (let i = 0; i <= retries; i++) {
      const next = yield* Pull.catchDone(Effect.map(step(now, error), Option.some), () => Effect.succeedNone)
      if (Option.isNone(next)) return Option.none()
      delay = next.value[1]
      now += Duration.toMillis(delay)
    }
    return Option.some(delay)
  })
