/** Where a sequence is played: a store, the time, and what was said so far. */
import { isDeepStrictEqual } from "node:util"
import { Cause, Data, Effect } from "effect"
import { TestClock } from "effect/testing"
import type { BackendDriver } from "../../src/BackendDriver.ts"
import type { BrokerDriver } from "../../src/BrokerDriver.ts"

/** The two drivers of a store, or of two. Nobody else has them while a sequence is played. */
export interface Store {
  readonly backend: BackendDriver
  readonly broker: BrokerDriver
}

/** How a store is played with. */
export interface Setting {
  /** Milliseconds. In real time a store has three tenths of it for the commands between two of its ends. */
  readonly unit: number
  /** Whether time is real; otherwise it is that of `TestClock`. */
  readonly live: boolean
  /** Messages go to these queues. */
  readonly queues: readonly [string, ...Array<string>]
}

/** The store did otherwise than the model. The message tells all that was done. */
export class Disagreement extends Data.TaggedError("Disagreement")<{ readonly message: string }> {}

/** The machine was too slow for the unit: nothing can be said. */
export class TooSlow extends Data.TaggedError("Late") {}

/** What may come of whatever is played. */
export type Failure = Disagreement | TooSlow

/** Deadlines lie half a unit after the beginnings of units, to which commands keep. */
const MAX_DELAY_UNITS = 0.3

/** In which state a record was, shortly; other answers as they are. */
const formatAnswer = (answer: unknown): string =>
  typeof answer === "string" ? answer : JSON.stringify(answer)?.replaceAll('"', "").replaceAll("_tag:", "")

const formatDifference = (store: unknown, model: unknown): string => {
  const isPlain = (value: unknown): value is Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value)
  if (!isPlain(store) || !isPlain(model))
    return `the store says ${formatAnswer(store)}, the model ${formatAnswer(model)}`
  return [...new Set([...Object.keys(store), ...Object.keys(model)])]
    .filter((name) => !isDeepStrictEqual(store[name], model[name]))
    .map((name) => `${name}: ${formatDifference(store[name], model[name])}`)
    .join("\n      ")
}

/** Time, and a record of what was done. */
export class ModelFixture {
  readonly store: Store
  readonly setting: Setting
  /** Milliseconds since the beginning, as the model counts them: whole units. */
  now = 0
  private readonly lines: Array<string> = []
  private readonly begin = performance.now()
  /** What the store's clock showed at the beginning. */
  private epoch: number | undefined

  constructor(store: Store, setting: Setting) {
    this.store = store
    this.setting = setting
  }

  /** So many units, in milliseconds. */
  units(count: number): number {
    return count * this.setting.unit
  }

  /** Takes a note of what is done. */
  log(line: string): void {
    this.lines.push(line)
  }

  /** Adds to the last note. */
  logAnswer(text: unknown): void {
    this.lines.push(`${this.lines.pop() ?? ""} → ${formatAnswer(text)}`)
  }

  disagree(what: string): Effect.Effect<never, Disagreement> {
    const numbered = this.lines.map((line, n) => `${String(n + 1).padStart(4)}  ${line}`)
    return Effect.fail(new Disagreement({ message: [...numbered, `      ${what}`].join("\n") }))
  }

  /** Lets units pass. */
  advance(count: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.now += this.units(count)
      if (!this.setting.live) return TestClock.adjust(this.units(count))
      return Effect.sleep(Math.max(0, this.begin + this.now + 1 - performance.now()))
    })
  }

  private readonly assertPunctual: Effect.Effect<void, TooSlow> = Effect.suspend(() =>
    this.setting.live && performance.now() - this.begin - this.now > this.units(MAX_DELAY_UNITS)
      ? Effect.fail(new TooSlow())
      : Effect.void
  )

  /** Asks the store. */
  call<A>(call: Effect.Effect<A, unknown>): Effect.Effect<A, Failure> {
    return Effect.matchCauseEffect(call, {
      onSuccess: (answer) => Effect.as(this.assertPunctual, answer),
      onFailure: (cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.interrupt
          : Effect.andThen(this.assertPunctual, this.disagree(`the store failed: ${Cause.pretty(cause)}`))
    })
  }

  /** The store has to say what the model says. */
  assertEqual(what: string, store: unknown, model: unknown): Effect.Effect<void, Disagreement> {
    return isDeepStrictEqual(store, model)
      ? Effect.void
      : this.disagree(`${what}: ${formatDifference(store, model)}`)
  }

  /** A time of the store as the model would have it: the nearest it can be to the one that is expected. */
  toModelTime(store: number | null, model: number | null): number | null {
    if (store === null || model === null) return store
    this.epoch ??= store - model
    const late = store - this.epoch - model
    return Math.abs(late) <= this.tolerance ? model : store - this.epoch
  }

  /** By how much times may be off. */
  get tolerance(): number {
    return this.setting.live ? this.units(0.4) : 0
  }

  /** Durations of the store are up to so much shorter than the model's, which counts whole units. */
  roundToModel(store: number, model: number): number {
    return Math.abs(store - model) <= this.tolerance ? model : store
  }
}
