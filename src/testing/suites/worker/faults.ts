/**
 * Drivers that fail when a test asks for it: calls that never reach the store, answers that are lost, streams that
 * break off.
 */
import { Array as Arr, Effect, Latch, Stream } from "effect"
import type { ClaimedMessage, BackendDriver, Fusion, Start } from "../../../BackendDriver.ts"
import type { BrokerDriver } from "../../../BrokerDriver.ts"
import { startFromDefaults } from "../../../driver/index.ts"

/** Both ports of a pairing. */
export interface Drivers {
  readonly backend: BackendDriver
  readonly broker: BrokerDriver
}

type FusedClaim = Parameters<NonNullable<Fusion["claim"]>>[0]

/** A driver's operation, such as `backend.settle`. */
export type Operation =
  | `backend.${Exclude<keyof BackendDriver, "name" | "capabilities" | "batchKey" | "isPermanent" | "fusion">}`
  | `broker.${Exclude<keyof BrokerDriver, "name" | "capabilities" | "batchKey" | "isPermanent" | "store">}`

/** What becomes of a call: it `passes`, never reaches the store, is answered to nobody, late, or is not answered. */
export type Fate = "passes" | "fails" | "refused" | "answer lost" | "answer late" | "hangs"

/** The store is not there; it would be, if it were asked again later. */
class Away extends Error {
  override readonly name = "Away"
}

/** The store will not do it, however often it is asked. */
class Refused extends Error {
  override readonly name = "Refused"
}

/** Decides what becomes of calls; all pass at first. */
export class Faults {
  /** Asked before every call. */
  of: (operation: Operation) => Fate = () => "passes"
  /** Calls so far, by operation; those that failed count too. */
  readonly calls = new Map<Operation, number>()
  /** What asked to run. */
  readonly starts: Array<Start> = []
  private readonly hung = Latch.makeUnsafe(false)
  private broken = Latch.makeUnsafe(false)
  /** Gives up what was claimed, where the connection that is cut held it. */
  private letGo: () => void = () => {}

  /** These operations meet that fate, the first so many times. */
  set(fate: Fate, operations: ReadonlyArray<Operation>, times = Infinity): void {
    let left = times
    this.of = (operation) => (operations.includes(operation) && left-- > 0 ? fate : "passes")
  }

  /** No call reaches the store. */
  cut(): void {
    this.of = () => "fails"
    this.breakStreams()
    this.letGo()
  }

  /** All calls pass, those that hung are made, and late answers are given. */
  heal(): void {
    this.of = () => "passes"
    this.hung.openUnsafe()
  }

  /** Every stream that runs now fails; it may be run again. */
  breakStreams(): void {
    const broken = this.broken
    this.broken = Latch.makeUnsafe(false)
    broken.openUnsafe()
  }

  count(operation: Operation): number {
    return this.calls.get(operation) ?? 0
  }

  private call<A>(operation: Operation, effect: Effect.Effect<A, unknown>): Effect.Effect<A, unknown> {
    return Effect.suspend(() => {
      this.calls.set(operation, this.count(operation) + 1)
      switch (this.of(operation)) {
        case "passes":
          return effect
        case "fails":
          return Effect.fail(new Away(`${operation} failed on purpose`))
        case "refused":
          return Effect.fail(new Refused(`${operation} is refused on purpose`))
        case "answer lost":
          return Effect.andThen(
            effect,
            Effect.fail(new Away(`the answer of ${operation} was lost on purpose`))
          )
        case "answer late":
          return Effect.tap(effect, () => this.hung.await)
        case "hangs":
          return Effect.andThen(this.hung.await, effect)
      }
    })
  }

  private follow<A>(operation: Operation, stream: Stream.Stream<A, unknown>): Stream.Stream<A, unknown> {
    return Stream.suspend(() => {
      const away = Stream.fail(new Away(`${operation} broke off on purpose`))
      if (this.of(operation) !== "passes") return away
      return Stream.merge(stream, Stream.unwrap(Effect.as(this.broken.await, away)))
    })
  }

  /** A fused operation fails where the first of its steps does. */
  private fuse({ claim, enqueue, settle, store }: Fusion): Fusion {
    return {
      store,
      enqueue: (batch) => this.call("backend.create", enqueue(batch)),
      ...(claim === undefined
        ? {}
        : {
            claim: (asked) =>
              this.call("broker.claim", this.call("backend.start", claim(asked))).pipe(
                Effect.tap((claimed) => Effect.sync(() => this.noteStarts(asked, claimed)))
              )
          }),
      settle: (batch) => this.call("backend.settle", settle(batch))
    }
  }

  private noteStarts({ startDefaults, worker }: FusedClaim, claimed: ReadonlyArray<ClaimedMessage>): void {
    for (const { delivery, run } of claimed) {
      const start = run && startFromDefaults(startDefaults, delivery, { token: run.token, worker })
      if (start !== undefined) this.starts.push(start)
    }
  }

  /** The driver, under these faults. */
  private wrap<D extends BackendDriver | BrokerDriver>(port: "backend" | "broker", driver: D): D {
    const guard = (key: string, made: unknown): unknown => {
      const operation = `${port}.${key}` as Operation
      if (Effect.isEffect(made)) return this.call(operation, made as Effect.Effect<unknown, unknown>)
      return Stream.isStream(made) ? this.follow(operation, made as Stream.Stream<unknown, unknown>) : made
    }
    const operations = Object.entries(driver).map(([key, value]: [string, unknown]) => [
      key,
      typeof value === "function" && key !== "batchKey" && key !== "isPermanent"
        ? (...args: ReadonlyArray<unknown>) => {
            if (key === "start") this.starts.push(...(args[0] as ReadonlyArray<Start>))
            return guard(key, Reflect.apply(value, driver, args))
          }
        : guard(key, value)
    ])
    const isPermanent = (error: unknown) =>
      error instanceof Refused || (!(error instanceof Away) && driver.isPermanent?.(error) === true)
    const fusion = "fusion" in driver && driver.fusion !== undefined ? this.fuse(driver.fusion) : undefined
    return {
      ...(Object.fromEntries(operations) as D),
      isPermanent,
      ...(fusion === undefined ? {} : { fusion })
    }
  }

  /** Notes the claims that a connection holds: a server puts them back when it is cut. */
  private holding(broker: BrokerDriver): BrokerDriver {
    const { returnUnhandled } = broker
    if (returnUnhandled === undefined) return broker
    const handles = new Set<string>()
    this.letGo = () => {
      const held = [...handles]
      handles.clear()
      if (Arr.isArrayNonEmpty(held)) Effect.runFork(Effect.ignore(returnUnhandled(held)))
    }
    return {
      ...broker,
      claim: (claim) =>
        Effect.tap(broker.claim(claim), (claimed) =>
          Effect.sync(() => claimed.forEach(({ handle }) => handles.add(handle)))
        )
    }
  }

  /** Both drivers, under these faults. */
  over({ backend, broker }: Drivers): Drivers {
    return { backend: this.wrap("backend", backend), broker: this.wrap("broker", this.holding(broker)) }
  }
}
